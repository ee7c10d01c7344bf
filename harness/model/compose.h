// Compositions: "a+b" is a method made at run time of two or more registered ones that act on one
// backbone side by side.
//
//   options     those of the parts, as "a.option"; the bare name where one part alone has it
//   parameters  side by side; part i of n has the ids i, i+n, i+2n, ..., which its hooks do not see
//   sites       in order: b sees what a made of y
//   state       side by side; whole prompts if one part wants them
//   prefix      of the one part that has one
//   rate        the first part's; the others' parameters are scaled so that at the default rate
//               every part trains at its own
//   budget      in equal parts, coarse knobs first, so that a fine one makes up for the rest
//   merging     one after the other: outputs first, then inputs; if every part can
//   files       a folder with one adapter folder per part, which others open
#ifndef PB_MODEL_COMPOSE_H
#define PB_MODEL_COMPOSE_H

#include "model/adapter.h"

#define PB_COMPOSITION "COMPOSITION" // peft_type of the folder of folders

// The method called "a+b+...", made when it is first asked for; NULL, and says why.
const pb_method *pb_compose(const char *name);

size_t pb_parts_count(const pb_method *m); // 0 for a plain method
const pb_method *pb_part(const pb_method *m, size_t i);
void *pb_part_options(const pb_method *m, const void *options, size_t i);

// The knob's name, of a composition after the other parts' knobs: "lora.rank=2 prefix.length".
const char *pb_knob_label(const pb_method *m, const void *options, char *out, size_t size);

// A part as an adapter of its own, with copies of the values; and the composition of such.
pb_err pb_adapter_part(pb_adapter **out, const pb_adapter *a, size_t i);
pb_err pb_adapter_compose(pb_adapter **out, pb_adapter *const *parts, size_t n);

#endif
