"""Writes a model folder (config.json, tensors) as GGUF version 3 or as a llama2.c checkpoint, the
way their converters do: other names, rows of q and k in interleaved order where the reader turns
neighbours, Gemma's norms with the 1 added, LLaMA-3's frequency divisors as a tensor. The file format
is paper/peers/gguf.py's.

Sources: llama.cpp's tensor names; karpathy/llama2.c, export.py.

Usage: make_gguf.py FOLDER FILE [--type F32|F16|BF16|Q8_0]
"""
import argparse
import os
import struct
import sys

import numpy as np

import architectures as arch
import reference as ref

sys.path.append(os.path.join(os.path.dirname(__file__), "../../paper/peers"))
import gguf
from gguf import TYPES, quantised

NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
NORMS = {False: {"post_attention_layernorm": "ffn_norm"},
         True: {"post_attention_layernorm": "post_attention_norm",
                "pre_feedforward_layernorm": "ffn_norm",
                "post_feedforward_layernorm": "post_ffw_norm"}}
ARCHS = {"Llama": "llama", "Mistral": "llama", "Qwen2": "qwen2", "Qwen3": "qwen3", "Gemma": "gemma",
         "Gemma2": "gemma2"}


def write_gguf(path, keys, tensors, alignment=32):
    """keys {name: value}; tensors {name: (array, type)}."""
    return gguf.write(path, keys, {name: (np.shape(a), kind, lambda a=a: a)
                                   for name, (a, kind) in tensors.items()}, alignment)


def interleaved(a, heads):
    """Row i of a head's first half to 2i, row i of its second half to 2i + 1."""
    return a.reshape(heads, 2, len(a) // heads // 2, -1).swapaxes(1, 2).reshape(a.shape)


def vocabulary(n):
    """Keys of a SentencePiece tokenizer: unknown, BOS, EOS, 256 bytes, then letters and made-up
    pieces."""
    tokens = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % i for i in range(256)]
    tokens += ["\u2581"] + [chr(ord("a") + i) for i in range(26)]
    tokens += ["\u2581%s%s" % (a, b) for a in "tasw" for b in "abcdefghijklmnop"]
    assert len(tokens) >= n > 259
    kinds = [2, 3, 3] + [6] * 256 + [1] * (n - 259)
    return {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens[:n],
            "tokenizer.ggml.scores": [-float(i) for i in range(n)],
            "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.unknown_token_id": 0}


def to_gguf(path, conf, w, kind="F32", alignment=32):
    """Matrices in the given type, vectors in F32."""
    c = arch.settings(conf)
    name = ARCHS[conf["architectures"][0][:-len("ForCausalLM")]]
    keys = {"general.architecture": name, "general.name": "random", name + ".vocab_size":
            c.vocab_size}
    for key, v in {"context_length": c.max_position_embeddings, "embedding_length": c.hidden_size,
                   "block_count": c.num_hidden_layers, "feed_forward_length": c.intermediate_size,
                   "attention.head_count": c.num_attention_heads,
                   "attention.head_count_kv": c.kv_heads, "attention.key_length": c.D,
                   "attention.value_length": c.D, "rope.dimension_count": c.D,
                   "attention.layer_norm_rms_epsilon": float(c.rms_norm_eps),
                   "rope.freq_base": float(c.rope_theta)}.items():
        keys[name + "." + key] = v
    keys.update(vocabulary(c.vocab_size))
    tensors, rope = {}, c.rope_scaling or {}
    if rope.get("type") == "linear":
        keys.update({name + ".rope.scaling.type": "linear",
                     name + ".rope.scaling.factor": float(rope["factor"])})
    elif rope:
        plain = arch.frequencies(arch.settings(dict(conf, rope_scaling=None)))
        tensors["rope_freqs.weight"] = (plain / arch.frequencies(c)).numpy(), "F32"
    if name == "gemma2":
        assert c.query_pre_attn_scalar == c.D, "GGUF has no key for it"
        for key in ("attn_logit_softcapping", "final_logit_softcapping"):
            keys[name + "." + key] = float(getattr(c, key))
        keys[name + ".attention.sliding_window"] = c.sliding_window
    for key, a in w.items():
        if key.endswith("norm.weight"):
            a = a + c.NORM_OFFSET
        module, end = key[:key.rindex(".")], key[key.rindex("."):]
        if module.startswith("model.layers."):
            i, module = module[len("model.layers."):].split(".", 1)
            heads = {ref.LINEARS["q"]: c.num_attention_heads, ref.LINEARS["k"]: c.kv_heads}
            if name == "llama" and module in heads:
                a = interleaved(a, heads[module])
            out = "blk.%s.%s" % (i, dict(NAMES, **NORMS[c.SANDWICH])[module])
        else:
            out = {"model.embed_tokens": "token_embd", "model.norm": "output_norm",
                   "lm_head": "output"}[module]
        tensors[out + end] = a, kind if a.ndim == 2 else "F32"
    return write_gguf(path, keys, tensors, alignment)


def to_llama2c(path, conf, w, version):
    """Version 0 (legacy) or 1, F32."""
    c = arch.settings(conf)
    assert (c.D * c.num_attention_heads, c.rms_norm_eps, c.rope_theta) == (c.hidden_size, 1e-5, 1e4)
    tied = c.tie_word_embeddings
    ints = [c.hidden_size, c.intermediate_size, c.num_hidden_layers, c.num_attention_heads,
            c.kv_heads, c.vocab_size, c.max_position_embeddings]

    def layers(module):
        out = []
        for i in range(c.num_hidden_layers):
            a = w["model.layers.%d.%s.weight" % (i, module)]
            heads = {ref.LINEARS["q"]: c.num_attention_heads, ref.LINEARS["k"]: c.kv_heads}
            out.append(interleaved(a, heads[module]) if module in heads else a)
        return out
    norm_a, norm_f = layers("input_layernorm"), layers("post_attention_layernorm")
    q, k, v, o, gate, up, down = (layers(m) for m in ref.LINEARS.values())
    embed, final = [w["model.embed_tokens.weight"]], [w["model.norm.weight"]]
    head = [] if tied else [w["lm_head.weight"]]
    if version == 0:
        ints[5] *= 1 if tied else -1
        start = struct.pack("<7i", *ints)
        tables = [np.zeros(c.max_position_embeddings * c.D)]  # cosines and sines, not read
        parts = (embed + norm_a + q + k + v + o + norm_f + gate + down + up + final + tables
                 + head)
    else:
        start = struct.pack("<Ii7iB", 0x616b3432, 1, *ints, tied).ljust(256, b"\0")
        parts = norm_a + norm_f + final + embed + q + k + v + o + gate + down + up + head
    with open(path, "wb") as f:
        f.write(start + b"".join(ref.raw_bytes(a, "F32") for a in parts))
    return path


def main():
    ap = argparse.ArgumentParser(description="write a model folder as GGUF")
    ap.add_argument("folder")
    ap.add_argument("file")
    ap.add_argument("--type", choices=TYPES, default="F32")
    a = ap.parse_args()
    model = arch.Model(a.folder)
    to_gguf(a.file, model.conf, {k: v.numpy() for k, v in model.w.items()}, a.type)


if __name__ == "__main__":
    main()
