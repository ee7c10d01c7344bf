// Sequences for training and scoring: tokens with a prompt in front, in one block of memory.
#ifndef PB_TRAIN_DATA_H
#define PB_TRAIN_DATA_H

#include "core/rng.h"
#include "model/tokenizer.h"
#include "tasks/task.h"

typedef struct pb_seq {
    size_t first;         // its first token in the block
    uint32_t n, n_prompt; // tokens, and how many of them are the prompt; 1 <= n_prompt < n
} pb_seq;

typedef struct pb_seqs {
    int32_t *tokens;
    size_t n_tokens, cap_tokens;
    pb_seq *seq;
    size_t n, cap;
    size_t longest;      // tokens of the longest
    size_t dropped;      // left out because they did not fit
    size_t longest_byte; // bytes of the longest response, for decoding limits
} pb_seqs;

void pb_seqs_free(pb_seqs *s);

// Appends [BOS] prompt response [EOS]; sequences of more than `limit` tokens are counted as
// dropped.
pb_err pb_seqs_add(pb_seqs *s, const pb_tokenizer *t, const char *prompt, const char *response,
                   size_t limit);
// All examples of a split with their responses.
pb_err pb_seqs_from_split(pb_seqs *s, const pb_tokenizer *t, const pb_dataset *d, pb_split split,
                          size_t limit);
// Documents, separated by `mark`, cut into sequences of at most `limit` tokens; loss counts on all
// tokens but the first.
pb_err pb_seqs_from_text(pb_seqs *s, const pb_tokenizer *t, const char *text, size_t size,
                         const char *mark, size_t limit);

// The order of one epoch: shuffled, then sorted by length within windows so that the sequences of a
// batch are alike, then batches shuffled. `order` has n entries; whole batches only are used.
void pb_epoch_order(size_t *order, const pb_seqs *s, size_t batch, uint64_t seed, uint32_t epoch);

#endif
