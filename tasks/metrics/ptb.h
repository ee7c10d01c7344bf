// The tokens that coco-caption's scripts count (ROUGE-L, CIDEr): Penn Treebank tokens in lower case
// as Stanford's PTBTokenizer of CoreNLP 3.4.1 makes them, less punctuation.
#ifndef PB_METRICS_PTB_H
#define PB_METRICS_PTB_H

#include "tasks/metrics/grams.h"

// Tokens joined by single spaces; release with free.
pb_err pb_ptb_tokens(char **out, const char *text);
pb_err pb_ptb_sentence(pb_sentence *s, const char *text);

#endif
