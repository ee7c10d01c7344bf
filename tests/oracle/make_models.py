"""Writes small random models of every supported family and adapters for them, in the layout of
Hugging Face folders, as the comparisons with architectures.py need them: weights so large that soft
caps, norms and windows change the logits by units.

Usage: make_models.py DIR [NAME ...]   writes DIR/NAME, and DIR/NAME.ADAPTER for every adapter
"""
import argparse
import json
import os

import numpy as np

import architectures as arch
import reference as ref

SHAPE = dict(vocab_size=258, hidden_size=40, intermediate_size=72, num_hidden_layers=3,
             num_attention_heads=6, num_key_value_heads=2, head_dim=12,
             max_position_embeddings=512, pb_tokenizer="bytes", bos_token_id=256, eos_token_id=257)
LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
CAPS = dict(attn_logit_softcapping=3.0, final_logit_softcapping=6.0, query_pre_attn_scalar=7)
NO = object()  # the key is not written, its family's default holds

# name: (architecture, what differs in config.json, dtype of the file, number of files)
MODELS = {
    "llama2": ("Llama", dict(num_key_value_heads=NO, head_dim=NO, hidden_size=48,
                             rms_norm_eps=1e-5), "F32", 1),
    "llama3": ("Llama", dict(rope_theta=500.0, rope_scaling=dict(LLAMA3, rope_type="llama3"),
                             head_dim=16, eos_token_id=[257, 5, 6]), "BF16", 3),
    "llama3-parameters": ("Llama", dict(rope_parameters=dict(LLAMA3, rope_type="llama3",
                                                             rope_theta=300.0),
                                        tie_word_embeddings=True), "F16", 1),
    "llama-linear": ("Llama", dict(rope_scaling={"type": "linear", "factor": 4.0},
                                   attention_bias=True, mlp_bias=True), "F32", 2),
    "smollm": ("Llama", dict(num_attention_heads=3, num_key_value_heads=1, head_dim=NO,
                             hidden_size=24, tie_word_embeddings=True), "BF16", 1),
    "mistral": ("Mistral", dict(sliding_window=40, num_key_value_heads=3), "BF16", 2),
    "mistral-short": ("Mistral", dict(sliding_window=7), "F32", 1),
    "mistral-full": ("Mistral", dict(sliding_window=None, num_key_value_heads=NO,
                                     num_attention_heads=8), "F16", 1),
    "qwen2": ("Qwen2", dict(sliding_window=9, tie_word_embeddings=True), "F32", 1),
    "qwen2-window": ("Qwen2", dict(sliding_window=33, use_sliding_window=True,
                                   max_window_layers=1, rope_theta=1e6), "BF16", 1),
    "qwen3": ("Qwen3", dict(tie_word_embeddings=True, head_dim=20), "F32", 2),
    "qwen3-bias": ("Qwen3", dict(attention_bias=True, num_key_value_heads=6, head_dim=NO,
                                 eos_token_id=[257, 3]), "F16", 1),
    "gemma": ("Gemma", dict(num_key_value_heads=1, head_dim=10, hidden_act="gelu"), "F32", 1),
    "gemma2": ("Gemma2", dict(CAPS, sliding_window=33, hidden_activation="gelu_pytorch_tanh"),
               "F32", 1),
    "gemma2-short": ("Gemma2", dict(CAPS, sliding_window=5, query_pre_attn_scalar=20), "BF16", 2),
    "gemma2-uncapped": ("Gemma2", dict(attn_logit_softcapping=None, final_logit_softcapping=None,
                                       sliding_window=16, query_pre_attn_scalar=12,
                                       tie_word_embeddings=False), "F32", 1),
    "gemma2-defaults": ("Gemma2", dict(num_key_value_heads=NO, head_dim=NO, num_hidden_layers=2,
                                       num_attention_heads=8), "F32", 1),
}

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# name: adapter_config.json, on top of what PEFT writes into every folder of the kind.
ADAPTERS = {
    "lora": dict(peft_type="LORA", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
    # With an alpha of 5, PyTorch's own float differs from its double by 1.1e-4 (llama3).
    "lora-all": dict(peft_type="LORA", r=3, lora_alpha=2, use_rslora=True,
                     target_modules="all-linear"),
    "lora-patterns": dict(peft_type="LORA", r=4, lora_alpha=8, target_modules=ALL[:4] + ALL[6:],
                          layers_to_transform=[0, 2],
                          rank_pattern={"layers.2.self_attn.q_proj": 2, "down_proj": 6},
                          alpha_pattern={r"layers\.\d\.self_attn.k_proj": 3, "o_proj": 1}),
    "lora-regex": dict(peft_type="LORA", r=2, lora_alpha=4, use_rslora=True,
                       rank_pattern={r".*\.1\.mlp\.up_proj": 5},
                       target_modules=r".*layers\.[01]\.(self_attn\.(q|o)_proj|mlp\.up_proj)"),
    "ia3": dict(peft_type="IA3", target_modules=["k_proj", "v_proj", "down_proj"],
                feedforward_modules=["down_proj"]),
    "ia3-all": dict(peft_type="IA3", target_modules=ALL, feedforward_modules=["down_proj"]),
    "prefix": dict(peft_type="PREFIX_TUNING", num_virtual_tokens=5),
    "prefix-long": dict(peft_type="PREFIX_TUNING", num_virtual_tokens=37),
    "pedro": dict(peft_type="PEDRO", targets=["q", "v", "up"], r=4, pooler="last",
                  activation="rational", pool_site="after", rope="before", prompt_scaled=True),
}
# More of them, for test_adapters.py and test_autograd.py.
FURTHER = {
    "dora": dict(peft_type="LORA", r=4, lora_alpha=8, use_dora=True,
                 target_modules=["q_proj", "v_proj", "down_proj"]),
    "dora-all": dict(peft_type="LORA", r=3, lora_alpha=1, use_dora=True, use_rslora=True,
                     target_modules="all-linear", rank_pattern={"layers.1.mlp.up_proj": 2}),
    "lora-exclude": dict(peft_type="LORA", r=3, lora_alpha=6, target_modules="all-linear",
                         exclude_modules=["k_proj", "mlp.down_proj"]),
    "adalora": dict(peft_type="ADALORA", init_r=6, target_r=4, lora_alpha=3,
                    target_modules="all-linear"),
    "adalora-pruned": dict(
        peft_type="ADALORA", init_r=4, target_r=2, lora_alpha=8,
        target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"model.layers.0.self_attn.q_proj.lora_E": [True, False, True, False],
                      "model.layers.1.mlp.down_proj.lora_E": [False] * 4,
                      "model.layers.2.self_attn.v_proj.lora_E": [False, True, True, True]}),
    "vera": dict(peft_type="VERA", r=6, target_modules=["q_proj", "v_proj", "down_proj"]),
    "vera-seed": dict(peft_type="VERA", r=9, target_modules="all-linear", save_projection=False,
                      projection_prng_key=123),
    "ia3-inputs": dict(peft_type="IA3", target_modules=ALL,
                       feedforward_modules=["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj"]),
    "iapt": dict(peft_type="IAPT", r=5, num_virtual_tokens=4, pooler="attention",
                 activation="rational", shared=True),
    "prompt": dict(peft_type="PROMPT_TUNING", num_virtual_tokens=6),
    "prompt-long": dict(peft_type="PROMPT_TUNING", num_virtual_tokens=35),
    "bitfit": dict(peft_type="BITFIT", target_modules=ALL),
    "bitfit-some": dict(peft_type="BITFIT", target_modules=["q_proj", "layers.1.self_attn.k_proj"]),
    "houlsby": dict(peft_type="HOULSBY", bottleneck=6, activation="gelu", where="both"),
    "pfeiffer": dict(peft_type="HOULSBY", bottleneck=3, activation="silu", where="ffn"),
    "parallel": dict(peft_type="PARALLEL_ADAPTER", bottleneck=5, activation="relu", where="both",
                     scale=0.5),
    "ia3-regex": dict(peft_type="IA3", feedforward_modules=r".*layers\.1\.mlp.*",
                      target_modules=r".*layers\.[12]\.(self_attn\.[kv]|mlp\.(gate|down))_proj"),
}
_COMMON = dict(auto_mapping=None, base_model_name_or_path="", inference_mode=True, revision=None,
               task_type="CAUSAL_LM")
_LAYOUT = {
    "LORA": dict(alpha_pattern={}, bias="none", corda_config=None, eva_config=None,
                 exclude_modules=None, fan_in_fan_out=False, init_lora_weights=True,
                 layer_replication=None, layers_pattern=None, layers_to_transform=None,
                 loftq_config={}, lora_bias=False, lora_dropout=0.05, megatron_config=None,
                 megatron_core="megatron.core", modules_to_save=None, rank_pattern={},
                 trainable_token_indices=None, use_dora=False, use_rslora=False),
    "ADALORA": dict(alpha_pattern={}, beta1=0.85, beta2=0.85, bias="none", corda_config=None,
                    deltaT=1, eva_config=None, exclude_modules=None, fan_in_fan_out=False,
                    init_lora_weights=True, layer_replication=None, layers_pattern=None,
                    layers_to_transform=None, loftq_config={}, lora_bias=False, lora_dropout=0.0,
                    megatron_config=None, megatron_core="megatron.core", modules_to_save=None,
                    orth_reg_weight=0.5, r=8, rank_pattern=None, tfinal=200, tinit=100,
                    total_step=1000, trainable_token_indices=None, use_dora=False,
                    use_rslora=False),
    "VERA": dict(bias="none", d_initial=0.1, fan_in_fan_out=False, init_weights=True,
                 layers_pattern=None, layers_to_transform=None, modules_to_save=None,
                 projection_prng_key=0, save_projection=True, vera_dropout=0.0),
    "IA3": dict(exclude_modules=None, fan_in_fan_out=False, init_ia3_weights=True,
                modules_to_save=None),
    "PREFIX_TUNING": dict(encoder_hidden_size=None, num_transformer_submodules=1,
                          prefix_projection=False),
    "PROMPT_TUNING": dict(num_transformer_submodules=1, prompt_tuning_init="RANDOM",
                          prompt_tuning_init_text=None, tokenizer_kwargs=None,
                          tokenizer_name_or_path=None),
    "PEDRO": {}, "IAPT": {}, "BITFIT": {}, "HOULSBY": {}, "PARALLEL_ADAPTER": {},
}


def rounded(rng, shape, mean, sd, dtype="F32"):
    """Gaussian, rounded to dtype, never exactly zero."""
    a = rng.normal(mean, sd, shape).astype(np.float32)
    a[a == 0] = 1e-3
    if dtype == "BF16":  # to nearest, ties aside
        a = ((a.view(np.uint32) + 0x8000) & np.uint32(0xffff0000)).view(np.float32)
    return (a.astype(np.float16) if dtype == "F16" else a).astype(np.float64)


def weights(c, rng, dtype="F32"):
    """{name: array} of a random model for the settings c."""
    def normal(shape, sd, mean=0.0):
        return rounded(rng, shape, mean, sd, dtype)
    C, g = c.hidden_size, 1 - c.NORM_OFFSET
    w = {"model.embed_tokens.weight": normal((c.vocab_size, C), 0.5),
         "model.norm.weight": normal(C, 0.3, g)}
    for i in range(c.num_hidden_layers):
        layer = "model.layers.%d." % i
        norms = ["input", "post_attention"]
        if c.SANDWICH:
            norms += ["pre_feedforward", "post_feedforward"]
        for n in norms:
            w[layer + n + "_layernorm.weight"] = normal(C, 0.3, g)
        if c.HEAD_NORMS:
            for t in "qk":
                w[layer + "self_attn.%s_norm.weight" % t] = normal(c.D, 0.4, 1.3)
        for t, name in ref.LINEARS.items():
            gain = 1.5 if t in "qk" else 1.0
            w[layer + name + ".weight"] = normal((c.out[t], c.inp[t]), gain * c.inp[t] ** -0.5)
            if c.mlp_bias if name.startswith("mlp") else c.attention_bias and t in c.BIASES:
                w[layer + name + ".bias"] = normal(c.out[t], 0.4)
    if not c.tie_word_embeddings:
        w["lm_head.weight"] = normal((c.vocab_size, C), 3 * C ** -0.5)
    return w


def config(name, **more):
    family, differs = MODELS[name][0], dict(MODELS[name][1], **more)
    conf = dict(SHAPE, architectures=[family + "ForCausalLM"], model_type=family.lower())
    conf.update(differs)
    return {k: v for k, v in conf.items() if v is not NO}


def write_model(folder, conf, w, dtype="F32", files=1):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(dict(conf, torch_dtype={"F32": "float32", "F16": "float16",
                                          "BF16": "bfloat16"}[dtype]), f, indent=1)
    dtypes, names = {k: dtype for k in w}, list(w)
    if files == 1:
        ref.write_safetensors(os.path.join(folder, "model.safetensors"), w, dtypes)
        return folder
    index = {"metadata": {"total_size": sum(len(ref.raw_bytes(a, dtype)) for a in w.values())},
             "weight_map": {}}
    for n in range(files):
        file = "model-%05d-of-%05d.safetensors" % (n + 1, files)
        part = names[n::files]  # a layer's tensors are not all in one file
        ref.write_safetensors(os.path.join(folder, file), {k: w[k] for k in part}, dtypes)
        index["weight_map"].update({k: file for k in part})
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump(index, f, indent=1)
    return folder


def make_model(folder, name, seed=1, **more):
    """One of MODELS. Returns its folder."""
    conf, (_, _, dtype, files) = config(name, **more), MODELS[name]
    w = weights(arch.settings(conf), np.random.default_rng(seed), dtype)
    return write_model(folder, conf, w, dtype, files)


def make_adapter(folder, model, name, seed=2):
    """One of ADAPTERS or FURTHER for the model in the folder `model`. Returns its folder."""
    with open(os.path.join(model, "config.json")) as f:
        c = arch.settings(json.load(f))
    rng, w = np.random.default_rng(seed), {}
    conf = ADAPTERS.get(name) or FURTHER[name]
    kind = conf["peft_type"]
    conf = {**_COMMON, **_LAYOUT[kind], **conf}
    ad, wide_in, wide_out = arch.Adapter(conf, w), 0, 0
    for i in range(c.num_hidden_layers):
        layer = "base_model.model.model.layers.%d." % i
        for t, linear in ref.LINEARS.items():
            if kind not in ("LORA", "IA3", "VERA", "ADALORA", "BITFIT") or not ad.targets(i, t):
                continue
            key = layer + linear
            if kind == "BITFIT":
                w[key + ".bitfit_b"] = rounded(rng, (1, c.out[t]), 0, 0.3)
                continue
            if kind == "ADALORA":
                name = "model.layers.%d.%s.lora_E" % (i, linear)
                r = sum((conf["rank_pattern"] or {}).get(name, [True] * conf["init_r"]))
                w[key + ".lora_A"] = rounded(rng, (r, c.inp[t]), 0, c.inp[t] ** -0.5)
                w[key + ".lora_E"] = rounded(rng, (r, 1), 0, 0.7)
                w[key + ".lora_B"] = rounded(rng, (c.out[t], r), 0, 0.3)
                continue
            if kind == "VERA":
                w[key + ".vera_lambda_d"] = rounded(rng, (conf["r"],), 0.1, 0.3)
                w[key + ".vera_lambda_b"] = rounded(rng, (c.out[t],), 0, 0.4)
                wide_in, wide_out = max(wide_in, c.inp[t]), max(wide_out, c.out[t])
                continue
            if kind == "LORA":
                r, _ = ad.rank_alpha(i, t)
                w[key + ".lora_A.weight"] = rounded(rng, (r, c.inp[t]), 0, c.inp[t] ** -0.5)
                w[key + ".lora_B.weight"] = rounded(rng, (c.out[t], r), 0, 0.2)
                if conf["use_dora"]:
                    w[key + ".lora_magnitude_vector"] = rounded(rng, (c.out[t],), 1, 0.2)
            else:
                inside = ad.is_feedforward(i, t)
                shape = (1, c.inp[t]) if inside else (c.out[t], 1)
                w[key + ".ia3_l"] = rounded(rng, shape, 1, 0.3)
        for block in ("self_attn", "mlp"):
            if kind not in ("HOULSBY", "PARALLEL_ADAPTER") or (
                    conf["where"] == "ffn" and block != "mlp"):
                continue
            b, C, key = conf["bottleneck"], c.hidden_size, layer + block + ".adapter."
            w[key + "down.weight"] = rounded(rng, (b, C), 0, C ** -0.5)
            w[key + "down.bias"] = rounded(rng, (1, b), 0, 0.2)
            w[key + "up.weight"] = rounded(rng, (C, b), 0, 0.2)
            w[key + "up.bias"] = rounded(rng, (1, C), 0, 0.1)
        if kind == "PEDRO":
            r, n = conf["r"], sum(c.out[t] for t in conf["targets"])
            w[layer + "pedro.down.weight"] = rounded(rng, (r, c.hidden_size), 0,
                                                     c.hidden_size ** -0.5)
            w[layer + "pedro.up.weight"] = rounded(rng, (n, r), 0, 0.2)
            w[layer + "pedro.rational.a"] = rounded(
                rng, (1, 7), [[0, 0.5, 0.3, 0.05, 0.02, 0.01, 0.005]], 0.05)
            w[layer + "pedro.rational.b"] = rounded(rng, (1, 5), 0, 0.1)
        if kind == "IAPT":
            w[layer + "iapt.pool.weight"] = rounded(rng, (1, conf["r"]), 0, 1)
            w[layer + "iapt.rational.a"] = rounded(
                rng, (1, 7), [[0, 0.5, 0.3, 0.05, 0.02, 0.01, 0.005]], 0.05)
            w[layer + "iapt.rational.b"] = rounded(rng, (1, 5), 0, 0.1)
    if kind == "IAPT":
        n = 2 * conf["num_virtual_tokens"] * c.kv_heads * c.D
        w["iapt.down.weight"] = rounded(rng, (conf["r"], c.hidden_size), 0, c.hidden_size ** -0.5)
        w["iapt.up.weight"] = rounded(rng, (n, conf["r"]), 0, 0.6)
    if kind == "VERA" and conf["save_projection"]:
        w["base_model.vera_A"] = rounded(rng, (conf["r"], wide_in), 0, 0.3)
        w["base_model.vera_B"] = rounded(rng, (wide_out, conf["r"]), 0, 0.5)
    if kind == "PREFIX_TUNING":
        P, kv = conf["num_virtual_tokens"], c.kv_heads * c.D
        conf.update(token_dim=kv, num_layers=c.num_hidden_layers, num_attention_heads=c.kv_heads)
        w["prompt_embeddings"] = rounded(rng, (P, c.num_hidden_layers * 2 * kv), 0, 0.8)
    if kind == "PROMPT_TUNING":
        P, C = conf["num_virtual_tokens"], c.hidden_size
        conf.update(token_dim=C, num_layers=c.num_hidden_layers,
                    num_attention_heads=c.num_attention_heads)
        w["prompt_embeddings"] = rounded(rng, (P, C), 0, 0.5)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "adapter_config.json"), "w") as f:
        json.dump(conf, f, indent=1)
    ref.write_safetensors(os.path.join(folder, "adapter_model.safetensors"), w)
    return folder


def main():
    ap = argparse.ArgumentParser(description="write small random models of several families")
    ap.add_argument("folder")
    ap.add_argument("names", nargs="*", default=list(MODELS))
    a = ap.parse_args()
    for name in a.names:
        model = make_model(os.path.join(a.folder, name), name)
        for ad in ADAPTERS:
            make_adapter(os.path.join(a.folder, name + "." + ad), model, ad)


if __name__ == "__main__":
    main()
