// Corpus BLEU-4 (Papineni et al. 2002) with the conventions of NIST's mteval-v13a:
//
//   BLEU = min(1, exp(1 - r/c)) * exp(1/4 sum_n log p_n),   p_n = matches_n / ngrams_n
//
// over sums of all items; c is the hypotheses' length in tokens, r that of the closest references.
#include "tasks/metrics/grams.h"
#include "tasks/metrics/metrics.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

// Printable ASCII signs that stand alone wherever they are. Apostrophe, comma, full stop and hyphen
// are not among them.
static bool is_sign(char c)
{
    return (c >= ' ' && c <= '&') || (c >= '(' && c <= '+') || c == '/' || (c >= ':' && c <= '@') ||
           (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

static bool is_stop(char c)
{
    return c == '.' || c == ',';
}

// The tokenisation is a row of substitutions, each over the whole text, each going on behind what
// it replaced; one function below is one of them. Each reads `s` and writes `out`.

static void replace(char *s, const char *from, const char *to) // `to` is not longer
{
    size_t n = strlen(from);
    char *out = s;
    while (*s) {
        bool hit = !strncmp(s, from, n);
        if (hit)
            out = mempcpy(out, to, strlen(to));
        else
            *out++ = *s;
        s += hit ? n : 1;
    }
    *out = 0;
}

// Tags, hyphenation at line ends, line ends, entities; a space at either end; lower case.
static void clean(char *out, const char *s, bool case_sensitive)
{
    static const char *const swaps[][2] = {{"<skipped>", ""}, {"-\n", ""},    {"\n", " "},
                                           {"&quot;", "\""},  {"&amp;", "&"}, {"&lt;", "<"},
                                           {"&gt;", ">"}};
    out[0] = ' ';
    strcpy(out + 1, s);
    for (size_t i = 0; i < sizeof swaps / sizeof *swaps; i++)
        replace(out + 1, swaps[i][0], swaps[i][1]);
    strcat(out, " ");
    for (; !case_sensitive && *out; out++)
        if (*out >= 'A' && *out <= 'Z')
            *out = (char)(*out + 'a' - 'A');
}

static void split_signs(char *out, const char *s)
{
    for (; *s; s++) {
        if (is_sign(*s)) {
            *out++ = ' ';
            *out++ = *s;
            *out++ = ' ';
        } else {
            *out++ = *s;
        }
    }
    *out = 0;
}

// A stop is parted from both sides unless a digit comes before it.
static void split_stop_after_nondigit(char *out, const char *s)
{
    while (*s) {
        *out++ = *s;
        if (!is_digit(*s) && is_stop(s[1])) {
            *out++ = ' ';
            *out++ = *++s;
            *out++ = ' ';
        }
        s++;
    }
    *out = 0;
}

// A stop is parted from both sides unless a digit comes behind it.
static void split_stop_before_nondigit(char *out, const char *s)
{
    while (*s) {
        if (is_stop(*s) && s[1] && !is_digit(s[1])) {
            *out++ = ' ';
            *out++ = *s++;
            *out++ = ' ';
        }
        *out++ = *s++;
    }
    *out = 0;
}

static void split_hyphen_after_digit(char *out, const char *s)
{
    while (*s) {
        *out++ = *s;
        if (is_digit(*s) && s[1] == '-') {
            *out++ = ' ';
            *out++ = *++s;
            *out++ = ' ';
        }
        s++;
    }
    *out = 0;
}

static void squeeze_spaces(char *out, const char *s)
{
    char *start = out;
    for (; *s; s++) {
        if (!is_space(*s))
            *out++ = *s;
        else if (out > start && out[-1] != ' ')
            *out++ = ' ';
    }
    if (out > start && out[-1] == ' ')
        out--;
    *out = 0;
}

pb_err pb_bleu_tokens(char **out, const char *text, bool case_sensitive)
{
    // A sign grows to 3 bytes; a stop or a hyphen, by two substitutions, to 5 at most.
    size_t n = strlen(text), size = 5 * n + 16;
    char *a = *out = n < SIZE_MAX / 8 ? malloc(size) : NULL, *b = a ? malloc(size) : NULL;
    if (!b) {
        free(a);
        *out = NULL;
        return pb_fail(PB_MEMORY, NULL, "no memory to tokenise %zu bytes", n);
    }
    clean(b, text, case_sensitive);
    split_signs(a, b);
    split_stop_after_nondigit(b, a);
    split_stop_before_nondigit(a, b);
    split_hyphen_after_digit(b, a);
    squeeze_spaces(a, b);
    free(b);
    return PB_OK;
}

// best[i], for the i-th distinct n-gram of a, becomes the greater of itself and the n-gram's count
// in b, but at most its count in a.
static void count_matches(size_t *best, const pb_gram *a, size_t na, const pb_gram *b, size_t nb)
{
    for (size_t i = 0, j = 0, k = 0, next; i < na; i = next, k++) {
        for (next = i + 1; next < na && !pb_gram_order(&a[i], &a[next]);)
            next++;
        while (j < nb && pb_gram_order(&b[j], &a[i]) < 0)
            j++;
        size_t first = j;
        while (j < nb && !pb_gram_order(&b[j], &a[i]))
            j++;
        size_t count = j - first < next - i ? j - first : next - i;
        best[k] = best[k] > count ? best[k] : count;
    }
}

pb_err pb_bleu_sentence(pb_sentence *s, const char *text, bool case_sensitive)
{
    char *tokens;
    *s = (pb_sentence){0};
    PB_TRY(pb_bleu_tokens(&tokens, text, case_sensitive));
    return pb_sentence_make(s, tokens);
}

static size_t distance(size_t a, size_t b)
{
    return a > b ? a - b : b - a;
}

static pb_err item_stats(double stats[PB_BLEU_STATS], const char *hyp, const char *const *refs,
                         size_t n_refs, bool case_sensitive)
{
    pb_err err = PB_OK;
    pb_sentence h = {0};
    pb_sentence *r = calloc(n_refs, sizeof *r);
    pb_gram *a = NULL, *b = NULL;
    size_t *best = NULL, most = 1, closest = 0;
    if (!r)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for %zu references", n_refs));
    PB_GO(pb_bleu_sentence(&h, hyp, case_sensitive));
    for (size_t j = 0; j < n_refs; j++) {
        PB_GO(pb_bleu_sentence(&r[j], refs[j], case_sensitive));
        most = r[j].n > most ? r[j].n : most;
        size_t d = distance(r[j].n, h.n), d0 = distance(closest, h.n);
        if (j == 0 || d < d0 || (d == d0 && r[j].n < closest))
            closest = r[j].n;
    }
    a = malloc((h.n + 1) * sizeof *a);
    best = malloc((h.n + 1) * sizeof *best);
    b = malloc(most * sizeof *b);
    if (!a || !b || !best)
        PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for the n-grams of %zu tokens", h.n + most));
    for (size_t order = 1; order <= PB_BLEU_ORDER; order++) {
        size_t na = pb_grams(a, &h, order), matches = 0;
        memset(best, 0, (h.n + 1) * sizeof *best);
        for (size_t j = 0; j < n_refs; j++)
            count_matches(best, a, na, b, pb_grams(b, &r[j], order));
        for (size_t k = 0; k < na; k++)
            matches += best[k];
        stats[order - 1] = (double)matches;
        stats[PB_BLEU_ORDER + order - 1] = (double)na;
    }
    stats[8] = (double)h.n;
    stats[9] = (double)closest;
done:
    for (size_t j = 0; r && j < n_refs; j++)
        pb_sentence_free(&r[j]);
    pb_sentence_free(&h);
    free(r);
    free(a);
    free(b);
    free(best);
    return err;
}

double pb_bleu_score(const double sum[PB_BLEU_STATS], const pb_bleu_opts *opts)
{
    double c = sum[8], r = sum[9], log_p = 0, halves = 1;
    if (!(c > 0))
        return 0;
    for (size_t i = 0; i < PB_BLEU_ORDER; i++) {
        double match = sum[i], total = sum[PB_BLEU_ORDER + i];
        if (!(match > 0)) {
            if (!opts || !opts->smooth)
                return 0;
            // mteval leaves out orders for which no hypothesis is long enough.
            if (!(total > 0))
                continue;
            match = halves /= 2;
        }
        log_p += log(match / total);
    }
    return (c < r ? exp(1 - r / c) : 1) * exp(log_p / PB_BLEU_ORDER);
}

pb_err pb_bleu(double *out, double *stats, const char *const *hyp, const char *const *const *refs,
               const size_t *n_refs, size_t n, const pb_bleu_opts *opts)
{
    if (!n)
        return pb_fail(PB_INPUT, NULL, "BLEU of no items");
    double sum[PB_BLEU_STATS] = {0};
    for (size_t i = 0; i < n; i++) {
        double own[PB_BLEU_STATS];
        if (!n_refs[i])
            return pb_fail(PB_INPUT, NULL, "item %zu has no reference", i);
        PB_TRY(item_stats(own, hyp[i], refs[i], n_refs[i], opts && opts->case_sensitive));
        for (size_t k = 0; k < PB_BLEU_STATS; k++)
            sum[k] += own[k];
        if (stats)
            memcpy(stats + i * PB_BLEU_STATS, own, sizeof own);
    }
    *out = pb_bleu_score(sum, opts);
    return PB_OK;
}
