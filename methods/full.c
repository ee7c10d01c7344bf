// Training all weights of the backbone: a mode of the harness, which makes the backbone itself
// trainable. There is no adapter; what is saved is a model folder.
#include "methods/method.h"

static const pb_option options[] = {{0}};
static const double lr_grid[] = {3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0};

PB_METHOD(full) = {
    .name = "full",
    .doc = "all weights of the backbone",
    .citation = "none",
    .formula = "y = W x;  W is trained",
    .bibtex = "",
    .peft_type = "FULL",
    .options = options,
    .identity = true,
    .backbone = true,
    .lr_grid = lr_grid,
    .lr = 1e-3,
};
