// The sizes are those of the models' published config.json files (llama2.c's: of its training
// arguments in the checkpoints' headers).
#include "model/presets.h"

#include <stdio.h>
#include <string.h>

#define SIZES(vocab, width, ffn, layers, heads, kv, context)                                       \
    "\"vocab_size\":" #vocab ",\"hidden_size\":" #width ",\"intermediate_size\":" #ffn             \
    ",\"num_hidden_layers\":" #layers ",\"num_attention_heads\":" #heads                           \
    ",\"num_key_value_heads\":" #kv ",\"max_position_embeddings\":" #context
#define IDS(bos, eos) ",\"bos_token_id\":" #bos ",\"eos_token_id\":" #eos
#define LLAMA         "{\"model_type\":\"llama\",\"rms_norm_eps\":1e-05,"
#define TIED          ",\"tie_word_embeddings\":true"

const pb_preset pb_presets[] = {
    {"llama2-7b", "meta-llama/Llama-2-7b-hf",
     LLAMA SIZES(32000, 4096, 11008, 32, 32, 32, 4096) IDS(1, 2) "}"},
    {"llama2-13b", "meta-llama/Llama-2-13b-hf",
     LLAMA SIZES(32000, 5120, 13824, 40, 40, 40, 4096) IDS(1, 2) "}"},
    {"llama3-8b", "meta-llama/Meta-Llama-3-8B",
     LLAMA SIZES(128256, 4096, 14336, 32, 32, 8, 8192)
         IDS(128000, 128001) ",\"rope_theta\":500000.0}"},
    {"llama3.2-1b", "meta-llama/Llama-3.2-1B",
     LLAMA SIZES(128256, 2048, 8192, 16, 32, 8, 131072) IDS(128000, 128001) TIED
     ",\"head_dim\":64,\"rope_theta\":500000.0,\"rope_scaling\":"
     "{\"rope_type\":\"llama3\",\"factor\":32.0,"
     "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
     "\"original_max_position_embeddings\":8192}}"},
    {"mistral-7b", "mistralai/Mistral-7B-v0.1",
     "{\"model_type\":\"mistral\",\"rms_norm_eps\":1e-05,\"sliding_window\":4096," SIZES(
         32000, 4096, 14336, 32, 32, 8, 32768) IDS(1, 2) "}"},
    {"gemma-2b", "google/gemma-2b",
     "{\"model_type\":\"gemma\",\"rms_norm_eps\":1e-06,\"head_dim\":256,"
     "\"hidden_activation\":\"gelu_pytorch_tanh\"," SIZES(256000, 2048, 16384, 18, 8, 1, 8192)
         IDS(2, 1) TIED "}"},
    {"gemma2-2b", "google/gemma-2-2b",
     "{\"model_type\":\"gemma2\",\"rms_norm_eps\":1e-06,\"head_dim\":256,"
     "\"hidden_activation\":\"gelu_pytorch_tanh\",\"query_pre_attn_scalar\":256,"
     "\"attn_logit_softcapping\":50.0,\"final_logit_softcapping\":30.0,\"sliding_window\":"
     "4096," SIZES(256000, 2304, 9216, 26, 8, 4, 8192) IDS(2, 1) TIED "}"},
    {"qwen2-0.5b", "Qwen/Qwen2-0.5B",
     "{\"model_type\":\"qwen2\",\"rms_norm_eps\":1e-06,\"rope_theta\":1000000.0,"
     "\"use_sliding_window\":false," SIZES(151936, 896, 4864, 24, 14, 2, 131072) IDS(151643, 151643)
         TIED "}"},
    {"qwen3-0.6b", "Qwen/Qwen3-0.6B",
     "{\"model_type\":\"qwen3\",\"rms_norm_eps\":1e-06,\"rope_theta\":1000000.0,"
     "\"head_dim\":128,\"use_sliding_window\":false," SIZES(151936, 1024, 3072, 28, 16, 8, 40960)
         IDS(151643, 151645) TIED "}"},
    {"tinyllama", "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T",
     LLAMA SIZES(32000, 2048, 5632, 22, 32, 4, 2048) IDS(1, 2) "}"},
    {"smollm-135m", "HuggingFaceTB/SmolLM-135M",
     LLAMA SIZES(49152, 576, 1536, 30, 9, 3, 2048) IDS(0, 0) TIED "}"},
    {"stories15m", "karpathy/tinyllamas, stories15M",
     LLAMA SIZES(32000, 288, 768, 6, 6, 6, 256) IDS(1, 2) TIED "}"},
    {"stories110m", "karpathy/tinyllamas, stories110M",
     LLAMA SIZES(32000, 768, 2048, 12, 12, 12, 1024) IDS(1, 2) TIED "}"},
    {NULL, NULL, NULL}};

pb_err pb_preset_find(json_t **out, const char *name)
{
    char known[512];
    size_t at = 0;
    for (const pb_preset *p = pb_presets; p->name; p++) {
        if (strcmp(p->name, name) == 0)
            return pb_json_parse(out, p->config, strlen(p->config), p->name);
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", at ? ", " : "known are ",
                               p->name);
    }
    return pb_fail(PB_USAGE, known, "there is no preset \"%.100s\"", name);
}
