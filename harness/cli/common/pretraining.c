// Pretraining: a backbone of its own for whoever has no checkpoint at hand.
#include "cli/common/pretraining.h"

#include "core/file.h"
#include "core/hash.h"
#include "core/log.h"
#include "model/source.h"
#include "tasks/common/plaintext.h"
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CURVE_EVERY = 10, SAVE_EVERY = 250, VALIDATIONS = 12, VALID_TOKENS = 100000 };

json_t *pb_pretraining_defaults(void)
{
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:s, s:[], s:s, s:s, s:n, s:i,"
                     " s:i, s:i, s:f, s:f, s:f, s:f, s:i, s:s, s:b}",
                     "from", "", "width", 96, "ffn", 256, "layers", 4, "heads", 6, "kv_heads", 3,
                     "head_dim", 16, "context", 256, "tied", 1, "tokenizer", "bytes", "text",
                     "valid", "", "mark", "\n\n", "bytes", "steps", 1000, "stop", 0, "batch_tokens",
                     4096, "lr", 3e-3, "floor", 0.05, "warmup", 0.03, "weight_decay", 0.05, "seed",
                     1, "dtype", "f32", "recompute", 0);
}

static pb_err size_of(const json_t *j, const char *key, size_t *out, int64_t min, int64_t max)
{
    int64_t v;
    PB_TRY(pb_json_int(j, key, &v, min, max));
    *out = (size_t)v;
    return PB_OK;
}

typedef struct recipe {
    pb_config g;
    const json_t *text;
    const char *from, *valid, *mark, *tokenizer, *dtype;
    size_t bytes, steps, stop, batch_tokens, seed;
    bool recompute;
    double lr, floor, warmup, weight_decay;
} recipe;

// Geometry and tokenizer are those of the model that training begins from; a recipe that says
// otherwise is contradictory.
static pb_err follow_model(recipe *r, const json_t *given, json_t *j)
{
    PB_TRY(pb_model_config(&r->g, r->from));
    const pb_config *g = &r->g;
    json_t *its = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:s}", "width",
                            (json_int_t)g->width, "ffn", (json_int_t)g->ffn, "layers",
                            (json_int_t)g->layers, "heads", (json_int_t)g->heads, "kv_heads",
                            (json_int_t)g->kv_heads, "head_dim", (json_int_t)g->head_dim, "context",
                            (json_int_t)g->context, "tied", g->tied, "tokenizer", g->tokenizer);
    const char *key;
    json_t *value;
    pb_err err = its ? PB_OK : pb_fail(PB_MEMORY, NULL, "no memory for a recipe");
    json_object_foreach(its, key, value)
    {
        const json_t *wanted = json_object_get(given, key);
        if (wanted && !json_equal(wanted, value) && !err)
            err = pb_fail(PB_INPUT, "a model brings its geometry and tokenizer",
                          "\"%s\" is given, but %s has another", key, r->from);
    }
    if (!err)
        json_object_update(j, its);
    json_decref(its);
    return err;
}

static pb_err read_recipe(recipe *r, const json_t *given, json_t *j)
{
    *r = (recipe){.g = {.norm_eps = 1e-5, .rope_theta = 10000, .bos = -1}};
    PB_TRY(pb_json_str(j, "from", &r->from));
    if (*r->from)
        PB_TRY(follow_model(r, given, j));
    PB_TRY(size_of(j, "width", &r->g.width, 1, 65536));
    PB_TRY(size_of(j, "ffn", &r->g.ffn, 1, 262144));
    PB_TRY(size_of(j, "layers", &r->g.layers, 1, 1024));
    PB_TRY(size_of(j, "heads", &r->g.heads, 1, 1024));
    PB_TRY(size_of(j, "kv_heads", &r->g.kv_heads, 1, 1024));
    PB_TRY(size_of(j, "head_dim", &r->g.head_dim, 1, 1024));
    PB_TRY(size_of(j, "context", &r->g.context, 1, 1 << 20));
    PB_TRY(pb_json_bool(j, "tied", &r->g.tied));
    PB_TRY(pb_json_bool(j, "recompute", &r->recompute));
    json_object_del(j, "recompute"); // it changes no result
    PB_TRY(pb_json_str(j, "tokenizer", &r->tokenizer));
    PB_TRY(pb_json_str(j, "valid", &r->valid));
    PB_TRY(pb_json_str(j, "mark", &r->mark));
    PB_TRY(pb_json_str(j, "dtype", &r->dtype));
    r->text = json_object_get(j, "text");
    if (!json_is_array(r->text))
        return pb_fail(PB_INPUT, NULL, "\"text\" must be a list of files");
    for (size_t i = 0; i < json_array_size(r->text); i++)
        if (!json_is_string(json_array_get(r->text, i)))
            return pb_fail(PB_INPUT, NULL, "\"text\" must be a list of files");
    if (json_is_null(json_object_get(j, "bytes")))
        json_object_set_new(j, "bytes", json_integer(json_array_size(r->text) ? 0 : 3000000));
    PB_TRY(size_of(j, "bytes", &r->bytes, 0, (int64_t)1 << 32));
    PB_TRY(size_of(j, "steps", &r->steps, 1, 100000000));
    PB_TRY(size_of(j, "stop", &r->stop, 0, (int64_t)r->steps));
    PB_TRY(size_of(j, "batch_tokens", &r->batch_tokens, 1, 1 << 24));
    PB_TRY(size_of(j, "seed", &r->seed, 1, INT64_MAX));
    PB_TRY(pb_json_real(j, "lr", &r->lr, 0, 10));
    PB_TRY(pb_json_real(j, "floor", &r->floor, 0, 1));
    PB_TRY(pb_json_real(j, "warmup", &r->warmup, 0, 1));
    PB_TRY(pb_json_real(j, "weight_decay", &r->weight_decay, 0, 1));
    if (!*r->mark)
        return pb_fail(PB_INPUT, "e.g. a blank line", "\"mark\" between documents is empty");
    if (strcmp(r->dtype, "f32") && strcmp(r->dtype, "bf16"))
        return pb_fail(PB_INPUT, "known are f32 and bf16", "\"dtype\" is \"%s\"", r->dtype);
    return PB_OK;
}

// ---------------------------------------------------------------- text

typedef struct texts {
    pb_tokenizer *tokenizer;
    pb_seqs train, valid;
    size_t train_bytes, valid_bytes;
    json_t *sources; // what was read: name, bytes, sha256
} texts;

static void texts_free(texts *t)
{
    pb_tokenizer_close(t->tokenizer);
    pb_seqs_free(&t->train);
    pb_seqs_free(&t->valid);
    json_decref(t->sources);
}

static void note_source(texts *t, const char *name, const void *data, size_t size)
{
    char sha[65];
    pb_sha256(sha, data, size);
    json_array_append_new(t->sources, json_pack("{s:s, s:I, s:s}", "name", name, "bytes",
                                                (json_int_t)size, "sha256", sha));
}

// One text; the last 3 % of it, from a document's start, are for validation when `split`.
static pb_err add_text(const recipe *r, texts *t, const char *name, const char *text, size_t size,
                       const char *mark, bool split)
{
    size_t cut = size, context = r->g.context;
    note_source(t, name, text, size);
    if (split) {
        cut = size - size / 33;
        const char *at = size ? memmem(text + cut, size - cut, mark, strlen(mark)) : NULL;
        cut = at ? (size_t)(at - text) + strlen(mark) : size;
        if (cut >= size)
            return pb_fail(PB_INPUT, "give a file for validation, or more documents",
                           "no document begins in the last 3 %% of %s (%zu bytes)", name, size);
        PB_TRY(pb_seqs_from_text(&t->valid, t->tokenizer, text + cut, size - cut, mark, context,
                                 &t->valid_bytes));
    }
    return pb_seqs_from_text(&t->train, t->tokenizer, text, cut, mark, context, &t->train_bytes);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static pb_err load_texts(const recipe *r, texts *t)
{
    pb_err err = PB_OK;
    pb_file f = {0};
    char *made = NULL;
    bool split = !*r->valid;
    for (size_t i = 0; i < json_array_size(r->text); i++) {
        const char *path = json_string_value(json_array_get(r->text, i));
        PB_GO(pb_file_map(&f, path));
        PB_GO(add_text(r, t, base_name(path), (const char *)f.data, f.size, r->mark, split));
        pb_file_unmap(&f);
        f = (pb_file){0};
    }
    if (r->bytes) {
        // With files of its own the validation text is theirs alone.
        PB_GO(pb_plaintext(r->seed, r->bytes, &made));
        PB_GO(add_text(r, t, "generated", made, strlen(made), "\n\n",
                       split && !json_array_size(r->text)));
    }
    if (!t->train.n) {
        err = pb_fail(PB_INPUT, "give --text or --bytes", "there is no text to train on");
        goto done;
    }
    if (!split) {
        PB_GO(pb_file_map(&f, r->valid));
        note_source(t, base_name(r->valid), f.data, f.size);
        PB_GO(pb_seqs_from_text(&t->valid, t->tokenizer, (const char *)f.data, f.size, r->mark,
                                r->g.context, &t->valid_bytes));
    }
done:
    pb_file_unmap(&f);
    free(made);
    return err;
}

// Opens the tokenizer and lets the geometry follow it.
static pb_err use_tokenizer(recipe *r, texts *t)
{
    if (*r->from) {
        pb_source s;
        PB_TRY(pb_source_open(&s, r->from, false));
        pb_err err = pb_source_tokenizer(&t->tokenizer, &s);
        if (!err && !t->tokenizer)
            err = pb_fail(PB_INPUT, NULL, "the model %s has no tokenizer", r->from);
        pb_source_close(&s);
        return err;
    }
    size_t any = strcmp(r->tokenizer, "bytes") ? 0 : 258;
    PB_TRY(pb_tokenizer_open(&t->tokenizer, r->tokenizer, any));
    r->g.vocab = pb_tokenizer_vocab(t->tokenizer);
    r->g.bos = pb_tokenizer_bos(t->tokenizer);
    int32_t eos = pb_tokenizer_eos(t->tokenizer);
    if (eos >= 0)
        r->g.eos[r->g.n_eos++] = eos;
    const char *name = base_name(r->tokenizer);
    if (strlen(name) >= sizeof r->g.tokenizer)
        return pb_fail(PB_INPUT, "rename it", "the tokenizer's name \"%s\" is too long", name);
    strcpy(r->g.tokenizer, name);
    return pb_config_check(&r->g);
}

static pb_err copy_file(const char *from_folder, const char *to_folder, const char *name)
{
    char path[4096];
    pb_file f;
    PB_TRY(pb_path(path, sizeof path, "%s/%s", from_folder, name));
    if (!pb_exists(path))
        return PB_OK;
    PB_TRY(pb_file_map(&f, path));
    pb_err err = pb_path(path, sizeof path, "%s/%s", to_folder, name);
    if (!err)
        err = pb_file_write(path, f.data, f.size);
    pb_file_unmap(&f);
    return err;
}

static pb_err copy_tokenizer(const recipe *r, pb_config *c, const char *folder)
{
    if (*r->from) {
        pb_source s;
        PB_TRY(pb_source_open(&s, r->from, false));
        pb_err err = pb_source_copy_tokenizer(&s, folder, c);
        pb_source_close(&s);
        return err;
    }
    if (!strcmp(r->tokenizer, "bytes"))
        return PB_OK;
    char from[4096];
    const char *name = base_name(r->tokenizer);
    size_t n = (size_t)(name - r->tokenizer);
    PB_TRY(pb_path(from, sizeof from, "%.*s", n ? (int)(n - 1) : 1, n ? r->tokenizer : "."));
    PB_TRY(copy_file(from, folder, name));
    return copy_file(from, folder, "tokenizer_config.json");
}

// ---------------------------------------------------------------- the loss curve

typedef struct curve {
    char path[4096];
    double sum;
    size_t n;
} curve;

static pb_err curve_line(curve *c, const char *line)
{
    FILE *f = fopen(c->path, "a");
    bool bad = !f || fputs(line, f) == EOF;
    if (f && fclose(f))
        bad = true;
    return bad ? pb_fail(PB_IO, NULL, "cannot write %s: %m", c->path) : PB_OK;
}

static pb_err curve_step(void *self, const pb_train_point *p)
{
    curve *c = self;
    char line[160];
    c->sum += p->loss;
    c->n++;
    if (p->step % CURVE_EVERY)
        return PB_OK;
    PB_TRY(pb_path(line, sizeof line, "%zu,%zu,%.4f,%.3g,%.3g,\n", p->step, p->tokens,
                   c->sum / (double)c->n, p->lr, p->grad_norm));
    c->sum = 0;
    c->n = 0;
    return curve_line(c, line);
}

static pb_err curve_valid(void *self, size_t step, double loss)
{
    char line[160];
    PB_TRY(pb_path(line, sizeof line, "%zu,,,,,%.4f\n", step, loss));
    return curve_line(self, line);
}

// Steps after the checkpoint will come again.
static pb_err curve_resumed(void *self, size_t step)
{
    curve *c = self;
    pb_file f;
    PB_TRY(pb_file_map(&f, c->path));
    const char *p = (const char *)f.data, *end = p + f.size;
    while (p < end) {
        const char *eol = memchr(p, '\n', (size_t)(end - p));
        if (!eol || strtoull(p, NULL, 10) > step)
            break;
        p = eol + 1;
    }
    pb_err err = pb_file_write(c->path, f.data, (size_t)(p - (const char *)f.data));
    pb_file_unmap(&f);
    return err;
}

// ---------------------------------------------------------------- the work

// The validation text's first sequences, enough of them to follow the training by, and not more
// tokens than are trained on from one validation to the next.
static pb_seqs sample(const pb_seqs *all, const recipe *r)
{
    pb_seqs s = *all;
    size_t tokens = 0, between = r->steps * r->batch_tokens / VALIDATIONS;
    size_t enough = between < VALID_TOKENS ? between : VALID_TOKENS;
    s.n = 0;
    while (s.n < all->n && tokens < enough)
        tokens += all->seq[s.n++].n;
    return s;
}

static json_t *result_of(const recipe *r, const texts *t, const pb_train_result *res, double nats)
{
    double per_byte = (double)t->valid.n_tokens / (double)t->valid_bytes;
    return json_pack("{s:f, s:f, s:f, s:I, s:I, s:I, s:f, s:I, s:O}", "valid_nats_per_token", nats,
                     "valid_bits_per_byte", nats * per_byte / log(2), "valid_bytes_per_token",
                     1 / per_byte, "valid_bytes", (json_int_t)t->valid_bytes, "text_tokens",
                     (json_int_t)t->train.n_tokens, "tokens", (json_int_t)res->tokens, "seconds",
                     res->seconds, "parameters", (json_int_t)pb_config_params(&r->g), "sources",
                     t->sources);
}

// What the model had behind it: the digest of its weights and, if it tells, its recipe.
static pb_err note_before(const recipe *r, json_t *j, json_t *result, const char *start)
{
    char path[4096];
    json_t *old = NULL;
    PB_TRY(pb_path(path, sizeof path, "%s/recipe.json", r->from));
    if (pb_exists(path))
        PB_TRY(pb_json_load(&old, path));
    const json_t *was = json_object_get(old, "result"),
                 *total = json_object_get(was, "total_tokens");
    json_int_t before = json_integer_value(total ? total : json_object_get(was, "tokens"));
    json_object_set_new(result, "from_sha256", json_string(start));
    json_object_set_new(
        result, "total_tokens",
        json_integer(before + json_integer_value(json_object_get(result, "tokens"))));
    if (old)
        json_object_set_new(j, "before", old);
    return PB_OK;
}

static pb_err train_and_save(const recipe *r, texts *t, json_t *j, const char *folder)
{
    pb_err err = PB_OK;
    pb_model *m = NULL;
    char checkpoint[4096], file[4096], start[65];
    curve c = {.n = 0};
    pb_seqs follow;
    json_t *result;
    PB_GO(pb_path(checkpoint, sizeof checkpoint, "%s/pretrain.checkpoint", folder));
    PB_GO(pb_path(c.path, sizeof c.path, "%s/loss.csv", folder));
    pb_model_args args = {.trainable = true};
    if (*r->from)
        PB_GO(pb_model_open(&m, r->from, &args));
    else
        PB_GO(pb_model_random(&m, &r->g, r->seed, &args));
    PB_GO(pb_path(start, sizeof start, "%s", m->sha256));
    PB_GO(load_texts(r, t));
    follow = sample(&t->valid, r);
    double work = (double)((r->stop ? r->stop : r->steps) * r->batch_tokens);
    pb_info("%zu parameters; text of %.1f MB, %.1f M tokens; %.1f M tokens to train on, %.2f "
            "epochs",
            pb_config_params(&r->g), (double)t->train_bytes / 1e6, (double)t->train.n_tokens / 1e6,
            work / 1e6, work / (double)t->train.n_tokens);
    if (!pb_exists(checkpoint)) {
        unlink(c.path);
        PB_GO(curve_line(&c, "step,tokens,loss,lr,grad_norm,valid\n"));
    }
    pb_train_options o;
    pb_train_defaults(&o);
    o.steps = r->steps;
    o.stop = r->stop;
    o.batch_tokens = r->batch_tokens;
    o.recompute = r->recompute;
    o.lr = r->lr;
    o.floor = r->floor;
    o.schedule = PB_COSINE;
    o.warmup = (size_t)(r->warmup * (double)r->steps);
    o.adamw.beta2 = 0.95;
    o.adamw.weight_decay = r->weight_decay;
    o.eval_every = r->steps / VALIDATIONS;
    o.patience = 0;
    o.seed = r->seed;
    o.checkpoint = checkpoint;
    o.checkpoint_every = SAVE_EVERY;
    pb_train_hooks h = {.self = &c,
                        .step = curve_step,
                        .valid = curve_valid,
                        .resumed = curve_resumed,
                        .label = "pretraining the backbone"};
    pb_train_result res;
    PB_GO(pb_train(m, NULL, &t->train, &follow, &o, &h, &res));
    double nats;
    PB_GO(pb_mean_loss(m, NULL, &t->valid, &nats));
    PB_GO(copy_tokenizer(r, &m->config, folder));
    PB_GO(pb_model_save(m, folder, !strcmp(r->dtype, "bf16")));
    result = result_of(r, t, &res, nats);
    json_object_set_new(j, "result", result);
    if (*r->from)
        PB_GO(note_before(r, j, result, start));
    PB_GO(pb_path(file, sizeof file, "%s/recipe.json", folder));
    PB_GO(pb_json_save(j, file));
    pb_info("backbone: %.3f nats per token, %.3f bits per byte on held-out text, in %s", nats,
            json_real_value(json_object_get(result, "valid_bits_per_byte")), folder);
done:
    pb_model_close(m);
    return err;
}

pb_err pb_pretrain(const json_t *given, const char *folder)
{
    pb_err err = PB_OK;
    char file[4096];
    recipe r;
    texts t = {.sources = json_array()};
    json_t *j = pb_pretraining_defaults(), *old = NULL;
    const char *known[32] = {NULL};
    size_t n = 0;
    const char *key;
    json_t *value;
    json_object_foreach(j, key, value) known[n++] = key;
    PB_GO(pb_json_only(given, known, "a pretraining recipe"));
    json_object_update(j, (json_t *)given);
    PB_GO(read_recipe(&r, given, j));
    PB_GO(pb_path(file, sizeof file, "%s/recipe.json", folder));
    if (pb_exists(file)) {
        PB_GO(pb_json_load(&old, file));
        json_object_del(old, "result");
        json_object_del(old, "before");
        if (!json_equal(old, j))
            err = pb_fail(PB_INPUT, "remove it, or choose another folder",
                          "%s holds a backbone of another recipe", folder);
        goto done;
    }
    PB_GO(use_tokenizer(&r, &t));
    PB_GO(pb_make_dirs(folder));
    PB_GO(train_and_save(&r, &t, j, folder));
done:
    json_decref(j);
    json_decref(old);
    texts_free(&t);
    return err;
}
