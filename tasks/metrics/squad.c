// Exact match and F1 of short answers, as the evaluation script of SQuAD v1.1 has them (Rajpurkar
// et al. 2016). Texts are normalised: lower case, no ASCII punctuation, no words "a", "an", "the",
// single spaces. With tokens between spaces and c tokens in common (as multisets):
//
//   precision = c / tokens of the answer, recall = c / tokens of the reference,
//   F1 = 2 precision recall / (precision + recall), 0 when c is 0
//
// An item's score is the largest over its references; the figure is the mean over items. Lower case
// is one to one here; Python's makes two code points of U+0130 and a final sigma of Greek.
#include "tasks/metrics/metrics.h"

#include "tasks/metrics/text.h"
#include <stdlib.h>
#include <string.h>

static bool is_article(const char *p, size_t n)
{
    return (n == 1 && *p == 'a') || (n == 2 && !memcmp(p, "an", 2)) ||
           (n == 3 && !memcmp(p, "the", 3));
}

static bool is_punctuation(int32_t c)
{
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~');
}

pb_err pb_squad_normalise(char **out, const char *text)
{
    // Lower case may be a byte longer, and so is U+FFFD than a byte it stands for.
    char *p = *out = malloc(3 * strlen(text) + 8), *word = p;
    if (!p)
        return pb_fail(PB_MEMORY, NULL, "no memory for an answer of %zu bytes", strlen(text));
    bool more = true;
    while (more) {
        more = *text;
        int32_t c = more ? pb_lower_char(pb_next_char(&text)) : ' ';
        if (is_punctuation(c))
            continue;
        bool white = pb_is_white(c), joins = pb_is_word(c);
        if (!joins && is_article(word, (size_t)(p - word))) { // it becomes a space
            p = word;
            if (p > *out && p[-1] != ' ')
                *p++ = ' ';
        }
        if (!white)
            p = pb_put_char(p, c);
        else if (p > *out && p[-1] != ' ')
            *p++ = ' ';
        if (!joins)
            word = p;
    }
    if (p > *out && p[-1] == ' ')
        p--;
    *p = 0;
    return PB_OK;
}

typedef struct words {
    char *text; // with its spaces replaced by zeros
    const char **v;
    size_t n;
} words;

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static pb_err words_make(words *w, const char *text)
{
    PB_TRY(pb_squad_normalise(&w->text, text));
    w->n = 0;
    w->v = malloc((strlen(w->text) / 2 + 1) * sizeof *w->v);
    if (!w->v) {
        free(w->text);
        return pb_fail(PB_MEMORY, NULL, "no memory for the words of an answer");
    }
    for (char *save, *p = strtok_r(w->text, " ", &save); p; p = strtok_r(NULL, " ", &save))
        w->v[w->n++] = p;
    qsort(w->v, w->n, sizeof *w->v, by_text);
    return PB_OK;
}

static void words_free(words *w)
{
    free(w->text);
    free(w->v);
}

static size_t common(const words *a, const words *b)
{
    size_t n = 0;
    for (size_t i = 0, j = 0; i < a->n && j < b->n;) {
        int c = strcmp(a->v[i], b->v[j]);
        n += c == 0;
        i += c <= 0;
        j += c >= 0;
    }
    return n;
}

static double f1(const words *a, const words *b)
{
    size_t c = common(a, b);
    double precision = (double)c / (double)a->n, recall = (double)c / (double)b->n;
    return c ? 2 * precision * recall / (precision + recall) : 0;
}

pb_err pb_squad_f1(double *items, const pb_outputs *o)
{
    pb_err err = PB_OK;
    for (size_t i = 0; i < o->n && !err; i++) {
        words h, r;
        items[i] = 0;
        PB_TRY(words_make(&h, o->hyp[i]));
        for (size_t j = 0; j < o->n_refs[i] && !err; j++) {
            err = words_make(&r, o->refs[i][j]);
            if (err)
                break;
            double x = f1(&h, &r);
            items[i] = x > items[i] ? x : items[i];
            words_free(&r);
        }
        words_free(&h);
    }
    return err;
}

pb_err pb_squad_em(double *items, const pb_outputs *o)
{
    pb_err err = PB_OK;
    for (size_t i = 0; i < o->n && !err; i++) {
        char *h, *r;
        items[i] = 0;
        PB_TRY(pb_squad_normalise(&h, o->hyp[i]));
        for (size_t j = 0; j < o->n_refs[i] && items[i] == 0 && !err; j++) {
            err = pb_squad_normalise(&r, o->refs[i][j]);
            if (err)
                break;
            items[i] = !strcmp(h, r);
            free(r);
        }
        free(h);
    }
    return err;
}
