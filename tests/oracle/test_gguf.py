"""The same small model as a Hugging Face folder, as GGUF and as a llama2.c checkpoint: the logits
of each against architectures.py with the weights that the file holds."""
import os
import tempfile

import numpy as np

import check

try:
    import torch
except ImportError:
    check.skip("no PyTorch (Debian: python3-torch)")
import architectures as arch
import make_gguf as gguf
import make_model as mk
import make_models as mm

TOLERANCE = 1e-4
# Rows of whole blocks of 32, D not C / H.
SHAPE = dict(vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, head_dim=24, bos_token_id=1,
             eos_token_id=2, pb_tokenizer=mm.NO)
MODELS = {"llama3": {}, "llama-linear": dict(attention_bias=False, mlp_bias=False),
          "smollm": dict(num_attention_heads=8), "mistral-full": dict(num_key_value_heads=4),
          "qwen2": dict(sliding_window=mm.NO), "qwen3": {},
          "gemma": dict(num_key_value_heads=1, head_dim=16),
          "gemma2": dict(query_pre_attn_scalar=24)}
LLAMA2C = dict(SHAPE, head_dim=mm.NO, rms_norm_eps=1e-5)


def stored(w, kind):
    """The weights as a file of this type holds them."""
    if kind == "Q8_0":
        return {k: gguf.quantised(a)[2] if a.ndim == 2 else a for k, a in w.items()}
    rng = np.random.default_rng(0)
    return {k: mm.rounded(rng, a.shape, a, 0, kind) if a.ndim == 2 else a for k, a in w.items()}


def compare(kind, label, path, want, tokens):
    try:
        got = check.run_json("logits", "--model", path, "--tokens", ",".join(map(str, tokens)))
        check.at_most(kind, label, check.max_error(got["logits"], want), TOLERANCE)
    except Exception as e:
        check.ok("%s %s: %s" % (label, kind, e), False)


def logits(conf, w, tokens):
    return arch.Model(None, conf, w).forward(tokens).detach().numpy()


check.versions(torch, np)
check.program()
with tempfile.TemporaryDirectory() as tmp:
    path = os.path.join(tmp, "model.gguf")
    for n, (name, differs) in enumerate(MODELS.items()):
        conf = mm.config(name, **{**SHAPE, **differs})
        exact = mm.weights(arch.settings(conf), np.random.default_rng(n))
        tokens = mk.make_tokens(n, conf["vocab_size"], 80)
        for kind in gguf.TYPES:
            w = stored(exact, kind)
            want = logits(conf, w, tokens)
            compare("GGUF " + kind, name, gguf.to_gguf(
                path, conf, exact if kind == "Q8_0" else w, kind, 64 if n % 2 else 32), want,
                tokens)
            if kind == "Q8_0":
                # Kept as 8-bit integers; the same bits as from the numbers that they stand for.
                got, wide = (check.run_json("logits", "--model", path, "--weights", how, "--tokens",
                                            ",".join(map(str, tokens)))["logits"]
                             for how in ("auto", "fp32"))
                check.ok("%s: other logits in 8 bits than in fp32" % name, got == wide)
                compare("folder", name, mm.write_model(os.path.join(tmp, name), dict(
                    conf, pb_tokenizer="bytes"), w), want, tokens)
    for tied in (False, True):
        conf = mm.config("llama2", **LLAMA2C, tie_word_embeddings=tied)
        w = mm.weights(arch.settings(conf), np.random.default_rng(9))
        tokens = mk.make_tokens(9, conf["vocab_size"], 80)
        for version in (0, 1):
            file = gguf.to_llama2c(os.path.join(tmp, "model.bin"), conf, w, version)
            compare("llama2.c v%d" % version, "tied" if tied else "untied", file,
                    logits(conf, w, tokens), tokens)
check.finish()
