// Training of a byte-level BPE tokenizer, written as Hugging Face tokenizer.json.
#ifndef PB_MODEL_TOKENIZER_TRAIN_H
#define PB_MODEL_TOKENIZER_TRAIN_H

#include "core/json.h"

typedef struct pb_bpe_trainer pb_bpe_trainer;

pb_err pb_bpe_new(pb_bpe_trainer **out);
void pb_bpe_free(pb_bpe_trainer *t);

// Counts the words of a text. What is not UTF-8 is an error. A text may be given in parts, cut
// where words cannot join: between documents.
pb_err pb_bpe_add(pb_bpe_trainer *t, const char *text, size_t len);
size_t pb_bpe_words(const pb_bpe_trainer *t); // different ones

// Merges the most frequent pair of neighbouring tokens (of equal ones the pair with the smaller
// ids) until there are `vocab` tokens, two special ones and 256 bytes among them, or no pair
// occurs twice. *out is released with json_decref; *tokens says how many there are.
pb_err pb_bpe_train(pb_bpe_trainer *t, size_t vocab, json_t **out, size_t *tokens);

// The two special tokens, with ids 0 and 1.
#define PB_BPE_BEGIN "<|begin_of_text|>"
#define PB_BPE_END   "<|end_of_text|>"

#endif
