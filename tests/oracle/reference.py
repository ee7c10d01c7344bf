"""An independent reference in NumPy, float64: LLaMA-style backbone with PEFT adapters, forward and
gradients, one sequence at a time. It shares nothing with the C program but the file formats.

    x_0     = E[tokens]
    h       = RMSNorm(x) = x / sqrt(mean(x^2) + eps) * g
    q,k,v   = W_{q,k,v} h (+ b);  q, k rotated by RoPE in the "rotate half" order
    a       = softmax(q k^T / sqrt(D) + causal mask) v   (head j reads KV head j / (H / KVH))
    x       = x + W_o a
    x       = x + W_down (act(W_gate h') * W_up h'),  h' = RMSNorm(x)
    logits  = W_head RMSNorm(x)

Loss: mean over the response tokens t = N .. T-1 (N prompt tokens) of -log p(token_t | tokens < t).

Sources: Touvron et al. 2023 (arXiv 2302.13971); Su et al. 2021 (2104.09864, RoPE); Ainslie et al.
2023 (2305.13245, grouped queries); Hu et al. 2021 (2106.09685, LoRA); Kalajdzievski 2023
(2312.03732, rsLoRA); Liu et al. 2022 (2205.05638, IA3); Li and Liang 2021 (2101.00190, prefix);
Xie et al. 2024 (2409.17834, PEDRO); Ben Zaken et al. 2022 (2106.10199, BitFit); Houlsby et al.
2019 (1902.00751, serial adapters); Lester et al. 2021 (2104.08691, prompt tuning);
Zhu et al. 2024 (2405.18203, IAPT); He et al. 2022 (2110.04366, parallel adapters); file formats as Hugging Face transformers and PEFT write them.

Usage: reference.py logits|nll|grad --model DIR [--adapter DIR | --full] --tokens 1,2,3 [--prompt N]
"""
import argparse
import json
import math
import os
import struct

import numpy as np

import tape
from tape import concat, const, param

# Names in files: one table. {i} is the layer.
LINEARS = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
           "o": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj",
           "down": "mlp.down_proj"}
EMBED, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
NORM_ATTN = "model.layers.{i}.input_layernorm.weight"
NORM_FFN = "model.layers.{i}.post_attention_layernorm.weight"
LINEAR = "model.layers.{i}.{linear}.weight"
BIAS = "model.layers.{i}.{linear}.bias"
ADAPTER = "base_model.model.model.layers.{i}."
LORA_A, LORA_B = ADAPTER + "{linear}.lora_A.weight", ADAPTER + "{linear}.lora_B.weight"
IA3_L = ADAPTER + "{linear}.ia3_l"  # (out,1), or (1,in) for a module in feedforward_modules
IA3_V, IA3_W = ADAPTER + "{linear}.ia3_v", ADAPTER + "{linear}.ia3_W"  # l = 1 + v W
BITFIT_B = ADAPTER + "{linear}.bitfit_b"  # (1,out), added to the linear's output
BITFIT_V, BITFIT_W = ADAPTER + "{linear}.bitfit_v", ADAPTER + "{linear}.bitfit_W"  # b = v W
BOTTLENECK = ADAPTER + "{block}.adapter.{part}"  # block self_attn or mlp; part down.weight, ...
PREFIX = "prompt_embeddings"  # (P, L*2*KVH*D), viewed (P, 2L, KVH, D): slot 2i = K, 2i+1 = V
PROMPT = PREFIX  # of PROMPT_TUNING: (P,C), rows in front of the embedded tokens
PREFIX_MLP = {n: "prefix." + n for n in ("embedding", "W1", "b1")}  # shared by all layers
PREFIX_W2, PREFIX_B2 = ADAPTER + "prefix.W2", ADAPTER + "prefix.b2"  # (2*KVH*D,H), (1,2*KVH*D)
# Projections of IAPT stand under their bare names where all layers share them.
IAPT = {n: ADAPTER + "iapt." + n for n in ("down.weight", "up.weight", "pool.weight", "rational.a",
                                           "rational.b")}
PEDRO_DOWN, PEDRO_UP = ADAPTER + "pedro.down.weight", ADAPTER + "pedro.up.weight"
PEDRO_POOL = ADAPTER + "pedro.pool.weight"
PEDRO_A, PEDRO_B = ADAPTER + "pedro.rational.a", ADAPTER + "pedro.rational.b"
PEDRO_DEFAULTS = {"pooler": "last", "activation": "rational", "pool_site": "after",
                  "rope": "before", "prompt_scaled": True}


# Files -------------------------------------------------------------------------------------------

def read_safetensors(path):
    """{name: float64 array}. u64 header length, JSON header, data; BF16 is F32's upper half."""
    with open(path, "rb") as f:
        raw = f.read()
    n = struct.unpack("<Q", raw[:8])[0]
    data, out = raw[8 + n:], {}
    for name, e in json.loads(raw[8:8 + n]).items():
        if name == "__metadata__":
            continue
        part = data[slice(*e["data_offsets"])]
        if e["dtype"] == "BF16":
            a = (np.frombuffer(part, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            a = np.frombuffer(part, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[e["dtype"]])
        out[name] = a.astype(np.float64).reshape(e["shape"])
    return out


def raw_bytes(a, dtype):
    """An array's bytes as F32, F16 or BF16 (cut off, so round the values before)."""
    a = np.ascontiguousarray(a, "<f2" if dtype == "F16" else "<f4")
    return ((a.view("<u4") >> 16).astype("<u2") if dtype == "BF16" else a).tobytes()


def write_safetensors(path, tensors, dtypes=None):
    """Writes in the order given; `dtypes` {name: dtype} where it is not F32."""
    head, data = {}, b""
    for name, a in tensors.items():
        dtype = (dtypes or {}).get(name, "F32")
        part = raw_bytes(a, dtype)
        head[name] = {"dtype": dtype, "shape": list(np.shape(a)),
                      "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def _json(path):
    with open(path) as f:
        return json.load(f)


class Config:
    """What the forward pass needs of config.json."""

    def __init__(self, j):
        rope = j.get("rope_parameters") or j.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise ValueError("unsupported rope type " + kind)
        self.vocab, self.width, self.ffn = j["vocab_size"], j["hidden_size"], j["intermediate_size"]
        self.layers, self.heads = j["num_hidden_layers"], j["num_attention_heads"]
        self.kv_heads = j.get("num_key_value_heads") or self.heads
        self.head_dim = j.get("head_dim") or self.width // self.heads
        self.eps = j.get("rms_norm_eps", 1e-6)
        self.theta = rope.get("rope_theta", j.get("rope_theta", 10000.0))
        self.tied = j.get("tie_word_embeddings", False)
        self.act = {"silu": silu, "gelu_pytorch_tanh": gelu_tanh, "gelu_new": gelu_tanh}[
            j.get("hidden_act", "silu")]
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.out = {"q": q, "k": kv, "v": kv, "o": self.width, "gate": self.ffn, "up": self.ffn,
                    "down": self.width}
        self.inp = {"q": self.width, "k": self.width, "v": self.width, "o": q, "gate": self.width,
                    "up": self.width, "down": self.ffn}


def load_model(folder):
    """(Config, {name: Var}); the weights are frozen."""
    w = read_safetensors(os.path.join(folder, "model.safetensors"))
    return (Config(_json(os.path.join(folder, "config.json"))),
            {k: const(v) for k, v in w.items()})


def load_adapter(folder):
    """(config, {name: Var}); the parameters want gradients."""
    w = read_safetensors(os.path.join(folder, "adapter_model.safetensors"))
    return (_json(os.path.join(folder, "adapter_config.json")),
            {k: param(v) for k, v in w.items()})


# Activations -------------------------------------------------------------------------------------

def silu(x):
    return x * tape.sigmoid(x)


def gelu_tanh(x):  # Hendrycks and Gimpel 2016 (1606.08415), the tanh approximation
    return 0.5 * x * (1 + tape.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def gelu(x):  # the same paper, exact: x Phi(x)
    return 0.5 * x * (1 + tape.erf(x * math.sqrt(0.5)))


def rational(x, a, b):
    """R(x) = sum_{j=0..6} a_j x^j / (1 + |sum_{i=1..5} b_i x^i|): Molina et al. 2020 (1907.06732),
    version "A, safe" with one absolute value. a (1,7), b (1,5)."""
    power, num, den = const(np.ones(x.shape)), a[0, 0] * np.ones(x.shape), const(np.zeros(x.shape))
    for j in range(1, a.shape[1]):
        power = power * x
        num = num + a[0, j] * power
        if j <= b.shape[1]:
            den = den + b[0, j - 1] * power
    return num / (1 + tape.absolute(den))


def pool(kind, h, w):
    """One row of the rows h; w (1,n) is the query of the attention."""
    if kind == "last":
        return h[h.shape[0] - 1:]
    if kind == "mean":
        return h.mean(0)
    if kind == "max":
        return h.max(0)
    if kind == "attention":
        return tape.softmax(w @ h.T * h.shape[1] ** -0.5, 1) @ h
    raise ValueError("unknown pooler " + kind)


ACTIVATIONS = {"relu": tape.relu, "gelu": gelu, "silu": silu, "tanh": tape.tanh,
               "identity": lambda x: x}


# Adapters ----------------------------------------------------------------------------------------

class Adapter:
    """The edits of one adapter; where it does nothing the argument comes back."""

    def __init__(self, conf=None, params=None):
        self.conf, self.p = conf or {"peft_type": None}, params or {}
        self.kind = self.conf["peft_type"]
        if self.kind not in (None, "LORA", "IA3", "PREFIX_TUNING", "PEDRO", "BITFIT", "HOULSBY",
                             "PARALLEL_ADAPTER", "PROMPT_TUNING", "IAPT"):
            raise ValueError("unknown peft_type %r" % self.kind)
        if self.kind == "PEDRO":
            self.opt = {k: self.conf.get(k, v) for k, v in PEDRO_DEFAULTS.items()}

    def get(self, key, i, t=None):
        return self.p.get(key.format(i=i, linear=LINEARS.get(t)))

    def ia3(self, i, t):
        """l (1,n) for a linear, or None."""
        if self.kind != "IA3":
            return None
        l, v = self.get(IA3_L, i, t), self.get(IA3_V, i, t)
        if v is not None:
            return 1 + v @ self.get(IA3_W, i, t)
        return None if l is None else l.reshape(1, -1)

    def is_feedforward(self, t):
        return LINEARS[t].split(".")[-1] in self.conf.get("feedforward_modules", [])

    def linear_in(self, i, t, x):
        l = self.ia3(i, t)
        return x * l if l is not None and self.is_feedforward(t) else x

    def linear_out(self, i, t, x, y):
        l = self.ia3(i, t)
        if l is not None and not self.is_feedforward(t):
            y = y * l  # before RoPE, bias included
        if self.kind == "BITFIT" and self.get(BITFIT_B, i, t) is not None:
            y = y + self.get(BITFIT_B, i, t)
        if self.kind == "BITFIT" and self.get(BITFIT_V, i, t) is not None:
            y = y + self.get(BITFIT_V, i, t) @ self.get(BITFIT_W, i, t)
        if self.kind == "LORA" and self.get(LORA_A, i, t) is not None:
            r = self.conf["r"]
            s = self.conf["lora_alpha"] / (math.sqrt(r) if self.conf.get("use_rslora") else r)
            y = y + s * ((x @ self.get(LORA_A, i, t).T) @ self.get(LORA_B, i, t).T)
        return y

    def block_out(self, i, block, x, y):
        """What a block that read x adds to the stream: y, with an adapter behind or beside it."""
        part = {p: self.p.get(BOTTLENECK.format(i=i, block=block, part=p))
                for p in ("down.weight", "down.bias", "up.weight", "up.bias")}
        if self.kind not in ("HOULSBY", "PARALLEL_ADAPTER") or part["up.bias"] is None:
            return y
        z = (y if self.kind == "HOULSBY" else x) @ part["down.weight"].T + part["down.bias"]
        z = ACTIVATIONS[self.conf["activation"]](z) @ part["up.weight"].T + part["up.bias"]
        return y + self.conf.get("scale", 1) * z

    def soft_tokens(self, cfg, i, h):
        """IAPT: (K, V), each (P,KVH,D), from the prompt rows h (N,C)."""
        down, up, query, a, b = (self.get(IAPT[n], i) or self.p.get("iapt." + n) for n in IAPT)
        z = pool(self.conf["pooler"], h @ down.T, query)
        act = self.conf["activation"]
        z = (rational(z, a, b) if act == "rational" else ACTIVATIONS[act](z)) @ up.T
        z = z.reshape(2, -1, cfg.kv_heads, cfg.head_dim)
        return z[0], z[1]

    def prefix(self, cfg, i, h):
        """(K, V), each (P,KVH,D), or None; h (N,C) are the normed rows of the prompt."""
        if self.kind == "IAPT":
            return self.soft_tokens(cfg, i, h)
        if self.kind != "PREFIX_TUNING":
            return None
        e = self.p.get(PREFIX)
        if e is None:  # the training-time form: W2 tanh(W1 e + b1) + b2
            m = {n: self.p[key] for n, key in PREFIX_MLP.items()}
            e = tape.tanh(m["embedding"] @ m["W1"].T + m["b1"]) @ self.p[PREFIX_W2.format(i=i)].T
            e = (e + self.p[PREFIX_B2.format(i=i)]).reshape(-1, 2, cfg.kv_heads, cfg.head_dim)
            return e[:, 0], e[:, 1]
        e = e.reshape(-1, 2 * cfg.layers, cfg.kv_heads, cfg.head_dim)
        return e[:, 2 * i], e[:, 2 * i + 1]

    def vectors(self, cfg, i, x, h):
        """PEDRO: {target: l (1,n)} from the prompt rows x (N,C), h = RMSNorm(x)."""
        if self.kind != "PEDRO":
            return {}
        h = {"before": x, "after": h}[self.opt["pool_site"]]
        z = pool(self.opt["pooler"], h, self.get(PEDRO_POOL, i)) @ self.get(PEDRO_DOWN, i).T
        if self.opt["activation"] == "rational":
            z = rational(z, self.get(PEDRO_A, i), self.get(PEDRO_B, i))
        else:
            z = ACTIVATIONS[self.opt["activation"]](z)
        l, out, at = 1 + z @ self.get(PEDRO_UP, i).T, {}, 0
        for t in LINEARS:  # the order of the table, whatever the order of the list
            if t in self.conf["targets"]:
                out[t], at = l[:, at:at + cfg.out[t]], at + cfg.out[t]
        assert at == l.shape[1], "pedro.up has %d rows, its targets %d" % (l.shape[1], at)
        return out


# Forward -----------------------------------------------------------------------------------------

def rms_norm(x, g, eps):
    return x * ((x * x).mean(1) + eps) ** -0.5 * g


def rope(x, pos, theta):
    """x (T,H,D): element d < D/2 pairs with d + D/2, angle pos * theta^(-2d/D)."""
    half = x.shape[2] // 2
    angle = pos[:, None, None] * theta ** (-np.arange(half) / half)
    c, s = np.cos(angle), np.sin(angle)
    x1, x2 = x[:, :, :half], x[:, :, half:]
    return concat([x1 * c - x2 * s, x2 * c + x1 * s], 2)


def attention(q, k, v, mask):
    """q (T,H,D), k and v (S,KVH,D), mask (T,S) of 0 and -inf -> (T,H*D)."""
    (T, H, D), KVH = q.shape, k.shape[1]
    q = q.reshape(T, KVH, H // KVH, D).transpose(1, 2, 0, 3)     # (KVH,G,T,D)
    k = k.transpose(1, 2, 0).reshape(KVH, 1, D, -1)              # (KVH,1,D,S)
    v = v.transpose(1, 0, 2).reshape(KVH, 1, -1, D)              # (KVH,1,S,D)
    p = tape.softmax(q @ k * D ** -0.5 + mask, 3)
    return (p @ v).transpose(2, 0, 1, 3).reshape(T, H * D)


def forward(cfg, w, tokens, n_prompt=None, adapter=None, cache=None):
    """Logits (T,V) as a Var. With a cache (a dict, empty at first) the call continues the sequence;
    the first call must then hold the whole prompt, from which PEDRO's vectors are made."""
    ad = adapter or Adapter()
    cache = {} if cache is None else cache
    start = cache.get("rows", 0)
    x = w[EMBED][np.asarray(tokens)]
    if ad.kind == "PROMPT_TUNING" and start == 0:
        x = concat([ad.p[PROMPT], x], 0)
    T = x.shape[0]
    n_prompt = cache.setdefault("prompt", T if n_prompt is None else n_prompt)
    assert start > 0 or T >= n_prompt >= 1
    row = start + np.arange(T)
    mask = np.where(np.arange(start + T)[None] <= row[:, None], 0.0, -np.inf)  # (T,S)
    scaled = np.ones((T, 1))  # rows that PEDRO scales
    if ad.kind == "PEDRO" and not ad.opt["prompt_scaled"]:
        scaled = (row >= n_prompt)[:, None] * 1.0

    def linear(i, t, x):
        z = ad.linear_in(i, t, x)
        y = z @ w[LINEAR.format(i=i, linear=LINEARS[t])].T
        bias = w.get(BIAS.format(i=i, linear=LINEARS[t]))
        return ad.linear_out(i, t, x, y if bias is None else y + bias)

    for i in range(cfg.layers):
        state = cache.setdefault(i, {})
        h = rms_norm(x, w[NORM_ATTN.format(i=i)], cfg.eps)
        if start == 0:
            state["l"] = ad.vectors(cfg, i, x[:n_prompt], h[:n_prompt])
            state["prefix"] = ad.prefix(cfg, i, h[:n_prompt])
        P = state["prefix"][0].shape[0] if state["prefix"] else 0

        def scale(t, y):  # l on the scaled rows, 1 on the others
            return y * (scaled * state["l"][t] + (1 - scaled)) if t in state["l"] else y

        def scaled_linear(t, x):
            return scale(t, linear(i, t, x))

        def rotated(t, n):  # "after" moves the scaling of q (and of k) behind RoPE
            after = ad.kind == "PEDRO" and ad.opt["rope"] == "after"
            y = linear(i, t, h) if after else scaled_linear(t, h)
            y = rope(y.reshape(T, n, cfg.head_dim), P + row, cfg.theta)
            return scale(t, y.reshape(T, -1)).reshape(T, n, cfg.head_dim) if after else y

        q, k = rotated("q", cfg.heads), rotated("k", cfg.kv_heads)
        v = scaled_linear("v", h).reshape(T, cfg.kv_heads, cfg.head_dim)
        if start:
            k, v = concat([state["k"], k], 0), concat([state["v"], v], 0)
        state["k"], state["v"] = k, v
        m = mask
        if P:  # every row sees the whole prefix
            k, v = concat([state["prefix"][0], k], 0), concat([state["prefix"][1], v], 0)
            m = np.concatenate([np.zeros((T, P)), mask], 1)
        x = x + ad.block_out(i, "self_attn", h, scaled_linear("o", attention(q, k, v, m)))
        h = rms_norm(x, w[NORM_FFN.format(i=i)], cfg.eps)
        y = scaled_linear("down", cfg.act(scaled_linear("gate", h)) * scaled_linear("up", h))
        x = x + ad.block_out(i, "mlp", h, y)
    cache["rows"] = start + T
    z = rms_norm(x, w[NORM], cfg.eps) @ w[EMBED if cfg.tied else HEAD].T
    return z[T - len(tokens):]  # of the tokens, not of what stands in front of them


def token_nll(logits, tokens):
    """(T-1,1): -log p of tokens 1 .. T-1, each given those before it."""
    n = len(tokens) - 1
    z = logits[:n]
    picked = z[np.arange(n), np.asarray(tokens)[1:]].reshape(n, 1)
    return tape.logsumexp(z, 1) - picked


def loss_of(cfg, w, tokens, n_prompt, adapter=None):
    """The mean NLL of the response tokens, as a Var (1,1)."""
    assert 1 <= n_prompt < len(tokens)
    return token_nll(forward(cfg, w, tokens, n_prompt, adapter), tokens)[n_prompt - 1:].mean()


def gradients(cfg, w, tokens, n_prompt, adapter=None):
    """(loss, {name: array}): of the adapter, or of the whole backbone when there is none."""
    if adapter is None:
        w = {k: param(x.v) for k, x in w.items()}
    wanted = w if adapter is None else adapter.p
    loss = loss_of(cfg, w, tokens, n_prompt, adapter)
    loss.backward()
    return loss.v.item(), {k: np.zeros(x.shape) if x.g is None else x.g
                           for k, x in wanted.items()}


def main():
    ap = argparse.ArgumentParser(description="NumPy reference of the forward pass and gradients")
    ap.add_argument("what", choices=["logits", "nll", "grad"])
    ap.add_argument("--model", required=True)
    ap.add_argument("--adapter")
    ap.add_argument("--full", action="store_true")
    ap.add_argument("--tokens", required=True)
    ap.add_argument("--prompt", type=int)
    a = ap.parse_args()
    tokens = [int(t) for t in a.tokens.split(",")]
    cfg, w = load_model(a.model)
    ad = Adapter(*load_adapter(a.adapter)) if a.adapter else None
    if a.what == "grad":
        if bool(ad) == a.full or a.prompt is None:
            ap.error("grad needs --prompt and one of --adapter and --full")
        loss, g = gradients(cfg, w, tokens, a.prompt, ad)
        out = {"loss": loss, "gradients": {k: x.ravel().tolist() for k, x in g.items()}}
    else:
        z = forward(cfg, w, tokens, a.prompt, ad)
        out = ({"logits": z.v.tolist(), "vocab": cfg.vocab} if a.what == "logits" else
               {"nll": token_nll(z, tokens).v.ravel().tolist()})
    print(json.dumps(out))


if __name__ == "__main__":
    main()
