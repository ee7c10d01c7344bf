// LoRA+: LoRA whose B learns faster than its A, by the factor lr_ratio: with equal rates, features
// of wide models are not learnt efficiently. The paper recommends a ratio of about 16. The run's
// learning rate is that of A. A trained LoRA+ is a LoRA, and its files are.
//
// Source: Hayou, Ghosh & Yu 2024, arXiv 2402.12354.
#include "methods/lora.h"

static const double lr_grid[] = {1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 0};

PB_METHOD(loraplus) = {
    .name = "loraplus",
    .variant = "lr_ratio=16",
    .doc = "LoRA with a higher learning rate for B",
    .citation = "Hayou et al. 2024, arXiv 2402.12354",
    .formula =
        "y += s B A x;  A (r,in), B (out,r), s = alpha / r;  rate of B = lr_ratio * rate of A",
    .bibtex = PB_ARXIV("hayou2024loraplus",
                       "{LoRA+}: Efficient Low Rank Adaptation of Large Models",
                       "Hayou, Soufiane and Ghosh, Nikhil and Yu, Bin", "2024", "2402.12354"),
    .peft_type = "LORA",
    .peft_keys = pb_lora_keys,
    .options = pb_lora_options,
    .options_size = sizeof(struct lora),
    .knob = "rank",
    .identity = true,
    .lr_grid = lr_grid,
    .lr = 1e-3,
    .prepare = pb_lora_prepare,
    .layout = pb_lora_layout,
    .site = pb_lora_site,
    .merge = pb_lora_merge,
};
