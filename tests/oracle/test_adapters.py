"""Adapters that Python wrote as PEFT does, served by `pedrobench logits`, written again by
`pedrobench convert`, and merged by `pedrobench merge`: all three against architectures.py, which
reads the folders itself. Prints the largest error of each kind."""
import json
import os
import struct
import tempfile

import numpy as np

import check

try:
    import torch
except ImportError:
    check.skip("no PyTorch (Debian: python3-torch)")
import architectures as arch
import make_model as mk
import make_models as mm

TOLERANCE = 1e-4
MODELS = ["llama-linear", "qwen3-bias", "gemma2", "mistral-short"]
MERGED = {"LORA", "IA3", "VERA", "ADALORA"}
# Other kinds of folder are the suite's own.
PEFT_HAS = {"LORA", "IA3", "VERA", "ADALORA", "PREFIX_TUNING", "PROMPT_TUNING"}


def logits(model, tokens, adapter=None):
    return check.run_json("logits", "--model", model, "--tokens", ",".join(map(str, tokens)),
                          *(["--adapter", adapter] if adapter else []))["logits"]


def header(folder):
    with open(os.path.join(folder, "adapter_model.safetensors"), "rb") as f:
        return json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))


def as_peft_has_it(label, folder):
    """What Hugging Face's library would write: the file's order, types and metadata; no key of
    adapter_config.json that PEFT does not have but ours."""
    h = header(folder)
    check.ok(label + ": metadata", h.pop("__metadata__") == {"format": "pt"})
    check.ok(label + ": in order of names", list(h) == sorted(h))
    check.ok(label + ": F32", {e["dtype"] for e in h.values()} == {"F32"})
    with open(os.path.join(folder, "adapter_config.json")) as f:
        conf = json.load(f)
    kind = conf["peft_type"]
    known = set(mm._COMMON) | set(mm._LAYOUT[kind]) | {"peft_type", "pedrobench"}
    known |= {"r", "lora_alpha", "target_modules", "feedforward_modules", "num_virtual_tokens",
              "init_r", "target_r", "token_dim", "num_layers", "num_attention_heads"}
    if kind in PEFT_HAS:
        check.ok("%s: keys %s" % (label, sorted(set(conf) - known)), set(conf) <= known)


def has_biases(c, ad):
    """Whether every linear that BitFit adapts has a bias to add to."""
    return all((c.mlp_bias if t in ("gate", "up", "down") else c.attention_bias and t in c.BIASES)
               for t in mm.ref.LINEARS for i in range(c.num_hidden_layers) if ad.targets(i, t))


def check_adapter(tmp, folder, model, name, seed, tokens):
    theirs = mm.make_adapter(folder + "." + name, folder, name, seed=seed)
    label, ours = os.path.basename(theirs), theirs + "-ours"
    reference = arch.load_adapter(theirs)
    want = model.forward(tokens, reference, len(tokens)).detach().numpy()
    try:
        check.at_most("served", label, check.max_error(logits(folder, tokens, theirs), want),
                      TOLERANCE)
        check.run("convert", theirs, ours, "--base", folder)
        again = arch.load_adapter(ours)
        same = [{k: v.numpy().tobytes() for k, v in a.p.items() if v.numel()}
                for a in (again, reference)]
        check.ok(label + ": the same tensors", same[0] == same[1])
        got = model.forward(tokens, again, len(tokens)).detach().numpy()
        check.at_most("written again", label, check.max_error(got, want), 1e-12)
        as_peft_has_it(label, ours)
        if reference.kind not in MERGED and not (
                reference.kind == "BITFIT" and has_biases(model.c, reference)):
            return
        merged = theirs + "-merged"
        check.run("merge", folder, theirs, merged, "--dtype", "f32")
        check.at_most("merged", label, check.max_error(logits(merged, tokens), want), TOLERANCE)
        check.at_most("merged, by Python", label, check.max_error(
            arch.Model(merged).forward(tokens).detach().numpy(), want), TOLERANCE)
    except Exception as e:
        check.ok("%s: %s" % (label, e), False)


print("PyTorch %s, NumPy %s" % (torch.__version__, np.__version__))
check.program()
with tempfile.TemporaryDirectory() as tmp:
    for n, name in enumerate(MODELS):
        folder = mm.make_model(os.path.join(tmp, name), name, seed=n)
        model = arch.Model(folder)
        for k, adapter in enumerate([*mm.ADAPTERS, *mm.FURTHER]):
            tokens = mk.make_tokens(1000 * n + k, model.c.vocab_size, 30)
            check_adapter(tmp, folder, model, adapter, 100 * n + k, tokens)
check.finish()
