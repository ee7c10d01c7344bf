// `pedrobench tokenizer`: makes a tokenizer from text, and shows what one does to a text.
#include "cli/common/common.h"
#include "core/file.h"
#include "core/log.h"
#include "model/tokenizer_train.h"
#include "tasks/common/plaintext.h"
#include "train/data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILES = 256 };
#define BLANK_LINE "\n\n"

struct args {
    const char *what, *out, *mark, *tokenizer; // mark: NULL when not given
    const char *file[MAX_FILES];
    size_t n_files, vocab, bytes;
    bool bos;
};

static const struct argp_option opts[] = {
    {NULL, 0, NULL, 0, "train:", 1},
    {"vocab", 'V', "N", 0, "Tokens, two special ones and 256 bytes among them (default 4096)", 1},
    {"mark", 'k', "TEXT", 0,
     "What separates documents (default: a blank line); `encode` then writes a line per document, "
     "which may have several lines",
     1},
    {"bytes", 'B', "N", 0, "Bytes of generated text to add, as `pretrain` does (default 0)", 1},
    {"out", 'o', "FILE", 0, "The tokenizer.json to write; tokenizer_config.json goes beside it", 1},
    {"quiet", 'q', 0, 0, "No progress", 1},
    {NULL, 0, NULL, 0, "encode, decode:", 2},
    {"tokenizer", 't', "PATH", 0, "A tokenizer file, or a model folder", 2},
    {"bos", 'b', 0, 0, "Begin every line with the tokenizer's BOS", 2},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct args *a = state->input;
    switch (key) {
    case 'V':
        if (pb_parse_size(arg, "--vocab", &a->vocab))
            pb_usage_error(state);
        break;
    case 'B':
        if (pb_parse_size(arg, "--bytes", &a->bytes))
            pb_usage_error(state);
        break;
    case 'k':
        a->mark = arg;
        if (!*arg)
            argp_error(state, "--mark is empty");
        break;
    case 'o':
        a->out = arg;
        break;
    case 't':
        a->tokenizer = arg;
        break;
    case 'b':
        a->bos = true;
        break;
    case 'q':
        pb_log_quiet(true);
        break;
    case ARGP_KEY_ARG:
        if (!a->what) {
            a->what = arg;
            if (strcmp(arg, "train") && strcmp(arg, "encode") && strcmp(arg, "decode"))
                argp_error(state, "\"%s\" is none of train, encode and decode", arg);
        } else if (a->n_files == MAX_FILES) {
            argp_error(state, "more than %d files", MAX_FILES);
        } else {
            a->file[a->n_files++] = arg;
        }
        break;
    case ARGP_KEY_END:
        if (!a->what)
            argp_error(state, "say train, encode or decode");
        if (!strcmp(a->what, "train") && (!a->out || !(a->n_files || a->bytes)))
            argp_error(state, "--out and at least one text are needed");
        if (strcmp(a->what, "train") && (!a->tokenizer || a->n_files))
            argp_error(state, "--tokenizer is needed, and text comes from standard input");
        if (!strcmp(a->what, "decode") && a->mark)
            argp_error(state, "decode reads lines: --mark means nothing to it");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    opts,
    parse,
    "train --out FILE TEXT...\nencode --tokenizer PATH [--mark TEXT]\ndecode --tokenizer PATH",
    "Trains a byte-level BPE tokenizer and writes it as a Hugging Face tokenizer.json; or encodes "
    "each line (with --mark, each document) of standard input to a line of ids, or decodes such "
    "lines.\v"
    "The white space around documents is not counted.\n\n"
    "Examples:\n"
    "  pedrobench tokenizer train --vocab 4096 --out tokenizer.json --mark '<|endoftext|>' a.txt\n"
    "  pedrobench tokenizer encode --tokenizer tokenizer.json < a.txt > ids.txt\n"
    "  pedrobench tokenizer encode --tokenizer tokenizer.json --mark '<|endoftext|>' < a.txt\n"
    "  pedrobench tokenizer decode --tokenizer models/mine < ids.txt",
    NULL,
    NULL,
    NULL};

// ---------------------------------------------------------------- train

// Counts the words of every document.
static pb_err add_documents(pb_bpe_trainer *t, const char *name, const char *text, size_t size,
                            const char *mark)
{
    pb_err err = PB_OK;
    pb_progress bar;
    char label[96];
    const char *document;
    snprintf(label, sizeof label, "counting words of %.70s", name);
    pb_progress_begin(&bar, label, 0, (int64_t)size);
    for (size_t i = 0, len; !err && pb_next_document(text, size, mark, &i, &document, &len);) {
        err = pb_bpe_add(t, document, len);
        if (err)
            err = pb_context(err, "%s, the document at byte %zu", name, (size_t)(document - text));
        else if (pb_interrupted())
            err = pb_fail(PB_INTERRUPTED, NULL, "interrupted while counting words");
        pb_progress_update(&bar, (int64_t)i, NULL);
    }
    pb_progress_end(&bar, NULL);
    return err;
}

static pb_err add_texts(pb_bpe_trainer *t, const struct args *a)
{
    const char *mark = a->mark ? a->mark : BLANK_LINE;
    for (size_t i = 0; i < a->n_files; i++) {
        pb_file f;
        PB_TRY(pb_file_map(&f, a->file[i]));
        pb_err err = add_documents(t, a->file[i], (const char *)f.data, f.size, mark);
        pb_file_unmap(&f);
        PB_TRY(err);
    }
    if (!a->bytes)
        return PB_OK;
    char *made;
    PB_TRY(pb_plaintext(1, a->bytes, &made));
    pb_err err = add_documents(t, "generated text", made, strlen(made), BLANK_LINE);
    free(made);
    return err;
}

static pb_err save(const json_t *tokenizer, const char *out)
{
    char folder[4096], path[4096];
    const char *slash = strrchr(out, '/');
    PB_TRY(
        pb_path(folder, sizeof folder, "%.*s", slash ? (int)(slash - out) : 1, slash ? out : "."));
    PB_TRY(pb_path(path, sizeof path, "%s/tokenizer_config.json", folder));
    PB_TRY(pb_make_dirs(folder));
    json_t *j =
        json_pack("{s:s, s:s, s:s, s:b}", "tokenizer_class", "PreTrainedTokenizerFast", "bos_token",
                  PB_BPE_BEGIN, "eos_token", PB_BPE_END, "clean_up_tokenization_spaces", 0);
    pb_err err = pb_json_save(j, path);
    json_decref(j);
    return err ? err : pb_json_save(tokenizer, out);
}

static pb_err train(const struct args *a)
{
    pb_err err = PB_OK;
    pb_bpe_trainer *t = NULL;
    json_t *j = NULL;
    size_t tokens;
    PB_GO(pb_bpe_new(&t));
    PB_GO(add_texts(t, a));
    pb_info("%zu different words", pb_bpe_words(t));
    PB_GO(pb_bpe_train(t, a->vocab, &j, &tokens));
    if (tokens < a->vocab)
        pb_warn("%zu tokens, not %zu: no other pair occurs twice in this text", tokens, a->vocab);
    PB_GO(save(j, a->out));
    printf("%s: %zu tokens\n", a->out, tokens);
done:
    json_decref(j);
    pb_bpe_free(t);
    return err;
}

// ---------------------------------------------------------------- encode, decode

static pb_err encode_line(const pb_tokenizer *t, const struct args *a, const char *line, size_t len)
{
    int32_t *ids = NULL;
    size_t n = 0, cap = 0;
    pb_err err = pb_tokenizer_encode(t, line, len, false, &ids, &n, &cap);
    const char *gap = "";
    if (!err && a->bos && pb_tokenizer_bos(t) >= 0) {
        printf("%d", (int)pb_tokenizer_bos(t));
        gap = " ";
    }
    for (size_t i = 0; i < n && !err; i++, gap = " ")
        printf("%s%d", gap, (int)ids[i]);
    if (!err)
        putchar('\n');
    free(ids);
    return err;
}

static pb_err decode_line(const pb_tokenizer *t, const char *line)
{
    pb_err err = PB_OK;
    char *text = NULL;
    size_t n = 0, len;
    int32_t *ids = malloc((strlen(line) / 2 + 1) * sizeof *ids);
    if (!ids)
        return pb_fail(PB_MEMORY, NULL, "no memory for a line");
    for (char *end; line += strspn(line, " ,\t\r"), *line; line = end) {
        long id = strtol(line, &end, 10);
        if (end == line || id < 0 || (size_t)id >= pb_tokenizer_vocab(t))
            PB_GO(pb_fail(PB_INPUT, NULL, "\"%.20s\" is no id below %zu", line,
                          pb_tokenizer_vocab(t)));
        ids[n++] = (int32_t)id;
    }
    PB_GO(pb_tokenizer_decode(t, ids, n, false, &text, &len));
    fwrite(text, 1, len, stdout);
    putchar('\n');
done:
    free(ids);
    free(text);
    return err;
}

// Documents of all of standard input; the white space around each is not encoded.
static pb_err encode_documents(const pb_tokenizer *t, const struct args *a)
{
    pb_err err = PB_OK;
    char *text = NULL;
    const char *document;
    size_t cap = 0, n = 0, number = 0;
    while (!feof(stdin) && !ferror(stdin)) {
        if (n == cap) {
            cap = cap ? 2 * cap : 1 << 16;
            char *more = realloc(text, cap);
            if (!more)
                PB_GO(pb_fail(PB_MEMORY, NULL, "no memory for %zu bytes of text", cap));
            text = more;
        }
        n += fread(text + n, 1, cap - n, stdin);
    }
    if (ferror(stdin))
        PB_GO(pb_fail(PB_IO, NULL, "cannot read standard input: %m"));
    for (size_t i = 0, len; pb_next_document(text, n, a->mark, &i, &document, &len);) {
        number++;
        err = encode_line(t, a, document, len);
        if (err)
            PB_GO(pb_context(err, "document %zu", number));
    }
done:
    free(text);
    return err;
}

static pb_err lines(const struct args *a)
{
    pb_err err = PB_OK;
    pb_tokenizer *t = NULL;
    char path[4096], *line = NULL;
    size_t cap = 0, number = 0;
    ssize_t n;
    if (pb_is_dir(a->tokenizer))
        PB_TRY(pb_tokenizer_in(path, sizeof path, a->tokenizer));
    else
        PB_TRY(pb_path(path, sizeof path, "%s", a->tokenizer));
    PB_GO(pb_tokenizer_open(&t, path, 0));
    if (a->mark) {
        err = encode_documents(t, a);
        goto done;
    }
    while ((n = getline(&line, &cap, stdin)) >= 0) {
        number++;
        if (n && line[n - 1] == '\n')
            line[--n] = 0;
        err = strcmp(a->what, "encode") ? decode_line(t, line) : encode_line(t, a, line, (size_t)n);
        if (err)
            PB_GO(pb_context(err, "line %zu", number));
    }
    if (ferror(stdin))
        err = pb_fail(PB_IO, NULL, "cannot read standard input: %m");
done:
    free(line);
    pb_tokenizer_close(t);
    return err;
}

static pb_err run(int argc, char **argv)
{
    struct args a = {.vocab = 4096};
    argp_parse(&argp, argc, argv, 0, 0, &a);
    return strcmp(a.what, "train") ? lines(&a) : train(&a);
}

PB_COMMAND(tokenizer) = {"tokenizer", "train a tokenizer, encode and decode text", 41, run};
