// Which metrics there are, and how results keep and show them.
#include "tasks/metrics/metrics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double loss(const double *sum, size_t n)
{
    (void)n;
    return sum[PB_TOKENS_SCORED] > 0 ? sum[PB_NATS] / sum[PB_TOKENS_SCORED] : 0;
}

static double perplexity(const double *sum, size_t n)
{
    return exp(loss(sum, n));
}

// The end token's loss counts (a text must also stop), its bytes do not (it has none).
static double bits_per_byte(const double *sum, size_t n)
{
    (void)n;
    return sum[PB_BYTES_SCORED] > 0 ? sum[PB_NATS] / sum[PB_BYTES_SCORED] / log(2) : 0;
}

static double token_accuracy(const double *sum, size_t n)
{
    (void)n;
    return sum[PB_TOKENS_SCORED] > 0 ? sum[PB_HITS] / sum[PB_TOKENS_SCORED] : 0;
}

static double bleu(const double *sum, size_t n)
{
    (void)n;
    return pb_bleu_score(sum, NULL);
}

static pb_err bleu_items(double *stats, const pb_outputs *o)
{
    double out;
    return pb_bleu(&out, stats, o->hyp, o->refs, o->n_refs, o->n, NULL);
}

static pb_err exact_items(double *stats, const pb_outputs *o)
{
    double out;
    return pb_exact_match(&out, stats, o->hyp, o->refs, o->n_refs, o->n);
}

#define LIKELIHOOD .family = PB_LIKELIHOOD, .array = "likelihood", .width = PB_LIKELIHOOD_STATS
// The mean of one number between 0 and 1 per item, shown as a percentage.
#define PERCENT(metric, of)                                                                        \
    .name = metric, .unit = "%", .family = of, .scale = 100, .digits = 2, .array = metric,         \
    .width = 1

const pb_measure pb_measures[] = {
    {.name = "loss",
     .unit = "nat/token",
     LIKELIHOOD,
     .lower_is_better = true,
     .scale = 1,
     .digits = 4,
     .score = loss},
    {.name = "perplexity",
     .unit = "",
     LIKELIHOOD,
     .lower_is_better = true,
     .scale = 1,
     .digits = 3,
     .score = perplexity},
    {.name = "bits_per_byte",
     .unit = "bit/byte",
     LIKELIHOOD,
     .lower_is_better = true,
     .scale = 1,
     .digits = 4,
     .score = bits_per_byte},
    {.name = "token_accuracy",
     .unit = "%",
     LIKELIHOOD,
     .scale = 100,
     .digits = 2,
     .score = token_accuracy},
    {PERCENT("accuracy", PB_RANKING)},
    {PERCENT("accuracy_norm", PB_RANKING)},
    {PERCENT("exact_match", PB_ANY_TEXT), .items = exact_items},
    {.name = "bleu",
     .unit = "",
     .family = PB_PROSE,
     .scale = 100,
     .digits = 2,
     .array = "bleu_stats",
     .width = PB_BLEU_STATS,
     .score = bleu,
     .items = bleu_items},
    {.name = "nist",
     .unit = "",
     .family = PB_PROSE,
     .scale = 1,
     .digits = 3,
     .array = "nist_stats",
     .width = PB_NIST_STATS,
     .score = pb_nist_score,
     .items = pb_nist},
    {.name = "rouge_l",
     .unit = "",
     .family = PB_PROSE,
     .scale = 100,
     .digits = 2,
     .array = "rouge_l",
     .width = 1,
     .items = pb_rouge_l},
    {.name = "cider",
     .unit = "",
     .family = PB_PROSE,
     .scale = 1,
     .digits = 3,
     .array = "cider",
     .width = 1,
     .items = pb_cider},
    {PERCENT("squad_f1", PB_ANSWER), .items = pb_squad_f1},
    {PERCENT("squad_em", PB_ANSWER), .items = pb_squad_em},
    {PERCENT("wikisql_logical_form", PB_QUERY), .items = pb_wikisql_logical_form},
    {PERCENT("wikisql_execution", PB_QUERY), .items = pb_wikisql_execution,
     .applies = pb_wikisql_has_tables},
    {PERCENT("gsm8k_strict", PB_NUMBER), .items = pb_gsm8k_strict},
    {PERCENT("gsm8k_flexible", PB_NUMBER), .items = pb_gsm8k_flexible},
    {.name = "forgetting",
     .unit = "nat/token",
     .family = PB_GENERAL,
     .lower_is_better = true,
     .scale = 1,
     .digits = 4,
     .array = "forgetting",
     .width = 1},
    {.name = "general_loss",
     .unit = "nat/token",
     .family = PB_GENERAL,
     .lower_is_better = true,
     .scale = 1,
     .digits = 4,
     .array = "general_loss",
     .width = 1},
    {0}};

const pb_measure *pb_measure_find(const char *name)
{
    for (const pb_measure *m = pb_measures; m->name; m++)
        if (!strcmp(m->name, name))
            return m;
    return NULL;
}

static bool fits(const pb_measure *m, pb_task_kind kind)
{
    return m->family == PB_LIKELIHOOD ||
           (m->family != PB_GENERAL && (m->family == PB_RANKING) == (kind == PB_RANK));
}

pb_err pb_measure_check(const char *name, pb_task_kind kind)
{
    const pb_measure *m = name ? pb_measure_find(name) : NULL;
    if (m && fits(m, kind))
        return PB_OK;
    char list[400] = "";
    size_t n = 0;
    for (int last = 0; last < 2; last++) // those of the kind first
        for (const pb_measure *k = pb_measures; k->name && n < sizeof list; k++)
            if (fits(k, kind) && (k->family == PB_LIKELIHOOD) == last)
                n += (size_t)snprintf(list + n, sizeof list - n, "%s%s",
                                      n ? ", " : "one of: ", k->name);
    return pb_fail(PB_INPUT, list, "the metric \"%s\" %s", name ? name : "",
                   !m ? "is not known" : "does not fit the kind of task");
}

size_t pb_measure_width(const char *array)
{
    for (const pb_measure *m = pb_measures; m->name; m++)
        if (!strcmp(m->array, array))
            return m->width;
    return 0;
}

double pb_measure_score(const pb_measure *m, const double *v, size_t n)
{
    double sum[PB_MOST_STATS] = {0};
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < m->width; k++)
            sum[k] += v[i * m->width + k];
    return !n ? NAN : m->score ? m->score(sum, n) : sum[0] / (double)n;
}

pb_err pb_measure_items(const pb_measure *m, double *stats, const pb_outputs *o)
{
    if (!o->n)
        return pb_fail(PB_INPUT, NULL, "%s of no items", m->name);
    for (size_t i = 0; i < o->n; i++)
        if (!o->n_refs[i])
            return pb_fail(PB_INPUT, NULL, "item %zu has no reference", i);
    return m->items(stats, o);
}
