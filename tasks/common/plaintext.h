// Plain English-like text for pretraining a tiny backbone on the spot.
//
// Short documents (about 80 to 300 bytes) about people, places, food and objects, in the words of
// the generated tasks but in none of their formats: no prompt, response or reference of a task is
// in it. Entities are named again and again within a document, so that a model learns to copy them.
#ifndef PB_TASKS_PLAINTEXT_H
#define PB_TASKS_PLAINTEXT_H

#include "core/error.h"
#include <stddef.h>
#include <stdint.h>

// Generates whole documents until there are `bytes` bytes or more (the excess is below one
// document). Every document ends with an empty line ("\n\n"), which occurs nowhere inside one. The
// text is ASCII and zero-terminated; release with free. The same seed gives the same text on every
// machine, and a shorter text is the beginning of a longer one.
pb_err pb_plaintext(uint64_t seed, size_t bytes, char **text);

#endif
