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
    size_t cut;          // examples that lost a part to fit
    size_t longest_byte; // bytes of the longest response, for decoding limits
} pb_seqs;

void pb_seqs_free(pb_seqs *s);

// Appends [BOS] prompt response [EOS]; sequences of more than `limit` tokens are counted as
// dropped.
pb_err pb_seqs_add(pb_seqs *s, const pb_tokenizer *t, const char *prompt, const char *response,
                   size_t limit);
// The same for several responses to one prompt, for evaluation, which may leave nothing out: when
// the longest does not fit, the prompt loses as much of its beginning (behind BOS) as all of them
// need, so that they stay comparable. Fails when no prompt would be left.
pb_err pb_seqs_add_cut(pb_seqs *s, const pb_tokenizer *t, const char *prompt,
                       const char *const *responses, size_t n, size_t limit);
// All examples of a split with their responses.
pb_err pb_seqs_from_split(pb_seqs *s, const pb_tokenizer *t, const pb_dataset *d, pb_split split,
                          size_t limit);
// The next document of a text in which `mark` separates them, rid of the white space around it;
// false when there is none. Start with *at = 0; empty documents are passed over.
bool pb_next_document(const char *text, size_t size, const char *mark, size_t *at,
                      const char **document, size_t *len);
// Documents as [BOS] text [EOS] cut
// into sequences of at most `limit` tokens; loss counts on all tokens but the first. Adds the bytes
// of the documents to *bytes, unless it is NULL.
pb_err pb_seqs_from_text(pb_seqs *s, const pb_tokenizer *t, const char *text, size_t size,
                         const char *mark, size_t limit, size_t *bytes);

// Batches of every epoch, in the order of training: a function of the sequences, the options and
// the seed alone, so that batch k can be had again. With `tokens` = 0 a batch has `sequences` of
// them, alike in length: the shuffled order is sorted within windows, then batches are shuffled.
// Otherwise a batch is filled in shuffled order with as many sequences as `tokens` rows hold (a
// sequence of n tokens takes n - 1 rows). An epoch's incomplete last batch is left out.
typedef struct pb_batches {
    const pb_seqs *s;
    size_t sequences, tokens;
    uint64_t seed;
    uint32_t epoch;        // whose order is in memory; from 1, 0: none
    size_t first, n;       // number of its first batch, and how many it has
    size_t *order, *start; // (s->n), (n + 1): where batches start in the order
    size_t rows, most;     // rows and sequences of the largest batch that can come
} pb_batches;

// `s` must outlive it. Fails when there are too few sequences for one batch, or one is too long.
pb_err pb_batches_new(pb_batches *b, const pb_seqs *s, size_t sequences, size_t tokens,
                      uint64_t seed);
void pb_batches_free(pb_batches *b);
// Indices of the sequences of batch k (from 0) and their number.
const size_t *pb_batches_at(pb_batches *b, size_t k, size_t *n);

#endif
