// Pretraining: a byte-level backbone of its own for whoever has no checkpoint at hand.
#include "cli/common/pretraining.h"

#include "core/file.h"
#include "core/log.h"
#include "tasks/common/plaintext.h"
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

json_t *pb_pretraining_defaults(void)
{
    return json_pack(
        "{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:s, s:i, s:s, s:i, s:i, s:f, s:f, s:i}", "width",
        96, "ffn", 256, "layers", 4, "heads", 6, "kv_heads", 3, "head_dim", 16, "context", 256,
        "tied", 1, "text", "", "bytes", 3000000, "mark", "\n\n", "steps", 1000, "batch", 16, "lr",
        3e-3, "warmup", 0.03, "seed", 1);
}

static pb_err size_of(const json_t *j, const char *key, size_t *out, int64_t max)
{
    int64_t v;
    PB_TRY(pb_json_int(j, key, &v, 1, max));
    *out = (size_t)v;
    return PB_OK;
}

typedef struct recipe {
    pb_config g;
    const char *text, *mark;
    size_t bytes, steps, batch, seed;
    double lr, warmup;
} recipe;

static pb_err read_recipe(recipe *r, const json_t *j)
{
    *r = (recipe){.g = {.vocab = 258,
                        .norm_eps = 1e-5,
                        .rope_theta = 10000,
                        .bos = 256,
                        .eos = {257},
                        .n_eos = 1,
                        .tokenizer = "bytes"}};
    PB_TRY(size_of(j, "width", &r->g.width, 65536));
    PB_TRY(size_of(j, "ffn", &r->g.ffn, 262144));
    PB_TRY(size_of(j, "layers", &r->g.layers, 1024));
    PB_TRY(size_of(j, "heads", &r->g.heads, 1024));
    PB_TRY(size_of(j, "kv_heads", &r->g.kv_heads, 1024));
    PB_TRY(size_of(j, "head_dim", &r->g.head_dim, 1024));
    PB_TRY(size_of(j, "context", &r->g.context, 1 << 20));
    PB_TRY(pb_json_bool(j, "tied", &r->g.tied));
    PB_TRY(pb_json_str(j, "text", &r->text));
    PB_TRY(pb_json_str(j, "mark", &r->mark));
    PB_TRY(size_of(j, "bytes", &r->bytes, (int64_t)1 << 32));
    PB_TRY(size_of(j, "steps", &r->steps, 100000000));
    PB_TRY(size_of(j, "batch", &r->batch, 4096));
    PB_TRY(size_of(j, "seed", &r->seed, INT64_MAX));
    PB_TRY(pb_json_real(j, "lr", &r->lr, 0, 10));
    PB_TRY(pb_json_real(j, "warmup", &r->warmup, 0, 1));
    if (!*r->mark)
        return pb_fail(PB_INPUT, "e.g. a blank line", "\"mark\" between documents is empty");
    return pb_config_check(&r->g);
}

// The text in two parts: the last 3 % are for validation, and begin at a document's start.
static pb_err load_text(const recipe *r, const pb_tokenizer *t, pb_seqs *train, pb_seqs *valid)
{
    pb_err err = PB_OK;
    pb_file f = {0};
    char *made = NULL;
    const char *text;
    size_t size;
    if (*r->text) {
        PB_GO(pb_file_map(&f, r->text));
        text = (const char *)f.data;
        size = f.size;
    } else {
        PB_GO(pb_plaintext(r->seed, r->bytes, &made));
        text = made;
        size = strlen(made);
    }
    size_t cut = size - size / 33;
    const char *at = size ? memmem(text + cut, size - cut, r->mark, strlen(r->mark)) : NULL;
    cut = at ? (size_t)(at - text) + strlen(r->mark) : size;
    if (cut >= size) {
        err = pb_fail(PB_INPUT, "give more text", "%zu bytes are too few to hold some out", size);
        goto done;
    }
    PB_GO(pb_seqs_from_text(train, t, text, cut, r->mark, r->g.context));
    PB_GO(pb_seqs_from_text(valid, t, text + cut, size - cut, r->mark, r->g.context));
done:
    pb_file_unmap(&f);
    free(made);
    return err;
}

pb_err pb_pretrain(const json_t *given, const char *folder)
{
    pb_err err = PB_OK;
    pb_model *m = NULL;
    pb_seqs train = {0}, valid = {0};
    char file[4096], checkpoint[4096];
    recipe r;
    static const char *const known[] = {
        "width", "ffn",  "layers", "heads", "kv_heads", "head_dim", "context", "tied", "text",
        "bytes", "mark", "steps",  "batch", "lr",       "warmup",   "seed",    NULL};
    json_t *j = pb_pretraining_defaults(), *old = NULL;
    PB_GO(pb_json_only(given, known, "a pretraining recipe"));
    json_object_update(j, (json_t *)given);
    PB_GO(read_recipe(&r, j));
    PB_GO(pb_path(file, sizeof file, "%s/recipe.json", folder));
    if (pb_exists(file)) {
        PB_GO(pb_json_load(&old, file));
        json_object_del(old, "result");
        if (json_equal(old, j))
            goto done;
        err = pb_fail(PB_INPUT, "remove it, or choose another folder",
                      "%s holds a backbone of another recipe", folder);
        goto done;
    }
    PB_GO(pb_make_dirs(folder));
    PB_GO(pb_path(checkpoint, sizeof checkpoint, "%s/pretrain.checkpoint", folder));
    pb_model_args args = {.trainable = true};
    PB_GO(pb_model_random(&m, &r.g, r.seed, &args));
    PB_GO(load_text(&r, m->tokenizer, &train, &valid));
    pb_train_options o;
    pb_train_defaults(&o);
    o.steps = r.steps;
    o.batch = r.batch;
    o.lr = r.lr;
    o.floor = 0.05;
    o.schedule = PB_COSINE;
    o.warmup = (size_t)(r.warmup * (double)r.steps);
    o.adamw.beta2 = 0.95;
    o.adamw.weight_decay = 0.05;
    o.eval_every = r.steps / 4;
    o.patience = 0;
    o.seed = r.seed;
    o.checkpoint = checkpoint;
    o.checkpoint_every = 500;
    pb_train_hooks h = {.label = "pretraining the backbone"};
    pb_train_result res;
    PB_GO(pb_train(m, NULL, &train, &valid, &o, &h, &res));
    PB_GO(pb_model_save(m, folder, false));
    double bits = res.best_valid / log(2); // a token is a byte, and the end of a document
    json_object_set_new(j, "result",
                        json_pack("{s:f, s:f, s:I, s:f, s:I}", "valid_nats_per_token",
                                  res.best_valid, "valid_bits_per_token", bits, "tokens",
                                  (json_int_t)res.tokens, "seconds", res.seconds, "parameters",
                                  (json_int_t)pb_config_params(&r.g)));
    PB_GO(pb_json_save(j, file));
    pb_info("backbone: %zu parameters, %.3f nats (%.3f bits) per byte on held-out text, in %s",
            pb_config_params(&r.g), res.best_valid, bits, folder);
done:
    json_decref(j);
    json_decref(old);
    pb_seqs_free(&train);
    pb_seqs_free(&valid);
    pb_model_close(m);
    return err;
}
