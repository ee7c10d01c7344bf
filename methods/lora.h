// What LoRA and its relatives share; the functions are in lora.c.
#ifndef PB_METHODS_LORA_H
#define PB_METHODS_LORA_H

#include "methods/method.h"

// A method with further fields has this as its first.
struct lora {
    long rank;
    double alpha, dropout, lr_ratio;
    bool rslora;
    const char *targets, *ranks, *alphas;
};

extern const pb_option pb_lora_options[];
extern const pb_peft_key pb_lora_keys[];

// Ids of A and B of each linear; those who add matrices of their own go on from there.
enum { PB_LORA_A = 0, PB_LORA_B = PB_N_LINEARS, PB_LORA_IDS = 2 * PB_N_LINEARS };

// Whether a linear of a layer is adapted, and its rank and scale s.
bool pb_lora_at(const struct lora *o, size_t layer, int linear, size_t *rank, double *scale);

pb_err pb_lora_prepare(void *options, const pb_config *config);
pb_err pb_lora_layout(pb_layout *l, const void *options, const pb_config *config);
pb_mat *pb_lora_site(pb_ctx *c, const void *options, pb_site s, pb_mat *x, pb_mat *y);
pb_err pb_lora_merge(const pb_params *p, const pb_merge_args *m);

#endif
