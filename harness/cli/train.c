// `pedrobench train`: one run from options on the command line.
#include "cli/common/common.h"
#include "cli/common/experiment.h"
#include "core/log.h"
#include "core/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
    json_t *config;
    const char *out, *data;
    bool quiet;
};

enum {
    KEY_SCHEDULE = 1000,
    KEY_WARMUP,
    KEY_DECAY,
    KEY_CLIP,
    KEY_ACCUM,
    KEY_RECOMPUTE,
    KEY_EVAL,
    KEY_PATIENCE,
    KEY_TASK_SEED,
    KEY_NTRAIN,
    KEY_NVALID,
    KEY_NTEST,
    KEY_GENERAL
};

static const struct argp_option opts[] = {
    {"model", 'm', "PATH", 0, "Model folder or file (default: " PB_EMBEDDED ")", 0},
    {"task", 't', "NAME", 0, "Task (`pedrobench tasks` lists them)", 0},
    {"method", 'x', "NAME", 0, "Method (`pedrobench methods` lists them)", 0},
    {"adapter", 'a', "DIR", 0, "Train this adapter further, instead of a new one of --method", 0},
    {"set", 's', "KEY=VALUE", 0, "Option of the method (may be repeated)", 0},
    {"budget", 'b', "N", 0, "Trainable parameters: a count, or a share such as 0.5%", 0},
    {"seed", 'S', "N", 0, "Seed of initial values and data order (default 1)", 0},
    {"lr", 'l', "RATE", 0, "Peak learning rate (default: the method's)", 0},
    {"steps", 'n', "N", 0, "Optimizer steps (default 200)", 0},
    {"batch", 'B', "N", 0, "Sequences per batch (default 16)", 0},
    {"data", 'd', "DIR", 0, "Folder with the original files of data sets", 0},
    {"out", 'o', "FILE", 0, "Result file, ending in .h5", 0},
    {"quiet", 'q', 0, 0, "No progress", 0},
    {"schedule", KEY_SCHEDULE, "S", 0, "linear (default), cosine or constant", 1},
    {"warmup", KEY_WARMUP, "F", 0, "Share of the steps (default 0.06)", 1},
    {"weight-decay", KEY_DECAY, "F", 0, "AdamW's (default 0)", 1},
    {"clip", KEY_CLIP, "F", 0, "Largest gradient norm (default 1; 0: none)", 1},
    {"accumulate", KEY_ACCUM, "N", 0,
     "Batches per step (default 1); processes started by mpirun share them", 1},
    {"recompute", KEY_RECOMPUTE, 0, 0,
     "Keep only the inputs of layers, and compute their activations again for the backward pass: "
     "less memory, more time, the same bits",
     1},
    {"eval-every", KEY_EVAL, "N", 0, "Steps between validations (default 50)", 1},
    {"patience", KEY_PATIENCE, "N", 0,
     "Stop after so many validations without improvement (default 10; 0: never)", 1},
    {"task-seed", KEY_TASK_SEED, "N", 0, "Seed of generated tasks (default 1)", 1},
    {"train-examples", KEY_NTRAIN, "N", 0, "Use at most so many (default: the task's)", 1},
    {"valid-examples", KEY_NVALID, "N", 0, "Likewise", 1},
    {"test-examples", KEY_NTEST, "N", 0, "Likewise", 1},
    {"general-text", KEY_GENERAL, "FILE", 0,
     "Also the loss on this text (documents between blank lines), and how much more it is than the "
     "backbone's: forgetting",
     1},
    PB_DECODING_OPTIONS,
    PB_WEIGHTS_OPTION,
    {0}};

static void put_size(struct argp_state *state, json_t *obj, const char *key, const char *arg)
{
    size_t v;
    if (pb_parse_size(arg, key, &v))
        pb_usage_error(state);
    json_object_set_new(obj, key, json_integer((json_int_t)v));
}

static void put_from(struct argp_state *state, json_t *obj, const char *key, const char *arg,
                     double least)
{
    double v;
    if (pb_parse_real(arg, key, least, 1e9, &v))
        pb_usage_error(state);
    json_object_set_new(obj, key, json_real(v));
}

static void put_real(struct argp_state *state, json_t *obj, const char *key, const char *arg)
{
    put_from(state, obj, key, arg, 0);
}

static json_t *child(json_t *obj, const char *key)
{
    if (!json_object_get(obj, key))
        json_object_set_new(obj, key, json_object());
    return json_object_get(obj, key);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    json_t *c = a->config;
    char *eq;
    switch (key) {
    case 'm':
        json_object_set_new(c, "model", json_string(arg));
        break;
    case 't':
        json_object_set_new(c, "task", json_string(arg));
        break;
    case 'x':
        json_object_set_new(c, "method", json_string(arg));
        break;
    case 'a':
        json_object_set_new(c, "adapter", json_string(arg));
        break;
    case 's':
        eq = strchr(arg, '=');
        if (!eq)
            argp_error(state, "--set is \"%s\", not KEY=VALUE", arg);
        *eq = 0;
        json_object_set_new(child(c, "options"), arg, json_string(eq + 1));
        break;
    case 'b':
        json_object_set_new(c, "budget", json_string(arg));
        break;
    case 'S':
        put_size(state, c, "seed", arg);
        break;
    case 'l':
        put_real(state, c, "lr", arg);
        break;
    case 'n':
        put_size(state, c, "steps", arg);
        break;
    case 'B':
        put_size(state, c, "batch", arg);
        break;
    case 'd':
        a->data = arg;
        break;
    case 'o':
        a->out = arg;
        break;
    case 'q':
        a->quiet = true;
        break;
    case KEY_SCHEDULE:
        json_object_set_new(c, "schedule", json_string(arg));
        break;
    case KEY_WARMUP:
        put_real(state, c, "warmup", arg);
        break;
    case KEY_DECAY:
        put_real(state, c, "weight_decay", arg);
        break;
    case KEY_CLIP:
        put_real(state, c, "clip", arg);
        break;
    case KEY_ACCUM:
        put_size(state, c, "accumulate", arg);
        break;
    case KEY_RECOMPUTE:
        json_object_set_new(c, "recompute", json_true());
        break;
    case KEY_EVAL:
        put_size(state, c, "eval_every", arg);
        break;
    case KEY_PATIENCE:
        put_size(state, c, "patience", arg);
        break;
    case KEY_TASK_SEED:
        put_size(state, c, "task_seed", arg);
        break;
    case KEY_NTRAIN:
        put_size(state, child(c, "limit"), "train", arg);
        break;
    case KEY_NVALID:
        put_size(state, child(c, "limit"), "valid", arg);
        break;
    case KEY_NTEST:
        put_size(state, child(c, "limit"), "test", arg);
        break;
    case KEY_GENERAL:
        json_object_set_new(c, "general_text", json_string(arg));
        break;
    case PB_KEY_BEAM:
        put_size(state, c, "beam", arg);
        break;
    case PB_KEY_LENGTH_PENALTY:
        put_from(state, c, "length_penalty", arg, -100);
        break;
    case PB_KEY_NO_REPEAT:
        put_size(state, c, "no_repeat_ngram", arg);
        break;
    case PB_KEY_WEIGHTS:
        json_object_set_new(c, "weights", json_string(arg));
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        break;
    case ARGP_KEY_END:
        if (!json_object_get(c, "task") || !a->out ||
            (!json_object_get(c, "method") && !json_object_get(c, "adapter")))
            argp_error(state, "--task, --method (or --adapter) and --out are needed");
        if (!json_object_get(c, "model"))
            json_object_set_new(c, "model", json_string(pb_default_model()));
        if (strlen(a->out) < 4 || strcmp(a->out + strlen(a->out) - 3, ".h5"))
            argp_error(state, "--out is \"%s\", which does not end in .h5", a->out);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    opts,
    parse,
    NULL,
    "Trains one method on one task, evaluates it on the test split, and writes one HDF5 file; the "
    "adapter goes to a folder beside it. An interrupted run continues when it is started again; a "
    "complete one is left alone. Several processes, on one machine or many, share the batches of "
    "every step and give the same bits as one (builds with PB_MPI).\v"
    "Examples:\n"
    "  pedrobench train --task yesno --method pedro --budget 0.5% --out run.h5\n"
    "  pedrobench train --model stories260K/checkpoint_legacy.bin --task e2e --data DATA \\\n"
    "      --method lora --set rank=2 --set targets=q,v --lr 3e-3 --steps 500 --out lora.h5\n"
    "  pedrobench train --task yesno --adapter run.adapter --out further.h5\n"
    "  mpirun -n 4 pedrobench train --task yesno --method lora --accumulate 4 --batch 8 --out "
    "four.h5",
    NULL,
    NULL,
    NULL};

static pb_err run(int argc, char **argv)
{
    struct args a = {.config = json_object()};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    pb_log_quiet(a.quiet);
    pb_cache cache = {0};
    pb_experiment_result r;
    char label[96];
    const char *method = json_string_value(json_object_get(a.config, "method"));
    snprintf(label, sizeof label, "%s on %s", method ? method : "adapter",
             json_string_value(json_object_get(a.config, "task")));
    pb_experiment_args args = {a.data, label, 200, true};
    pb_err err = pb_experiment_run(&r, a.config, a.out, &cache, &args);
    if (!err && pb_rank())
        ; // rank 0 tells
    else if (!err && r.skipped)
        printf("%s is complete already\n", a.out);
    else if (!err && r.status == PB_RUN_COMPLETE)
        printf("%s: %s %.*f%s%s, loss %.4f, %zu trainable parameters, %.1f s; written to %s\n",
               label, r.metric->name, r.metric->digits, r.metric->scale * r.score,
               *r.metric->unit ? " " : "", r.metric->unit, r.loss, r.trainable, r.seconds, a.out);
    else if (!err)
        err = pb_fail(r.error,
                      *r.hint ? r.hint : "the result file records it; `pedrobench table` counts it",
                      "the run %s: %s", pb_run_status_name(r.status), r.why);
    pb_cache_free(&cache);
    json_decref(a.config);
    return err;
}

PB_COMMAND(train) = {"train", "train and evaluate one method on one task", 30, run};
