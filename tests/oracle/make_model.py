"""Writes small random models and adapters (Hugging Face and PEFT folder layout, F32), every value
non-zero, and lists the shapes and methods that the comparisons with the C program go through.

Usage: make_model.py DIR [--shape gqa] [--seed 1] [--adapter KIND ...]   writes DIR/model, DIR/KIND
"""
import argparse
import json
import os

import numpy as np

import reference as ref

# vocab, width, ffn, layers, heads, kv_heads, head_dim, tied, bias; then what else differs.
_FIELDS = "vocab width ffn layers heads kv_heads head_dim tied bias".split()
_SHAPES = {
    "tiny": (11, 8, 10, 2, 4, 2, 2, False, True, {}),
    "gqa": (37, 24, 40, 2, 4, 2, 6, False, False, {}),
    "mqa_tied_bytes": (258, 32, 48, 3, 4, 1, 8, True, False, {}),
    "mha_bias": (50, 24, 56, 2, 3, 3, 8, False, True, {"rope_theta": 500000.0}),
    "wide_heads_gelu": (41, 20, 36, 2, 2, 1, 16, True, True, {"act": "gelu_pytorch_tanh"}),
    "odd": (101, 33, 17, 1, 5, 5, 2, False, False, {"rms_norm_eps": 1e-3, "rope_theta": 500.0}),
    "larger": (300, 64, 172, 3, 8, 4, 8, True, False, {}),
}
SHAPES = {k: dict(zip(_FIELDS, s), **s[-1]) for k, s in _SHAPES.items()}

_PEDRO = {"targets": ["q", "v", "up"]}
# name: (peft_type, options). Options not named take the default of the method.
METHODS = {
    "lora": ("LORA", {"targets": ["q", "v"], "r": 3}),
    "lora_all_rs": ("LORA", {"targets": list(ref.LINEARS), "r": 2, "use_rslora": True}),
    "ia3": ("IA3", {"targets": ["k", "v", "down"]}),
    "ia3_all": ("IA3", {"targets": list(ref.LINEARS)}),
    "ia3_reparam": ("IA3", {"targets": ["k", "v", "down"], "reparam": 3}),
    "bitfit": ("BITFIT", {"targets": list(ref.LINEARS)}),
    "bitfit_reparam": ("BITFIT", {"targets": ["q", "v", "down"], "reparam": 3}),
    "houlsby": ("HOULSBY", {"bottleneck": 5, "activation": "gelu", "where": "both"}),
    "pfeiffer": ("HOULSBY", {"bottleneck": 3, "activation": "silu", "where": "ffn"}),
    "parallel": ("PARALLEL_ADAPTER", {"bottleneck": 5, "activation": "relu", "where": "both",
                                      "scale": 1.0}),
    "parallel_ffn": ("PARALLEL_ADAPTER", {"bottleneck": 4, "activation": "tanh", "where": "ffn",
                                          "scale": 4.0}),
    "prompt": ("PROMPT_TUNING", {"length": 5}),
    "prompt_long": ("PROMPT_TUNING", {"length": 33}),
    "iapt": ("IAPT", {"length": 4, "pooler": "attention", "activation": "rational",
                      "shared": True}),
    "iapt_own_mean_tanh": ("IAPT", {"length": 3, "pooler": "mean", "activation": "tanh",
                                    "shared": False}),
    "prefix": ("PREFIX_TUNING", {"length": 4}),
    "prefix_mlp": ("PREFIX_TUNING", {"length": 3, "mlp": 7}),  # hidden width
    "pedro": ("PEDRO", _PEDRO),
    "pedro_mean_relu": ("PEDRO", dict(_PEDRO, pooler="mean", activation="relu")),
    "pedro_max_gelu": ("PEDRO", dict(_PEDRO, pooler="max", activation="gelu")),
    "pedro_attention_silu": ("PEDRO", dict(_PEDRO, pooler="attention", activation="silu")),
    "pedro_before_tanh": ("PEDRO", dict(_PEDRO, pool_site="before", activation="tanh")),
    "pedro_after_rope": ("PEDRO", dict(_PEDRO, rope="after", activation="identity")),
    "pedro_response_only": ("PEDRO", dict(_PEDRO, prompt_scaled=False, pooler="mean")),
    "pedro_all": ("PEDRO", dict(_PEDRO, targets=list(ref.LINEARS), pooler="attention")),
}


def _normal(rng, shape, sd):
    """Gaussian, rounded to F32, never exactly zero."""
    return (rng.normal(0, sd, shape) + 1e-6).astype(np.float32).astype(np.float64)


def _write(folder, name, conf, file, tensors):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "w") as f:
        json.dump(conf, f, indent=1)
    ref.write_safetensors(os.path.join(folder, file), tensors)
    return folder


def model_config(s):
    arch = "Qwen2ForCausalLM" if s["bias"] else "LlamaForCausalLM"  # Qwen2: biases on q, k, v only
    j = {"architectures": [arch], "model_type": arch[:5].lower(), "vocab_size": s["vocab"],
         "hidden_size": s["width"], "intermediate_size": s["ffn"], "num_hidden_layers": s["layers"],
         "num_attention_heads": s["heads"], "num_key_value_heads": s["kv_heads"],
         "head_dim": s["head_dim"], "max_position_embeddings": 512,
         "rms_norm_eps": s.get("rms_norm_eps", 1e-5), "rope_theta": s.get("rope_theta", 10000.0),
         "tie_word_embeddings": s["tied"], 
         "hidden_act": s.get("act", "silu"), "torch_dtype": "float32",
         "bos_token_id": 1, "eos_token_id": 2}
    if s["vocab"] == 258:
        j.update(pb_tokenizer="bytes", bos_token_id=256, eos_token_id=257)
    return j


def make_model(folder, seed, **shape):
    """A random backbone; biases (q, k, v only) when `bias`. Returns the folder."""
    rng, j = np.random.default_rng(seed), model_config(shape)
    c, w = ref.Config(j), {}
    w[ref.EMBED] = _normal(rng, (c.vocab, c.width), 0.7)
    for i in range(c.layers):
        for name in (ref.NORM_ATTN, ref.NORM_FFN):
            w[name.format(i=i)] = 1 + _normal(rng, c.width, 0.2)
        for t, linear in ref.LINEARS.items():
            at = {"i": i, "linear": linear}
            w[ref.LINEAR.format(**at)] = _normal(rng, (c.out[t], c.inp[t]), c.inp[t] ** -0.5)
            if shape["bias"] and t in "qkv":
                w[ref.BIAS.format(**at)] = _normal(rng, c.out[t], 0.3)
    w[ref.NORM] = 1 + _normal(rng, c.width, 0.2)
    if not c.tied:
        w[ref.HEAD] = _normal(rng, (c.vocab, c.width), c.width ** -0.5)
    return _write(folder, "config.json", j, "model.safetensors", w)


def adapter_files(c, seed, kind, **opt):
    """(adapter_config, {key: array}) of a random adapter for the Config c."""
    rng, w = np.random.default_rng(seed), {}
    conf = {"peft_type": kind, "task_type": "CAUSAL_LM", "base_model_name_or_path": "",
            "inference_mode": True}
    targets = opt.get("targets", [])
    modules = [ref.LINEARS[t].split(".")[-1] for t in targets]
    keys = [(i, t, {"i": i, "linear": ref.LINEARS[t]}) for i in range(c.layers) for t in targets]
    if kind == "LORA":
        r = opt["r"]
        conf.update(r=r, lora_alpha=2 * r, lora_dropout=0.0, bias="none", fan_in_fan_out=False,
                    use_rslora=opt.get("use_rslora", False), target_modules=modules)
        for _, t, at in keys:
            w[ref.LORA_A.format(**at)] = _normal(rng, (r, c.inp[t]), c.inp[t] ** -0.5)
            w[ref.LORA_B.format(**at)] = _normal(rng, (c.out[t], r), 0.2)
    elif kind == "IA3":
        conf.update(target_modules=modules, fan_in_fan_out=False,
                    feedforward_modules=[m for m in modules if m == "down_proj"])
        for _, t, at in keys:
            n, r = (c.inp if t == "down" else c.out)[t], opt.get("reparam")
            if r:
                w[ref.IA3_V.format(**at)] = _normal(rng, (1, r), 0.5)
                w[ref.IA3_W.format(**at)] = _normal(rng, (r, n), 0.4)
            else:
                shape = (1, n) if t == "down" else (n, 1)
                w[ref.IA3_L.format(**at)] = 1 + _normal(rng, shape, 0.3)
        if opt.get("reparam"):
            conf["reparam_dim"] = opt["reparam"]
    elif kind == "BITFIT":
        conf.update(target_modules=modules)
        for _, t, at in keys:
            r = opt.get("reparam")
            if r:
                w[ref.BITFIT_V.format(**at)] = _normal(rng, (1, r), 0.5)
                w[ref.BITFIT_W.format(**at)] = _normal(rng, (r, c.out[t]), 0.4)
            else:
                w[ref.BITFIT_B.format(**at)] = _normal(rng, (1, c.out[t]), 0.3)
    elif kind in ("HOULSBY", "PARALLEL_ADAPTER"):
        conf.update(opt)
        b, C = opt["bottleneck"], c.width
        for i in range(c.layers):
            for block in {"both": ["self_attn", "mlp"], "ffn": ["mlp"]}[opt["where"]]:
                for part, shape, sd in (("down.weight", (b, C), C ** -0.5), ("down.bias", (1, b), 0.2),
                                        ("up.weight", (C, b), 0.3), ("up.bias", (1, C), 0.1)):
                    w[ref.BOTTLENECK.format(i=i, block=block, part=part)] = _normal(rng, shape, sd)
    elif kind == "PREFIX_TUNING":
        P, kv = opt["length"], c.kv_heads * c.head_dim
        n = c.layers * 2 * kv
        conf.update(num_virtual_tokens=P, token_dim=kv, num_layers=c.layers,
                    num_attention_heads=c.kv_heads, num_transformer_submodules=1,
                    prefix_projection="mlp" in opt, encoder_hidden_size=opt.get("mlp", kv))
        if "mlp" in opt:
            H = opt["mlp"]
            E = c.width
            for name, shape, sd in (("embedding", (P, E), 1.0), ("W1", (H, E), E ** -0.5),
                                    ("b1", (1, H), 0.2)):
                w[ref.PREFIX_MLP[name]] = _normal(rng, shape, sd)
            for i in range(c.layers):
                w[ref.PREFIX_W2.format(i=i)] = _normal(rng, (2 * kv, H), H ** -0.5)
                w[ref.PREFIX_B2.format(i=i)] = _normal(rng, (1, 2 * kv), 0.2)
        else:
            w[ref.PREFIX] = _normal(rng, (P, n), 0.8)
    elif kind == "PROMPT_TUNING":
        conf.update(num_virtual_tokens=opt["length"], token_dim=c.width, num_layers=c.layers,
                    num_attention_heads=c.heads, num_transformer_submodules=1,
                    prompt_tuning_init="RANDOM")
        w[ref.PROMPT] = _normal(rng, (opt["length"], c.width), 0.7)
    elif kind == "IAPT":
        r, n = 4, 2 * opt["length"] * c.kv_heads * c.head_dim
        conf.update({k: v for k, v in opt.items() if k != "length"}, r=r,
                    num_virtual_tokens=opt["length"])
        for i in range(c.layers):
            at = {name: key.format(i=i) for name, key in ref.IAPT.items()}
            if opt["shared"]:
                at.update({name: "iapt." + name for name in ("down.weight", "up.weight")})
            w[at["down.weight"]] = _normal(rng, (r, c.width), c.width ** -0.5)
            w[at["up.weight"]] = _normal(rng, (n, r), 0.8)
            if opt["pooler"] == "attention":
                w[at["pool.weight"]] = _normal(rng, (1, r), 1.0)
            if opt["activation"] == "rational":
                w[at["rational.a"]] = _normal(rng, (1, 7), 0.05) + np.array(
                    [[0, 0.5, 0.3, 0.05, 0.02, 0.01, 0.005]])
                w[at["rational.b"]] = _normal(rng, (1, 5), 0.1)
    elif kind == "PEDRO":
        r, n = opt.get("r", 4), sum(c.out[t] for t in targets)
        conf.update(ref.PEDRO_DEFAULTS, r=r)
        conf.update({k: v for k, v in opt.items() if k != "r"})
        for i in range(c.layers):
            w[ref.PEDRO_DOWN.format(i=i)] = _normal(rng, (r, c.width), c.width ** -0.5)
            w[ref.PEDRO_UP.format(i=i)] = _normal(rng, (n, r), 0.3)
            if conf["pooler"] == "attention":
                w[ref.PEDRO_POOL.format(i=i)] = _normal(rng, (1, c.width), 1.0)
            if conf["activation"] == "rational":  # near x/2 + x^2/4: of GELU's shape
                w[ref.PEDRO_A.format(i=i)] = _normal(rng, (1, 7), 0.05) + np.array(
                    [[0, 0.5, 0.3, 0.05, 0.02, 0.01, 0.005]])
                w[ref.PEDRO_B.format(i=i)] = _normal(rng, (1, 5), 0.1)
    else:
        raise ValueError("unknown peft_type %r" % kind)
    conf.update(_own(opt))
    return conf, w


def _own(opt):
    """What PEFT has no keys for: the forms that are trained and not yet folded."""
    own = {}
    if opt.get("reparam"):
        own["rank"] = opt["reparam"]
    if opt.get("mlp"):
        own.update(mlp=opt["mlp"], init="random")
    return {"pedrobench": {"options": own}} if own else {}


def make_adapter(folder, model, seed, kind, **opt):
    """A random adapter for the model in the folder `model`. Returns its folder."""
    with open(os.path.join(model, "config.json")) as f:
        conf, w = adapter_files(ref.Config(json.load(f)), seed, kind, **opt)
    return _write(folder, "adapter_config.json", conf, "adapter_model.safetensors", w)


def make_tokens(seed, vocab, n):
    return np.random.default_rng(seed).integers(0, vocab, n).tolist()


def cases(folder, methods=METHODS):
    """Yields (label, model folder, adapter folder or None, tokens, prompt length): every method on
    every shape but the tiny one, lengths and prompts varying, one long sequence."""
    lengths = [(12, 5), (9, 1), (17, 16), (30, 11), (14, 7)]
    for n, (name, shape) in enumerate((k, s) for k, s in SHAPES.items() if k != "tiny"):
        model = make_model(os.path.join(folder, name), n, **shape)
        for m, method in enumerate([None] + list(methods)):
            T, N = lengths[(n + m) % len(lengths)]
            if name == "larger" and method in (None, "lora", "pedro", "pedro_attention_silu"):
                T, N = 150, 90
            adapter = None
            if method:
                kind, opt = methods[method]
                if not opt.get("prompt_scaled", True):
                    N = min(N, T - 4)  # the first scaled row must carry loss
                adapter = make_adapter(os.path.join(folder, name + "." + method), model,
                                       100 * n + m, kind, **opt)
            label = "%s/%s T=%d N=%d" % (name, method or "none", T, N)
            yield label, model, adapter, make_tokens(1000 * n + m, shape["vocab"], T), N


def main():
    ap = argparse.ArgumentParser(description="write a small random model and adapters")
    ap.add_argument("folder")
    ap.add_argument("--shape", choices=SHAPES, default="gqa")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--adapter", choices=METHODS, nargs="*", default=[])
    for f in _FIELDS:  # any field of the shape may be given
        ap.add_argument("--" + f.replace("_", "-"), type=int)
    a = ap.parse_args()
    shape = dict(SHAPES[a.shape])
    shape.update({f: type(shape[f])(getattr(a, f)) for f in _FIELDS if getattr(a, f) is not None})
    model = make_model(os.path.join(a.folder, "model"), a.seed, **shape)
    for n, name in enumerate(a.adapter):
        kind, opt = METHODS[name]
        make_adapter(os.path.join(a.folder, name), model, a.seed + 1 + n, kind, **opt)


if __name__ == "__main__":
    main()
