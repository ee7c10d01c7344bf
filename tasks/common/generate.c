#include "tasks/common/generate.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS(name, ...)                                                                           \
    static const char *const name##_list[] = {__VA_ARGS__};                                        \
    const pb_words pb_##name = {name##_list, sizeof name##_list / sizeof *name##_list}

WORDS(names, "Anna", "Tom", "Mary", "Ben", "Lucy", "Jack", "Emma", "Sam", "Nora", "Paul", "Rosa",
      "Max", "Clara", "David", "Helen", "Peter", "Julia", "Mark", "Sofia", "Leo", "Grace", "Hugo",
      "Ida", "Oscar");
WORDS(colours, "red", "blue", "green", "black", "white", "yellow", "brown", "pink", "grey",
      "purple");
WORDS(things, "ball", "cup", "hat", "book", "box", "bag", "coat", "lamp", "chair", "kite", "drum",
      "bell", "ring", "key", "map", "pen", "boat", "cart", "doll", "scarf", "clock", "spoon",
      "basket", "plate");
WORDS(cities, "Rome", "Paris", "London", "Berlin", "Madrid", "Vienna", "Dublin", "Oslo", "Lisbon",
      "Prague", "Athens", "Cairo", "Delhi", "Tokyo", "Boston", "Geneva", "Milan", "Bergen", "Turin",
      "Lyon");
WORDS(foods, "Thai", "Italian", "French", "Indian", "Chinese", "Greek", "Spanish", "Turkish",
      "Mexican", "Japanese", "English", "Polish");
WORDS(place_first, "Golden", "Silver", "Green", "Blue", "Red", "Old", "Little", "Happy", "Royal",
      "Sunny", "Quiet", "White", "Black", "Lucky");
WORDS(place_last, "Fox", "Door", "Mill", "Spoon", "Garden", "Lion", "Bridge", "Table", "Rose",
      "Star", "Swan", "Corner", "Kettle", "Lantern", "Anchor", "Pepper");

const char *pb_pick(pb_rng *r, const pb_words *w)
{
    return w->word[pb_rng_below(r, w->n)];
}

const char *pb_article(const char *next_word)
{
    return strchr("aeiouAEIOU", *next_word) ? "an" : "a";
}

void pb_put(pb_line *l, const char *fmt, ...)
{
    size_t room = sizeof l->text - l->n;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(l->text + l->n, room, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= room) {
        l->text[l->n] = 0;
        l->full = true;
    } else {
        l->n += (size_t)n;
    }
}

// FNV-1a with the finishing steps of MurmurHash3, because splits are taken from the high bits.
uint64_t pb_meaning(const char *text)
{
    uint64_t h = 14695981039346656037u;
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 1099511628211u;
    h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdu;
    h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53u;
    return h ^ (h >> 33);
}

pb_split pb_meaning_split(uint64_t meaning)
{
    uint64_t tenth = (meaning >> 32) % 10;
    return tenth < 8 ? PB_TRAIN : tenth == 8 ? PB_VALID : PB_TEST;
}

// Open addressing, at most half full; the key 0 marks a free slot, so 0 itself is stored as 1.
static bool insert(uint64_t *slot, size_t cap, uint64_t key)
{
    size_t i = (size_t)key & (cap - 1);
    for (; slot[i]; i = (i + 1) & (cap - 1))
        if (slot[i] == key)
            return false;
    slot[i] = key;
    return true;
}

pb_err pb_seen_add(pb_seen *s, uint64_t key, bool *is_new)
{
    if (2 * (s->n + 1) > s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 4096;
        uint64_t *slot = calloc(cap, sizeof *slot);
        if (!slot)
            return pb_fail(PB_MEMORY, "limit the number of examples",
                           "no memory for a set of %zu meanings", cap / 2);
        for (size_t i = 0; i < s->cap; i++)
            if (s->slot[i])
                insert(slot, cap, s->slot[i]);
        free(s->slot);
        s->slot = slot;
        s->cap = cap;
    }
    *is_new = insert(s->slot, s->cap, key ? key : 1);
    s->n += *is_new;
    return PB_OK;
}

void pb_seen_free(pb_seen *s)
{
    free(s->slot);
    *s = (pb_seen){0};
}

pb_err pb_generate(pb_dataset *d, const pb_task *task, const pb_task_args *args, pb_draw draw)
{
    // After so many draws in vain a task's meanings are, for all purposes, used up.
    enum { PATIENCE = 20000 };
    pb_err err = PB_OK;
    pb_seen seen = {0};
    for (pb_split s = 0; s < PB_N_SPLITS; s++) {
        size_t want = args->limit[s] ? args->limit[s] : task->sizes[s];
        pb_rng r = pb_rng_make(args->seed, PB_STREAM_TASK, (uint32_t)pb_meaning(task->name) + s);
        size_t have = pb_dataset_count(d, s), in_vain = 0;
        while (have < want) {
            PB_GO(draw(d, &r, s, want - have, &seen));
            size_t now = pb_dataset_count(d, s);
            in_vain = now > have ? 0 : in_vain + 1;
            have = now;
            if (in_vain == PATIENCE) {
                err =
                    pb_fail(PB_INPUT, "ask for fewer examples",
                            "there are only about %zu examples for this split, %zu were asked for",
                            have, want);
                goto done;
            }
        }
    }
done:
    pb_seen_free(&seen);
    return err;
}
