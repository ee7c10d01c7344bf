// Prefix tuning: n trained key and value rows per layer at the positions 0 .. n-1, seen by every
// token (whose window reaches them). Keys are used as they are (no rotation); the sequence's own
// positions start at n.
//
// Initial values: zeros, small random numbers, or the keys and values of a text. While training,
// the rows can be re-parameterised by an MLP per layer over an embedding (n,E) that all layers
// share, tanh(e W1 + b1) W2 + b2, which is folded away when saved and served.
//
// Source: Li & Liang 2021, arXiv 2101.00190; grouped-query shapes as in Hugging Face PEFT: one
// matrix `prompt_embeddings` (n, L*2*KVH*D), slots 2l = K and 2l+1 = V of layer l.
#include "methods/method.h"

#include <math.h>
#include <string.h>

enum prefix_init { INIT_ZERO, INIT_RANDOM, INIT_TEXT };

struct prefix {
    long length, hidden;
    int init;
    double std;
};

static const char *const inits[] = {"zero", "random", "text", NULL};

static const pb_option options[] = {
    {"length", PB_OPT_INT, offsetof(struct prefix, length), "16", 1, 4096, NULL,
     "positions in front of the sequence", true},
    {"init", PB_OPT_ENUM, offsetof(struct prefix, init), "text", 0, 0, inits,
     "initial rows: zero, random, or keys and values of a text", true},
    {"std", PB_OPT_REAL, offsetof(struct prefix, std), "0.02", 0, 10, NULL,
     "standard deviation of random rows", true},
    {"mlp", PB_OPT_INT, offsetof(struct prefix, hidden), "0", 0, 65536, NULL,
     "hidden width of the training-time MLP; 0: rows are trained directly", false},
    {0}};

static const double lr_grid[] = {1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 0};

enum { ROWS, EMBEDDING, W1, B1, W2, B2 };

static pb_err prepare(void *options_, const pb_config *config)
{
    const struct prefix *o = options_;
    if ((size_t)o->length >= config->context)
        return pb_fail(PB_USAGE, "use a shorter prefix",
                       "a prefix of %ld positions leaves no room in a context of %zu", o->length,
                       config->context);
    return PB_OK;
}

static pb_err layout(pb_layout *l, const void *options_, const pb_config *config)
{
    const struct prefix *o = options_;
    size_t n = (size_t)o->length, H = (size_t)o->hidden, kv = pb_kv_width(config);
    size_t E = config->width;
    if (!H) {
        pb_layout_add(l, PB_GLOBAL, ROWS, "prompt_embeddings", n, config->layers * 2 * kv,
                      o->init == INIT_ZERO     ? PB_INIT_ZERO
                      : o->init == INIT_RANDOM ? PB_INIT_NORMAL
                                               : PB_INIT_HOOK,
                      o->std, 0);
        return PB_OK;
    }
    pb_layout_add(l, PB_GLOBAL, EMBEDDING, "prefix.embedding", n, E, PB_INIT_NORMAL, 1, 0);
    pb_layout_add(l, PB_GLOBAL, W1, "prefix.W1", H, E, PB_INIT_UNIFORM, 1 / sqrt((double)E), 0);
    pb_layout_add(l, PB_GLOBAL, B1, "prefix.b1", 1, H, PB_INIT_ZERO, 0, PB_NO_DECAY);
    for (int i = 0; i < (int)config->layers; i++) {
        pb_layout_add(l, i, W2, "prefix.W2", H, 2 * kv,
                      o->init == INIT_RANDOM ? PB_INIT_NORMAL : PB_INIT_ZERO,
                      o->std / sqrt((double)H), PB_TRANSPOSED);
        pb_layout_add(l, i, B2, "prefix.b2", 1, 2 * kv, PB_INIT_ZERO, 0, PB_NO_DECAY);
    }
    return PB_OK;
}

static size_t text_len(const void *options_)
{
    const struct prefix *o = options_;
    return o->init == INIT_TEXT && !o->hidden ? (size_t)o->length : 0;
}

static pb_err init(const pb_params *p, const pb_init_args *a)
{
    const struct prefix *o = p->options;
    if (o->init != INIT_TEXT)
        return PB_OK;
    size_t n = (size_t)o->length, kv = pb_kv_width(a->config), L = a->config->layers;
    if (o->hidden)
        return pb_fail(PB_USAGE, "use init=zero or init=random with mlp",
                       "a prefix made by an MLP cannot start from a text");
    if (!a->text_k)
        return pb_fail(PB_USAGE, "use init=zero or init=random",
                       "init=text needs a text of at least %zu tokens", n);
    real *rows = pb_values(p, 0, ROWS, NULL, NULL);
    for (size_t l = 0; l < L; l++)
        for (size_t i = 0; i < n; i++) {
            size_t from = i % a->n_text;
            real *to = rows + i * L * 2 * kv + 2 * l * kv;
            memcpy(to, a->text_k + (l * a->n_text + from) * kv, kv * sizeof *to);
            memcpy(to + kv, a->text_v + (l * a->n_text + from) * kv, kv * sizeof *to);
        }
    return PB_OK;
}

static size_t prefix_len(const void *options_)
{
    return (size_t)((const struct prefix *)options_)->length;
}

static void prefix(pb_ctx *c, const void *options_, pb_mat **k, pb_mat **v)
{
    const struct prefix *o = options_;
    pb_mat *rows = pb_own(c, ROWS);
    size_t first = 0, kv;
    if (rows) {
        kv = rows->cols / (2 * c->tenant->layout->layers);
        first = 2 * c->layer * kv;
    } else {
        pb_mat *h = pb_down(c, pb_own(c, EMBEDDING), W1);
        pb_shift(c, h, B1);
        h = pb_activate(c, h, PB_TANH);
        rows = pb_own_zeros(c, (size_t)o->length, pb_most_cols(c, W2));
        pb_up(c, rows, h, W2);
        pb_shift(c, rows, B2);
        kv = rows->cols / 2;
    }
    *k = pb_cols(c, rows, first, kv);
    *v = pb_cols(c, rows, first + kv, kv);
}

static bool fold(void *to)
{
    struct prefix *o = to;
    bool folded = o->hidden != 0;
    o->hidden = 0;
    return folded;
}

static void fold_values(const pb_params *to, const pb_params *from, const pb_config *config)
{
    size_t n = 0, E = 0, H = 0, kv2 = 0, L = config->layers;
    const real *e = pb_values(from, 0, EMBEDDING, &n, &E);
    const real *w1 = pb_values(from, 0, W1, &H, NULL), *b1 = pb_values(from, 0, B1, NULL, NULL);
    real *rows = pb_values(to, 0, ROWS, NULL, NULL);
    for (size_t i = 0; i < n; i++)
        for (size_t l = 0; l < L; l++) {
            const real *w2 = pb_values(from, l, W2, NULL, &kv2);
            const real *b2 = pb_values(from, l, B2, NULL, NULL);
            real *out = rows + (i * L + l) * kv2;
            memcpy(out, b2, kv2 * sizeof *out);
            for (size_t h = 0; h < H; h++) {
                double t = (double)b1[h];
                for (size_t j = 0; j < E; j++)
                    t += (double)e[i * E + j] * (double)w1[h * E + j];
                t = tanh(t);
                for (size_t k = 0; k < kv2; k++)
                    out[k] += (real)t * w2[h * kv2 + k];
            }
        }
}

static size_t layers_of(const pb_config *c)
{
    return c->layers;
}

static size_t heads_of(const pb_config *c)
{
    return c->kv_heads;
}

// A projection (prefix_projection) is folded when it is saved: the rows in the file are the result.
static const pb_peft_key keys[] = {{"num_virtual_tokens", .option = "length", .required = true},
                                   {"token_dim", .follows = pb_kv_width},
                                   {"num_layers", .follows = layers_of},
                                   {"num_attention_heads", .follows = heads_of},
                                   {"num_transformer_submodules", .only = "[1]"},
                                   {"prefix_projection", .only = "[false, true]"},
                                   {"encoder_hidden_size", .idle = true},
                                   {0}};

PB_METHOD(prefix) = {
    .name = "prefix",
    .doc = "trained keys and values in front of the sequence",
    .citation = "Li & Liang 2021, arXiv 2101.00190",
    .formula = "attention over [K_p; K], [V_p; V];  K_p, V_p (n, KVH D) in every layer",
    .bibtex = PB_ARXIV("li2021prefix",
                       "Prefix-Tuning: Optimizing Continuous Prompts for Generation",
                       "Li, Xiang Lisa and Liang, Percy", "2021", "2101.00190"),
    .peft_type = "PREFIX_TUNING",
    .peft_keys = keys,
    .options = options,
    .options_size = sizeof(struct prefix),
    .knob = "length",
    .lr_grid = lr_grid,
    .lr = 1e-2,
    .prepare = prepare,
    .layout = layout,
    .text_len = text_len,
    .init = init,
    .prefix_len = prefix_len,
    .prefix = prefix,
    .fold = fold,
    .fold_values = fold_values,
};
