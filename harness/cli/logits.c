// `pedrobench logits`: logits of every position, so that anyone can check a model or adapter.
#include "cli/common/common.h"
#include "serve/decode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
    const char *model, *adapter, *tokens, *text, *prompt;
    size_t greedy, top;
    bool last, json;
    pb_storage weights;
};

enum {
    ALL_POSITIONS = 300,               // an option without a letter
    DIGITS = sizeof(real) > 4 ? 17 : 9 // enough to read the same number back
};

static const struct argp_option opts[] = {
    {"model", 'm', "PATH", 0, "Model folder or file (default: " PB_EMBEDDED ")", 0},
    {"adapter", 'a', "DIR", 0, "Adapter folder", 0},
    {"tokens", 't', "IDS", 0, "Token ids, e.g. 1,403,7; nothing is added to them", 0},
    {"text", 'x', "TEXT", 0, "Text instead of ids; the tokenizer's BOS, if any, goes in front", 0},
    {"prompt", 'p', "N", 0,
     "How many tokens are the prompt, for methods that look at it "
     "(default: all)",
     0},
    {"greedy", 'g', "N", 0,
     "Append the likeliest token N times, each computed from the cache of "
     "keys and values; an end of sequence does not end it",
     0},
    {"all", ALL_POSITIONS, 0, 0, "Print every position (default)", 0},
    {"last", 'l', 0, 0, "Print the last position only", 0},
    {"top", 'k', "K", 0, "How many tokens to list per position (default 5)", 0},
    {"json", 'j', 0, 0,
     "Print the logits of the whole vocabulary as JSON: vocab; tokens; first, "
     "the position of the first row; logits, a row per position",
     0},
    PB_WEIGHTS_OPTION,
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    switch (key) {
    case 'm':
        a->model = arg;
        break;
    case 'a':
        a->adapter = arg;
        break;
    case 't':
        a->tokens = arg;
        break;
    case 'x':
        a->text = arg;
        break;
    case 'p':
        a->prompt = arg;
        break;
    case 'g':
        if (pb_parse_size(arg, "--greedy", &a->greedy))
            pb_usage_error(state);
        break;
    case ALL_POSITIONS:
        a->last = false;
        break;
    case 'l':
        a->last = true;
        break;
    case 'k':
        if (pb_parse_size(arg, "--top", &a->top))
            pb_usage_error(state);
        break;
    case 'j':
        a->json = true;
        break;
    case PB_KEY_WEIGHTS:
        if (pb_storage_find(&a->weights, arg))
            pb_usage_error(state);
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        break;
    case ARGP_KEY_END:
        if (!a->tokens == !a->text)
            argp_error(state, "one of --tokens and --text is needed");
        if (!a->model)
            a->model = pb_default_model();
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
    "Prints the logits that follow each position: row t holds those of token t + 1.\v"
    "Examples:\n"
    "  pedrobench logits --model MODEL --text \"Once upon a time\" --last --top 10\n"
    "  pedrobench logits --model MODEL --adapter ADAPTER --tokens 1,403,7 --json",
    NULL,
    NULL,
    NULL};

static void print_json(const int32_t *tokens, size_t n, size_t first, const real *logits, size_t V)
{
    printf("{\"vocab\": %zu, \"tokens\": [", V);
    for (size_t i = 0; i < n; i++)
        printf("%s%d", i ? "," : "", (int)tokens[i]);
    printf("], \"first\": %zu, \"logits\": [", first);
    for (size_t i = first; i < n; i++) {
        printf("%s[", i > first ? ",\n " : "");
        for (size_t v = 0; v < V; v++)
            printf("%s%.*g", v ? "," : "", DIGITS, (double)logits[(i - first) * V + v]);
        printf("]");
    }
    printf("]}\n");
}

// A token's id and, if there is a tokenizer, how its file writes it.
static void print_token(const pb_tokenizer *t, int32_t id)
{
    const char *s;
    size_t len;
    printf("%d", (int)id);
    pb_token_kind kind = t ? pb_tokenizer_token(t, id, &s, &len) : PB_TOKEN_NONE;
    if (kind == PB_TOKEN_NONE)
        return;
    printf(" \"");
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c < ' ' || c == '"' || c == '\\' || c == 127 || (c > 127 && len == 1))
            printf("\\x%02x", c);
        else
            putchar(c);
    }
    printf("\"");
}

static void print_top(const pb_tokenizer *t, const int32_t *tokens, size_t n, size_t first,
                      const real *logits, size_t V, size_t top)
{
    for (size_t i = first; i < n; i++, logits += V) {
        printf("position %zu: ", i);
        print_token(t, tokens[i]);
        printf(" ->");
        size_t best = V; // the one printed last
        for (size_t k = 0; k < top && k < V; k++) {
            size_t next = V; // the largest of those that come after it: smaller, or equal and later
            for (size_t v = 0; v < V; v++)
                if ((best == V || logits[v] < logits[best] ||
                     (logits[v] == logits[best] && v > best)) &&
                    (next == V || logits[v] > logits[next]))
                    next = v;
            if (next == V) // not a number
                break;
            best = next;
            printf("  ");
            print_token(t, (int32_t)best);
            printf(" (%.4f)", (double)logits[best]);
        }
        printf("\n");
    }
}

// The tokens of --tokens or --text, with room for those of --greedy.
static pb_err read_tokens(const struct args *a, const pb_model *m, int32_t **out, size_t *n)
{
    if (a->tokens) {
        PB_TRY(pb_parse_tokens(a->tokens, m->config.vocab, out, n));
    } else {
        if (!m->tokenizer)
            return pb_fail(PB_INPUT, "use --tokens", "the model %s has no tokenizer", a->model);
        size_t cap = strlen(a->text) + 16;
        *out = malloc(cap * sizeof **out);
        if (!*out)
            return pb_fail(PB_MEMORY, NULL, "no memory for the tokens");
        int32_t bos = pb_tokenizer_bos(m->tokenizer);
        if (bos >= 0)
            (*out)[(*n)++] = bos;
        PB_TRY(pb_tokenizer_encode(m->tokenizer, a->text, strlen(a->text), false, out, n, &cap));
        if (!*n)
            return pb_fail(PB_USAGE, NULL, "--text is empty, and the tokenizer has no BOS");
    }
    int32_t *longer = realloc(*out, (*n + a->greedy) * sizeof **out);
    if (!longer)
        return pb_fail(PB_MEMORY, NULL, "no memory for %zu tokens", *n + a->greedy);
    *out = longer;
    return PB_OK;
}

// The given tokens in one step, then one step per token of --greedy. Row 0 of `logits` is position
// `first`.
static void compute(pb_step *st, const struct args *a, const pb_segment *prompt, int32_t *tokens,
                    size_t n, size_t first, size_t *rows, real *logits, size_t V)
{
    pb_segment seg = *prompt;
    pb_batch b = {n, 1, tokens, &seg};
    pb_mat *h = pb_forward(st, &b, false, 0, 0);
    size_t from = first < n ? first : n - 1;
    for (size_t i = from; i < n; i++)
        rows[i - from] = i;
    pb_step_logits(st, h, rows, n - from, logits);
    for (size_t i = n; i < n + a->greedy; i++) {
        real *last = logits + (first < i ? i - 1 - first : 0) * V;
        tokens[i] = pb_argmax(last, V);
        seg = (pb_segment){.n_rows = 1, .pos0 = i, .tenant = prompt->tenant, .slot = prompt->slot};
        b = (pb_batch){1, 1, tokens + i, &seg};
        h = pb_forward(st, &b, false, 0, 0);
        rows[0] = 0;
        pb_step_logits(st, h, rows, 1, first < i ? last + V : logits);
    }
}

static pb_err run(int argc, char **argv)
{
    struct args a = {.top = 5};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    pb_err err = PB_OK;
    pb_model *m = NULL;
    pb_adapter *ad = NULL;
    pb_step *st = NULL;
    int32_t *tokens = NULL;
    real *logits = NULL;
    size_t *rows = NULL, n = 0, n_prompt, total, first, V;
    pb_model_args args = {.weights = a.weights};
    PB_GO(pb_model_open(&m, a.model, &args));
    V = m->config.vocab;
    PB_GO(read_tokens(&a, m, &tokens, &n));
    total = n + a.greedy;
    first = a.last ? total - 1 : 0;
    n_prompt = n;
    if (a.prompt)
        PB_GO(pb_parse_size(a.prompt, "--prompt", &n_prompt));
    if (n_prompt < 1 || n_prompt > n) {
        err = pb_fail(PB_USAGE, NULL, "--prompt is %zu, outside 1..%zu", n_prompt, n);
        goto done;
    }
    if (a.adapter) {
        PB_GO(pb_adapter_load(&ad, a.adapter, &m->config, m->sha256));
        PB_GO(pb_adapter_serve(ad, m));
    }
    pb_step_limits limits = {
        .rows = n, .segments = 1, .slots = a.greedy ? 1 : 0, .positions = total};
    PB_GO(pb_step_new(&st, m, &ad, ad ? 1 : 0, &limits));
    logits = malloc((total - first) * V * sizeof *logits);
    rows = malloc(n * sizeof *rows);
    if (!logits || !rows) {
        err = pb_fail(PB_MEMORY, "--last needs one row", "no memory for %zu rows of logits",
                      total - first);
        goto done;
    }
    pb_segment prompt = {
        .n_rows = n, .n_prompt = n_prompt, .tenant = ad ? 0 : -1, .slot = a.greedy ? 0 : -1};
    compute(st, &a, &prompt, tokens, n, first, rows, logits, V);
    if (a.json)
        print_json(tokens, total, first, logits, V);
    else
        print_top(m->tokenizer, tokens, total, first, logits, V, a.top);
done:
    free(tokens);
    free(logits);
    free(rows);
    pb_step_free(st);
    pb_adapter_free(ad);
    pb_model_close(m);
    return err;
}

PB_COMMAND(logits) = {"logits", "print the logits of a token sequence", 60, run};
