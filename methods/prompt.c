// Prompt tuning: n trained embeddings in front of the sequence's tokens, which go through all
// layers like those of text. They take the positions 0 .. n-1, and the sequence's own start at n.
//
// Initial values: the embeddings of a text, or random numbers. Rows are those of the embedding
// table: where a backbone scales what it embeds (Gemma), it scales them too, as when Hugging Face's
// PEFT puts them in front of inputs_embeds.
//
// Source: Lester et al. 2021, arXiv 2104.08691; files as in Hugging Face PEFT: one matrix
// `prompt_embeddings` (n,C).
#include "methods/method.h"

#include <string.h>

enum prompt_init { INIT_RANDOM, INIT_TEXT };

struct prompt {
    long length;
    int init;
    double std;
};

static const char *const inits[] = {"random", "text", NULL};

static const pb_option options[] = {{"length", PB_OPT_INT, offsetof(struct prompt, length), "16", 1,
                                     4096, NULL, "virtual tokens in front of the sequence", true},
                                    {"init", PB_OPT_ENUM, offsetof(struct prompt, init), "text", 0,
                                     0, inits, "initial rows: random, or embeddings of a text",
                                     true},
                                    {"std", PB_OPT_REAL, offsetof(struct prompt, std), "1", 0, 10,
                                     NULL, "standard deviation of random rows", true},
                                    {0}};

static const double lr_grid[] = {1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 0};

enum { ROWS };

static pb_err prepare(void *options_, const pb_config *config)
{
    const struct prompt *o = options_;
    if ((size_t)o->length >= config->context)
        return pb_fail(PB_USAGE, "use fewer virtual tokens",
                       "%ld virtual tokens leave no room in a context of %zu", o->length,
                       config->context);
    return PB_OK;
}

static pb_err layout(pb_layout *l, const void *options_, const pb_config *config)
{
    const struct prompt *o = options_;
    pb_layout_add(l, PB_GLOBAL, ROWS, "prompt_embeddings", (size_t)o->length, config->width,
                  o->init == INIT_RANDOM ? PB_INIT_NORMAL : PB_INIT_HOOK, o->std, 0);
    return PB_OK;
}

static size_t text_len(const void *options_)
{
    const struct prompt *o = options_;
    return o->init == INIT_TEXT ? (size_t)o->length : 0;
}

static pb_err init(const pb_params *p, const pb_init_args *a)
{
    const struct prompt *o = p->options;
    size_t n = 0, C = 0;
    real *rows = pb_values(p, 0, ROWS, &n, &C);
    if (o->init != INIT_TEXT)
        return PB_OK;
    if (!a->text_x)
        return pb_fail(PB_USAGE, "use init=random", "init=text needs a text of %zu tokens", n);
    for (size_t i = 0; i < n; i++)
        memcpy(rows + i * C, a->text_x + i % a->n_text * C, C * sizeof *rows);
    return PB_OK;
}

static size_t prefix_len(const void *options_)
{
    return (size_t)((const struct prompt *)options_)->length;
}

static pb_mat *virtual_tokens(pb_ctx *c, const void *options_)
{
    (void)options_;
    return pb_own(c, ROWS);
}

static size_t width_of(const pb_config *c)
{
    return c->width;
}

static size_t layers_of(const pb_config *c)
{
    return c->layers;
}

static size_t heads_of(const pb_config *c)
{
    return c->heads;
}

static const pb_peft_key keys[] = {{"num_virtual_tokens", .option = "length", .required = true},
                                   {"token_dim", .follows = width_of},
                                   {"num_layers", .follows = layers_of},
                                   {"num_attention_heads", .follows = heads_of},
                                   {"num_transformer_submodules", .only = "[1]"},
                                   {"prompt_tuning_init", .idle = true},
                                   {"prompt_tuning_init_text", .idle = true},
                                   {"tokenizer_name_or_path", .idle = true},
                                   {"tokenizer_kwargs", .idle = true},
                                   {0}};

PB_METHOD(prompt) = {
    .name = "prompt",
    .doc = "trained embeddings in front of the sequence",
    .citation = "Lester et al. 2021, arXiv 2104.08691",
    .formula = "the layers read [P; embed(tokens)];  P (n,C)",
    .bibtex = PB_ARXIV("lester2021prompt",
                       "The Power of Scale for Parameter-Efficient Prompt Tuning",
                       "Lester, Brian and Al-Rfou, Rami and Constant, Noah", "2021", "2104.08691"),
    .peft_type = "PROMPT_TUNING",
    .peft_keys = keys,
    .options = options,
    .options_size = sizeof(struct prompt),
    .knob = "length",
    .lr_grid = lr_grid,
    .lr = 1e-2,
    .prepare = prepare,
    .layout = layout,
    .text_len = text_len,
    .init = init,
    .prefix_len = prefix_len,
    .virtual_tokens = virtual_tokens,
};
