// Restaurant: data to text in the manner of E2E NLG, generated.
//
// A meaning is a name and two to five of the slots type, food, price, area and family. The prompt
// lists them in a fixed order; the response is one of six wordings, each of which says every slot,
// and all wordings that fit the meaning are references. Names have two parts (224 combinations), so
// a name must be copied from the prompt; prices, areas and families must be put into words.
#include "tasks/common/generate.h"

#include <string.h>

typedef struct slot_words {
    const char *value;   // as the prompt says it; NULL: the slot is absent
    const char *text[3]; // as a sentence says it
} slot_words;

static const char *const types[] = {NULL, "restaurant", "pub", "cafe", "bar"};
static const slot_words prices[] = {
    {NULL, {"", "", ""}},
    {"cheap", {"cheap ", " at low prices", "low-priced "}},
    {"medium", {"fairly priced ", " at fair prices", "fairly priced "}},
    {"high", {"expensive ", " at high prices", "high-priced "}},
};
static const slot_words areas[] = {
    {NULL, {"", "", ""}},
    {"riverside", {" by the river", "By the river, ", ""}},
    {"city centre", {" in the city centre", "In the city centre, ", ""}},
    {"old town", {" in the old town", "In the old town, ", ""}},
    {"harbour", {" at the harbour", "At the harbour, ", ""}},
    {"market", {" near the market", "Near the market, ", ""}},
    {"station", {" near the station", "Near the station, ", ""}},
};
static const slot_words families[] = {
    {NULL, {"", "", ""}},
    {"yes", {"It is good for families.", "Families are welcome.", "family-friendly "}},
    {"no", {"It is not for families.", "Families are not welcome.", "adults-only "}},
};
#define COUNT(a) (sizeof(a) / sizeof *(a))

typedef struct meaning {
    const char *first, *last, *type, *food;
    const slot_words *price, *area, *family;
} meaning;

enum { N_WORDINGS = 6 };

// "Golden Fox is a cheap Thai pub": the article looks at whatever word comes next.
static void put_kind(pb_line *l, const char *before, const meaning *m)
{
    pb_line k = {.n = 0};
    pb_put(&k, "%s%s%s%s", before, m->food ? m->food : "", m->food ? " " : "",
           m->type ? m->type : "place");
    pb_put(l, "%s %s", pb_article(k.text), k.text);
}

static void put_name(pb_line *l, const meaning *m)
{
    pb_put(l, "%s %s", m->first, m->last);
}

static void put_family(pb_line *l, const meaning *m, size_t i)
{
    if (m->family->value)
        pb_put(l, " %s", m->family->text[i]);
}

// Writes wording i; false when it does not fit this meaning.
static bool word(pb_line *l, const meaning *m, size_t i)
{
    const char *area = m->area->text[0];
    pb_line before = {.n = 0};
    *l = (pb_line){.n = 0};
    switch (i) {
    case 0: // Golden Fox is a cheap Thai pub by the river. It is good for families.
        put_name(l, m);
        pb_put(l, " is ");
        put_kind(l, m->price->text[0], m);
        pb_put(l, "%s.", area);
        put_family(l, m, 0);
        return true;
    case 1: // By the river, Golden Fox is a low-priced Thai pub. Families are welcome.
        if (!m->area->value)
            return false;
        pb_put(l, "%s", m->area->text[1]);
        put_name(l, m);
        pb_put(l, " is ");
        put_kind(l, m->price->text[2], m);
        pb_put(l, ".");
        put_family(l, m, 1);
        return true;
    case 2: // There is a family-friendly cheap Thai pub called Golden Fox by the river.
        pb_put(l, "There is ");
        pb_put(&before, "%s%s", m->family->text[2], m->price->text[0]);
        put_kind(l, before.text, m);
        pb_put(l, " called ");
        put_name(l, m);
        pb_put(l, "%s.", area);
        return true;
    case 3: // The cheap pub Golden Fox by the river serves Thai food. It is good for families.
        if (!m->food)
            return false;
        pb_put(l, "The %s%s ", m->price->text[0], m->type ? m->type : "place");
        put_name(l, m);
        pb_put(l, "%s serves %s food.", area, m->food);
        put_family(l, m, 0);
        return true;
    case 4: // Golden Fox, a pub by the river, serves Thai food at low prices. Families are welcome.
        if (!m->food)
            return false;
        put_name(l, m);
        if (m->type || m->area->value)
            pb_put(l, ", a %s%s,", m->type ? m->type : "place", area);
        pb_put(l, " serves %s food%s.", m->food, m->price->text[1]);
        put_family(l, m, 1);
        return true;
    default: // Golden Fox is a family-friendly Thai pub by the river at low prices.
        put_name(l, m);
        pb_put(l, " is ");
        put_kind(l, m->family->text[2], m);
        pb_put(l, "%s%s.", area, m->price->text[1]);
        return true;
    }
}

static void put_slot(pb_line *l, const char *slot, const char *value)
{
    if (value)
        pb_put(l, "; %s: %s", slot, value);
}

static pb_err draw(pb_dataset *d, pb_rng *r, pb_split split, size_t left, pb_seen *seen)
{
    (void)left;
    meaning m = {
        .first = pb_pick(r, &pb_place_first),
        .last = pb_pick(r, &pb_place_last),
        .type = types[pb_rng_below(r, COUNT(types))],
        // One in five has no food.
        .food = pb_rng_below(r, 5) ? pb_pick(r, &pb_foods) : NULL,
        .price = &prices[pb_rng_below(r, COUNT(prices))],
        .area = &areas[pb_rng_below(r, COUNT(areas))],
        .family = &families[pb_rng_below(r, COUNT(families))],
    };
    size_t slots = !!m.type + !!m.food + !!m.price->value + !!m.area->value + !!m.family->value;
    if (slots < 2)
        return PB_OK;
    pb_line prompt = {.n = 0};
    pb_put(&prompt, "name: %s %s", m.first, m.last);
    put_slot(&prompt, "type", m.type);
    put_slot(&prompt, "food", m.food);
    put_slot(&prompt, "price", m.price->value);
    put_slot(&prompt, "area", m.area->value);
    put_slot(&prompt, "family", m.family->value);
    uint64_t key = pb_meaning(prompt.text);
    bool is_new;
    if (pb_meaning_split(key) != split)
        return PB_OK;
    PB_TRY(pb_seen_add(seen, key, &is_new));
    if (!is_new)
        return PB_OK;
    pb_put(&prompt, "\n");

    // Some wordings coincide when slots are absent; a reference stands in the list once.
    pb_line line[N_WORDINGS];
    const char *refs[N_WORDINGS];
    size_t n = 0;
    for (size_t i = 0; i < N_WORDINGS; i++) {
        bool use = word(&line[n], &m, i);
        for (size_t j = 0; use && j < n; j++)
            use = strcmp(line[j].text, line[n].text);
        if (use) {
            refs[n] = line[n].text;
            n++;
        }
    }
    pb_example e = {.prompt = prompt.text,
                    .response = refs[pb_rng_below(r, n)],
                    .references = refs,
                    .n_references = n};
    return pb_dataset_add(d, split, &e);
}

static pb_err load(pb_dataset *d, const pb_task *task, const pb_task_args *args)
{
    return pb_generate(d, task, args, draw);
}

PB_TASK(restaurant) = {
    .name = "restaurant",
    .doc = "data to text: a restaurant's slots -> a short description",
    .source = "generated from the seed by tasks/restaurant.c",
    .licence = "as this project",
    .version = "1",
    .kind = PB_GENERATE,
    .metric = "bleu",
    .max_new = 160,
    .sizes = {2000, 100, 200},
    .load = load,
};
