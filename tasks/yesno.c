// Yes/no: did this person like it? One or two persons say what it was like; generated.
//
// Examples come in pairs with the *same question* and passages that answer it with yes and with no,
// so the labels are exactly balanced, overall and for each question: the question alone, and the
// majority, score 50 %. In two pairs of three only the asked person speaks, and the words decide.
// In the third another person says the opposite of the same thing, so both passages of the pair
// have the same number of kind and unkind words. A model that only counts them reaches 83 %; more
// needs binding words to persons.
//
// Splits are by the question (person, thing): no question of one split occurs in another. An odd
// size cuts the last pair; even sizes are exactly balanced.
#include "tasks/common/generate.h"

#define WORDS(name, ...)                                                                           \
    static const char *const name##_words[] = {__VA_ARGS__};                                       \
    static const pb_words name = {name##_words, sizeof name##_words / sizeof *name##_words}

WORDS(kind, "great", "lovely", "fine", "wonderful", "perfect", "superb");
WORDS(unkind, "awful", "bad", "dull", "terrible", "boring", "horrible");
WORDS(things, "soup", "show", "bread", "tea", "trip", "cake", "play", "book", "song", "fish",
      "room", "film", "walk", "game", "salad", "speech");

static const char *other_than(pb_rng *r, const pb_words *w, const char *taken)
{
    const char *s;
    do
        s = pb_pick(r, w);
    while (s == taken);
    return s;
}

static pb_err draw(pb_dataset *d, pb_rng *r, pb_split split, size_t left, pb_seen *seen)
{
    const char *asked = pb_pick(r, &pb_names), *other = other_than(r, &pb_names, asked);
    const char *thing = pb_pick(r, &things);
    bool two = pb_rng_below(r, 3) == 0, asked_first = pb_rng_below(r, 2);
    size_t yes_first = pb_rng_below(r, 2);

    pb_line question = {.n = 0}, prompt[2] = {{.n = 0}, {.n = 0}};
    pb_put(&question, "Did %s like the %s?", asked, thing);
    if (pb_meaning_split(pb_meaning(question.text)) != split)
        return PB_OK;
    bool is_new[2];
    for (size_t no = 0; no < 2; no++) {
        pb_line own = {.n = 0}, others = {.n = 0};
        const pb_words *mine = no ? &unkind : &kind, *theirs = no ? &kind : &unkind;
        const char *a = pb_pick(r, mine), *b = pb_pick(r, theirs);
        pb_put(&own, "%s said that the %s was %s. ", asked, thing, a);
        if (two)
            pb_put(&others, "%s said that the %s was %s. ", other, thing, b);
        pb_put(&prompt[no], "%s%s%s", asked_first ? own.text : others.text,
               asked_first ? others.text : own.text, question.text);
        PB_TRY(pb_seen_add(seen, pb_meaning(prompt[no].text), &is_new[no]));
    }
    if (!is_new[0] || !is_new[1])
        return PB_OK;

    static const char *const candidates[] = {" yes", " no"};
    for (size_t k = 0; k < 2 && k < left; k++) {
        size_t label = k ^ !yes_first;
        pb_example e = {.prompt = prompt[label].text,
                        .response = candidates[label],
                        .candidates = candidates,
                        .n_candidates = 2,
                        .label = label};
        PB_TRY(pb_dataset_add(d, split, &e));
    }
    return PB_OK;
}

static pb_err load(pb_dataset *d, const pb_task *task, const pb_task_args *args)
{
    return pb_generate(d, task, args, draw);
}

PB_TASK(yesno) = {
    .name = "yesno",
    .doc = "yes/no question about who liked what, ranking \" yes\" and \" no\"",
    .source = "generated from the seed by tasks/yesno.c",
    .licence = "as this project",
    .version = "2",
    .kind = PB_RANK,
    .metric = "accuracy",
    .sizes = {2000, 100, 200},
    .load = load,
};
