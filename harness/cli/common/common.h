// What several subcommands share: lists of token ids, and opening a model with an adapter.
#ifndef PB_CLI_COMMON_H
#define PB_CLI_COMMON_H

#include "cli/cli.h"
#include "model/forward.h"

#include <argp.h>

// Parses "1,2,3"; *out is released with free.
pb_err pb_parse_tokens(const char *text, size_t vocab, int32_t **out, size_t *n);
// Parses a size with an optional suffix k, M or G.
pb_err pb_parse_size(const char *text, const char *what, size_t *out);
pb_err pb_parse_real(const char *text, const char *what, double min, double max, double *out);

// Makes a folder, or accepts one that is empty: nothing is overwritten.
pb_err pb_fresh_folder(const char *path);
// Weights of more bytes are written as shards.
#define PB_SHARD_BYTES ((size_t)4000000000)

// The model that a command uses when none is named: the backbone that comes with the suite, or the
// folder that PB_BACKBONE names.
#define PB_EMBEDDED "the suite's own backbone"
const char *pb_default_model(void);

// --beam, --length-penalty, --no-repeat-ngram: how responses are decoded (a pb_decoding).
enum { PB_KEY_BEAM = 2010, PB_KEY_LENGTH_PENALTY, PB_KEY_NO_REPEAT };
#define PB_DECODING_OPTIONS                                                                        \
    {"beam", PB_KEY_BEAM, "N", 0, "Beams of a beam search (default 1: greedy)", 2},                \
        {"length-penalty",                                                                         \
         PB_KEY_LENGTH_PENALTY,                                                                    \
         "A",                                                                                      \
         0,                                                                                        \
         "Beam search: log-probability / length^A is a response's score (default 1)",              \
         2},                                                                                       \
    {                                                                                              \
        "no-repeat-ngram", PB_KEY_NO_REPEAT, "N", 0,                                               \
            "No N tokens in a row come twice in a response (default 0: they may)", 2               \
    }

// --weights: how frozen weights are kept in memory (a pb_storage).
enum { PB_KEY_WEIGHTS = 2000 };
#define PB_WEIGHTS_OPTION                                                                          \
    {                                                                                              \
        "weights", PB_KEY_WEIGHTS, "HOW", 0,                                                       \
            "Frozen weights in memory: fp32, bf16, int8 (rounded), or auto (default): bf16 or "    \
            "int8 where the file has it (Q8_0), else fp32",                                        \
            0                                                                                      \
    }

// For argp parsers that fail with a pb_err: prints the message and hint and exits with code 2.
void pb_usage_error(struct argp_state *state);

#endif
