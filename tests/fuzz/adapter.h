// adapter_config.json: what is accepted can be written and read again, to the same adapter. Apart
// from targets.h, since it needs the methods and so the whole library.
#ifndef PB_FUZZ_ADAPTER_H
#define PB_FUZZ_ADAPTER_H

#include "fuzz/targets.h"
#include "model/peft.h"

#include <fcntl.h>
#include <unistd.h>

// Warnings of names and keys that are not known would fill the log.
static inline void hush(bool on)
{
    static int kept = -1;
    fflush(stderr);
    if (on) {
        int null = open("/dev/null", O_WRONLY);
        kept = dup(STDERR_FILENO);
        REQUIRE(kept >= 0 && null >= 0 && dup2(null, STDERR_FILENO) >= 0);
        close(null);
    } else {
        dup2(kept, STDERR_FILENO);
        close(kept);
    }
}

static inline bool target_adapter(const uint8_t *data, size_t size)
{
    static const pb_config base = {.vocab = 300,
                                   .width = 8,
                                   .ffn = 12,
                                   .layers = 3,
                                   .heads = 2,
                                   .kv_heads = 1,
                                   .head_dim = 4,
                                   .context = 64,
                                   .norm_eps = 1e-5,
                                   .rope_theta = 10000};
    const pb_method *m, *again_m;
    void *options, *again;
    json_t *j, *written;
    pb_adapter *a;
    if (target_refused(pb_json_parse(&j, (const char *)data, size, "fuzz")))
        return false;
    hush(true);
    pb_err err = pb_peft_read(&m, &options, j, &base, "abc");
    hush(false);
    if (!err) {
        err = pb_adapter_new(&a, m, options, &base, false);
        free(options);
    }
    json_decref(j);
    if (target_refused(err))
        return false;
    REQUIRE(!pb_peft_write(&written, a));
    REQUIRE(!pb_peft_read(&again_m, &again, written, &base, "abc"));
    pb_adapter *b;
    REQUIRE(again_m == m && !pb_adapter_new(&b, m, again, &base, false));
    REQUIRE(a->layout.n == b->layout.n && a->layout.size == b->layout.size);
    for (size_t i = 0; i < a->layout.n; i++) {
        const pb_spec *x = &a->layout.spec[i], *y = &b->layout.spec[i];
        REQUIRE(x->layer == y->layer && x->id == y->id && x->rows == y->rows && x->cols == y->cols);
        REQUIRE(x->scale == y->scale);
    }
    json_decref(written);
    free(again);
    pb_adapter_free(a);
    pb_adapter_free(b);
    return true;
}

static inline size_t seed_adapter(uint8_t *out, size_t cap, int variant)
{
    static const char *const texts[] = {
        "{\"peft_type\":\"LORA\",\"task_type\":\"CAUSAL_LM\",\"r\":4,\"lora_alpha\":8,"
        "\"lora_dropout\":0.1,\"use_rslora\":true,\"bias\":\"none\",\"target_modules\":"
        "[\"q_proj\",\"v_proj\",\"mlp.up_proj\"],\"layers_to_transform\":[0,2],"
        "\"layers_pattern\":\"layers\",\"rank_pattern\":{\"layers.2.self_attn.q_proj\":2,"
        "\"v_proj\":3},\"alpha_pattern\":{\"up_proj\":1.5},\"modules_to_save\":null,"
        "\"exclude_modules\":[\"x\"],\"init_lora_weights\":true,\"use_dora\":false}",
        "{\"peft_type\":\"IA3\",\"target_modules\":\".*\\\\.[01]\\\\.(self_attn\\\\.k|mlp\\\\.down)"
        "_proj\",\"feedforward_modules\":\".*mlp.*\",\"fan_in_fan_out\":false,"
        "\"exclude_modules\":\".*layers\\\\.1\\\\.mlp.*\",\"inference_mode\":true}",
        "{\"peft_type\":\"PREFIX_TUNING\",\"num_virtual_tokens\":5,\"token_dim\":4,"
        "\"num_layers\":3,\"num_attention_heads\":1,\"num_transformer_submodules\":1,"
        "\"prefix_projection\":false,\"pedrobench\":{\"options\":{\"init\":\"zero\"},"
        "\"backbone\":{\"hidden_size\":8,\"sha256\":\"abc\"}}}",
        "{\"peft_type\":\"PEDRO\",\"r\":3,\"targets\":[\"q\",\"up\"],\"pooler\":\"mean\","
        "\"activation\":\"rational\",\"pool_site\":\"after\",\"rope\":\"before\","
        "\"prompt_scaled\":false,\"pedrobench\":{\"options\":{\"theta_lr\":0.5}}}"};
    size_t at = 0;
    seed_put(out, cap, &at, texts[variant % 4], strlen(texts[variant % 4]));
    return at;
}

#endif
