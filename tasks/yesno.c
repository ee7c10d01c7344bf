// Yes/no: does this person have this thing? Two or three facts, then the question; generated.
//
// Examples come in pairs with the *same question* and passages that answer it with yes and with no,
// so the labels are exactly balanced, overall and for each question: the question alone, and the
// majority, score 50 %. The passage of the no-example differs in one of three ways, drawn evenly:
//   other thing    the asked person has something else; neither word of the thing is there
//   other colour   ... the thing in another colour
//   swapped        another person has the thing: both passages consist of the same words
// A model that only looks for the asked words reaches 83 %; more needs binding things to persons.
//
// Splits are by the question (person, colour, thing): no question of one split occurs in another.
// An odd size cuts the last pair; even sizes are exactly balanced.
#include "tasks/common/generate.h"

#include <string.h>

typedef struct fact {
    const char *name, *colour, *thing;
} fact;

enum { MAX_FACTS = 3 };

static void put_facts(pb_line *l, const fact *f, size_t n)
{
    for (size_t i = 0; i < n; i++)
        pb_put(l, "%s has a %s %s. ", f[i].name, f[i].colour, f[i].thing);
}

// A word of the list that no fact before uses in that place.
static const char *fresh(pb_rng *r, const pb_words *w, const char *const *used, size_t n)
{
    for (;;) {
        const char *s = pb_pick(r, w);
        size_t i = 0;
        while (i < n && used[i] != s)
            i++;
        if (i == n)
            return s;
    }
}

static pb_err draw(pb_dataset *d, pb_rng *r, pb_split split, size_t left, pb_seen *seen)
{
    // Facts share no word, plus one spare set of words for the changed fact.
    const char *name[MAX_FACTS], *colour[MAX_FACTS + 1], *thing[MAX_FACTS + 1];
    for (size_t i = 0; i < MAX_FACTS; i++)
        name[i] = fresh(r, &pb_names, name, i);
    for (size_t i = 0; i <= MAX_FACTS; i++) {
        colour[i] = fresh(r, &pb_colours, colour, i);
        thing[i] = fresh(r, &pb_things, thing, i);
    }
    size_t n = 2 + pb_rng_below(r, 2);
    size_t asked = pb_rng_below(r, n), other = (asked + 1 + pb_rng_below(r, n - 1)) % n;
    size_t change = pb_rng_below(r, 3), yes_first = pb_rng_below(r, 2);

    fact yes[MAX_FACTS], no[MAX_FACTS];
    for (size_t i = 0; i < n; i++)
        yes[i] = no[i] = (fact){name[i], colour[i], thing[i]};
    if (change == 2) {
        no[asked].colour = yes[other].colour;
        no[asked].thing = yes[other].thing;
        no[other].colour = yes[asked].colour;
        no[other].thing = yes[asked].thing;
    } else {
        no[asked].colour = colour[MAX_FACTS];
        if (change == 0)
            no[asked].thing = thing[MAX_FACTS];
    }

    pb_line question = {.n = 0}, prompt[2] = {{.n = 0}, {.n = 0}};
    pb_put(&question, "Does %s have a %s %s?", name[asked], colour[asked], thing[asked]);
    if (pb_meaning_split(pb_meaning(question.text)) != split)
        return PB_OK;
    put_facts(&prompt[0], yes, n);
    put_facts(&prompt[1], no, n);
    bool is_new[2];
    for (size_t i = 0; i < 2; i++) {
        pb_put(&prompt[i], "%s", question.text);
        PB_TRY(pb_seen_add(seen, pb_meaning(prompt[i].text), &is_new[i]));
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
    .doc = "yes/no question about who has what, ranking \" yes\" and \" no\"",
    .source = "generated from the seed by tasks/yesno.c",
    .licence = "as this project",
    .version = "1",
    .kind = PB_RANK,
    .metric = "accuracy",
    .sizes = {2000, 100, 200},
    .load = load,
};
