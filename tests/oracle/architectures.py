"""An independent implementation of the supported model families in PyTorch, float64, one sequence
at a time, with PEFT and PEDRO adapters: what `pedrobench logits` and `grad` are compared with. It
reads the folders of models and adapters itself; gradients are PyTorch's own.

    x_0     = E[tokens]                            Gemma: times sqrt(C)
    h       = norm(x) = x / sqrt(mean(x^2) + eps) * g          Gemma: times (1 + g)
    q,k,v   = W h (+ b);  Qwen3: q, k normed per head;  then RoPE in the "rotate half" order
    s       = q k^T / sqrt(D)                      Gemma 2: / sqrt(query_pre_attn_scalar), soft cap
    a       = softmax(s + mask) v                  local layers see the last W positions
    x       = x + W_o a                            Gemma 2: x + norm(W_o a)
    x       = x + W_down (act(W_gate h') * W_up h'),  h' = norm(x)    Gemma 2: x + norm(...)
    logits  = W_head norm(x)                       Gemma 2: soft cap

A soft cap is c tanh(s / c). A prefix holds the positions 0 .. P-1, also for a window.

Sources: Touvron et al. 2023 (arXiv 2307.09288, LLaMA 2), Grattafiori et al. 2024 (2407.21783,
LLaMA 3), Jiang et al. 2023 (2310.06825, Mistral), Yang et al. 2024 (2407.10671, Qwen2) and 2025
(2505.09388, Qwen3), Gemma Team 2024 (2403.08295, Gemma; 2408.00118, Gemma 2); names and defaults
of config.json and of adapter folders as Hugging Face transformers and PEFT document them; methods
as in reference.py.
"""
import json
import math
import os
import re
from types import SimpleNamespace

import torch
import torch.nn.functional as F

from reference import LINEARS, read_safetensors

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)  # the models are tiny

# What config.json leaves out has the value of the family's configuration class. The keys in capital
# letters are not of the file: they are what tells the families apart.
LLAMA = dict(num_key_value_heads=None, head_dim=None, rms_norm_eps=1e-6, rope_theta=10000.0,
             rope_scaling=None, rope_parameters=None, hidden_act="silu", hidden_activation=None,
             attention_bias=False, mlp_bias=False, tie_word_embeddings=False, sliding_window=None,
             layer_types=None, attn_logit_softcapping=None, final_logit_softcapping=None,
             query_pre_attn_scalar=None, NORM_OFFSET=0, BIASES="qkvo", HEAD_NORMS=False,
             SANDWICH=False, LOCAL=lambda c, i: False)
MISTRAL = dict(LLAMA, num_key_value_heads=8, sliding_window=4096, LOCAL=lambda c, i: True)
QWEN2 = dict(LLAMA, num_key_value_heads=32, use_sliding_window=False, sliding_window=4096,
             max_window_layers=28, attention_bias=True, BIASES="qkv",
             LOCAL=lambda c, i: c.use_sliding_window and i >= c.max_window_layers)
QWEN3 = dict(QWEN2, head_dim=128, attention_bias=False, BIASES="qkvo", HEAD_NORMS=True)
GEMMA = dict(LLAMA, num_key_value_heads=16, head_dim=256, tie_word_embeddings=True, NORM_OFFSET=1)
GEMMA2 = dict(GEMMA, num_key_value_heads=4, query_pre_attn_scalar=256, sliding_window=4096,
              attn_logit_softcapping=50.0, final_logit_softcapping=30.0, SANDWICH=True,
              LOCAL=lambda c, i: i % 2 == 0)
FAMILIES = {"LlamaForCausalLM": LLAMA, "MistralForCausalLM": MISTRAL, "Qwen2ForCausalLM": QWEN2,
            "Qwen3ForCausalLM": QWEN3, "GemmaForCausalLM": GEMMA, "Gemma2ForCausalLM": GEMMA2}


def settings(conf):
    """config.json (a dict) with its family's defaults filled in."""
    family = FAMILIES[conf["architectures"][0]]
    c = SimpleNamespace(**{**family, **conf})
    C, H = c.hidden_size, c.num_attention_heads
    c.kv_heads = c.num_key_value_heads or H
    c.D = c.head_dim or C // H
    c.scale = (c.query_pre_attn_scalar or c.D) ** -0.5
    if c.NORM_OFFSET:  # Gemma: hidden_act is not looked at
        c.act = c.hidden_activation or "gelu_pytorch_tanh"
    else:
        c.act = c.hidden_act
    types = c.layer_types or ["sliding_attention" if c.LOCAL(c, i) else "full_attention"
                              for i in range(c.num_hidden_layers)]
    c.windows = [c.sliding_window if t == "sliding_attention" else None for t in types]
    q, kv, f = H * c.D, c.kv_heads * c.D, c.intermediate_size
    c.out = dict(q=q, k=kv, v=kv, o=C, gate=f, up=f, down=C)
    c.inp = dict(q=C, k=C, v=C, o=q, gate=C, up=C, down=f)
    return c


def activation(name, x):
    if name == "silu":
        return x * torch.sigmoid(x)
    if name in ("gelu_pytorch_tanh", "gelu_new"):
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))
    raise ValueError("unknown activation " + name)


def frequencies(c):
    """Radians per position of the D/2 pairs. "llama3" leaves wavelengths shorter than
    original / high_freq_factor alone, divides those longer than original / low_freq_factor, and
    goes from one to the other in the number of turns within the original context."""
    rope = c.rope_parameters or c.rope_scaling or {}
    f = rope.get("rope_theta", c.rope_theta) ** (-torch.arange(c.D // 2) / (c.D / 2))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return f
    if kind == "linear":
        return f / rope["factor"]
    if kind == "llama3":
        turns = rope["original_max_position_embeddings"] * f / (2 * math.pi)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        keep = ((turns - low) / (high - low)).clamp(0, 1)
        return keep * f + (1 - keep) * f / rope["factor"]
    raise ValueError("unknown rope type " + kind)


def _json(*path):
    with open(os.path.join(*path), encoding="utf-8") as f:
        return json.load(f)


def _tensors(*path):
    return {k: torch.from_numpy(v) for k, v in read_safetensors(os.path.join(*path)).items()}


class Adapter:
    """The edits of one adapter; where it does nothing the argument comes back. `p` holds its
    tensors by their names in the file; `used` collects the names that were looked up."""

    def __init__(self, conf, p):
        self.conf, self.p, self.kind, self.used = conf, p, conf["peft_type"], set()
        self.drawn, self.widest = None, (0, 0)
        if self.kind == "PEDRO":
            want = {"pooler": "last", "activation": "rational", "pool_site": "after",
                    "rope": "before", "prompt_scaled": True}
            assert all(conf[k] == v for k, v in want.items()), "reference.py has the others"

    def get(self, i, key):
        key = "base_model.model.model.layers.%d.%s" % (i, key)
        self.used.add(key)
        return self.p[key]

    def named(self, which, i, t):
        """Does a list of names, a regular expression or "all-linear" mean this linear?"""
        module = "model.layers.%d.%s" % (i, LINEARS[t])
        if which == "all-linear":
            return True
        if isinstance(which, str):
            return bool(re.fullmatch(which, module))
        return any(module == w or module.endswith("." + w) for w in which or [])

    def targets(self, i, t):
        layers = self.conf.get("layers_to_transform")
        layers = [layers] if isinstance(layers, int) else layers
        return (self.named(self.conf["target_modules"], i, t)
                and not self.named(self.conf.get("exclude_modules"), i, t)
                and (layers is None or i in layers))

    def rank_alpha(self, i, t):
        """r and alpha: of the first pattern that ends the module's name, else those of all."""
        module = "model.layers.%d.%s" % (i, LINEARS[t])
        out = []
        for pattern, default in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")):
            found = [v for k, v in (self.conf.get(pattern) or {}).items()
                     if re.match(r"(.*\.)?(%s)$" % k, module)]
            out.append(found[0] if found else self.conf[default])
        return out

    def shared(self):
        """VeRA's A and B: from the file, or drawn as PEFT draws them."""
        names = ["base_model.vera_" + n for n in "AB"]
        self.used.update(names)
        if self.drawn is None and names[0] in self.p:
            self.drawn = [self.p[n].detach() for n in names]
        if self.drawn is None:
            generator = torch.Generator().manual_seed(self.conf["projection_prng_key"])
            self.drawn = []
            for shape in ((self.conf["r"], self.widest[0]), (self.widest[1], self.conf["r"])):
                bound = math.sqrt(3) * math.sqrt(2) / math.sqrt(shape[1])
                m = torch.empty(shape, dtype=torch.float32)
                self.drawn.append(m.uniform_(-bound, bound, generator=generator).double())
        return self.drawn

    def is_feedforward(self, i, t):
        return self.named(self.conf["feedforward_modules"], i, t)

    def linear(self, i, t, f, x):
        """f(x) = W x + b, edited."""
        if self.kind == "LORA" and self.targets(i, t):
            A, B = (self.get(i, LINEARS[t] + ".lora_%s.weight" % m) for m in "AB")
            r, alpha = self.rank_alpha(i, t)
            assert len(A) == r, "rank of layer %d's %s" % (i, t)
            s = alpha / (math.sqrt(r) if self.conf.get("use_rslora") else r)
            if not self.conf.get("use_dora"):
                return f(x) + s * (x @ A.T @ B.T)
            bias = f(torch.zeros(1, A.shape[1]))
            V = (f(torch.eye(A.shape[1])) - bias).T + s * B @ A
            m = self.get(i, LINEARS[t] + ".lora_magnitude_vector")
            return bias + x @ V.T * (m / V.norm(dim=1).detach())
        if self.kind == "ADALORA" and self.targets(i, t):
            r, pattern = self.conf["init_r"], self.conf.get("rank_pattern") or {}
            mask = pattern.get("model.layers.%d.%s.lora_E" % (i, LINEARS[t]), [True] * r)
            if not any(mask):
                return f(x)
            A, B, E = (self.get(i, LINEARS[t] + ".lora_" + n) for n in "ABE")
            assert len(A) == sum(mask), "rank of layer %d's %s" % (i, t)
            s = (self.conf["lora_alpha"] or r) / (r + 1e-5)
            return f(x) + s * (x @ (A * E).T @ B.T)
        if self.kind == "VERA" and self.targets(i, t):
            A, B = self.shared()
            d, b = (self.get(i, LINEARS[t] + ".vera_lambda_" + n) for n in "db")
            y = f(x)
            return y + b * ((d * (x @ A[:, :x.shape[1]].T)) @ B[:y.shape[1]].T)
        if self.kind == "IA3" and self.targets(i, t):
            l = self.get(i, LINEARS[t] + ".ia3_l").reshape(1, -1)
            return f(x * l) if self.is_feedforward(i, t) else f(x) * l
        if self.kind == "PEDRO" and t in self.vectors:
            return f(x) * self.vectors[t]
        if self.kind == "BITFIT" and self.targets(i, t):
            return f(x) + self.get(i, LINEARS[t] + ".bitfit_b")
        return f(x)

    def block(self, i, name, x, y):
        """y, which a block ("self_attn" or "mlp") that read x adds to the stream, edited."""
        where = {"self_attn": "attention", "mlp": "ffn"}[name]
        if self.kind not in ("HOULSBY", "PARALLEL_ADAPTER") or (
                self.conf["where"] not in ("both", where)):
            return y
        down, down_bias, up, up_bias = (self.get(i, name + ".adapter." + k) for k in (
            "down.weight", "down.bias", "up.weight", "up.bias"))
        z = F.linear(y if self.kind == "HOULSBY" else x, down, down_bias[0])
        act = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}[self.conf["activation"]]
        return y + self.conf.get("scale", 1) * F.linear(act(z), up, up_bias[0])

    def prefix(self, c, i):
        """Keys and values (P,KVH,D) in front of layer i; P may be 0."""
        if self.kind == "IAPT":
            return self.soft
        if self.kind != "PREFIX_TUNING":
            return torch.zeros(2, 0, c.kv_heads, c.D)
        self.used.add("prompt_embeddings")
        e = self.p["prompt_embeddings"].reshape(-1, 2 * c.num_hidden_layers, c.kv_heads, c.D)
        return e[:, 2 * i], e[:, 2 * i + 1]

    def virtual_tokens(self, c):
        """Rows (P,C) in front of the embedded tokens; P may be 0."""
        if self.kind != "PROMPT_TUNING":
            return torch.zeros(0, c.hidden_size)
        self.used.add("prompt_embeddings")
        return self.p["prompt_embeddings"]

    def soft_tokens(self, c, i, h):
        """IAPT: U R(sum_i p_i t_i), t = D h, p = softmax(q . t / sqrt(r)): keys, then values."""
        down, up = (self.p["iapt.%s.weight" % k] for k in ("down", "up"))
        self.used |= {"iapt.down.weight", "iapt.up.weight"}
        query, a, b = (self.get(i, "iapt." + k) for k in ("pool.weight", "rational.a",
                                                          "rational.b"))
        t = h @ down.T
        z = ((t @ query[0]) / math.sqrt(len(down))).softmax(0) @ t
        z = (sum(a[0, j] * z ** j for j in range(7))
             / (1 + sum(b[0, j] * z ** (j + 1) for j in range(5)).abs()))
        return (up @ z).reshape(2, -1, c.kv_heads, c.D)

    def start(self, c):
        """Before the first layer."""
        if self.kind == "VERA":
            mine = [t for t in LINEARS for i in range(c.num_hidden_layers) if self.targets(i, t)]
            self.widest = max(c.inp[t] for t in mine), max(c.out[t] for t in mine)

    def start_layer(self, c, i, h):
        """PEDRO makes its vectors from the last row of h, the prompt's normed rows:
        l = 1 + U R(D h), R(z) = sum_j a_j z^j / (1 + |sum_j b_j z^j|)."""
        self.vectors = {}
        if self.kind == "IAPT":
            self.soft = self.soft_tokens(c, i, h)
        if self.kind != "PEDRO":
            return
        down, up, a, b = (self.get(i, "pedro." + k) for k in
                          ("down.weight", "up.weight", "rational.a", "rational.b"))
        z, a, b = down @ h[-1], a[0], b[0]
        z = (sum(a[j] * z ** j for j in range(len(a)))
             / (1 + sum(b[j] * z ** (j + 1) for j in range(len(b))).abs()))
        l, targets = 1 + up @ z, [t for t in LINEARS if t in self.conf["targets"]]
        self.vectors = dict(zip(targets, l.split([c.out[t] for t in targets])))


def load_adapter(folder):
    return Adapter(_json(folder, "adapter_config.json"),
                   _tensors(folder, "adapter_model.safetensors"))


class Model:
    """A model folder, or its config.json and tensors: c are its settings, w its weights."""

    def __init__(self, folder, conf=None, w=None):
        self.conf = conf or _json(folder, "config.json")
        self.c = settings(self.conf)
        if w:
            self.w = {k: torch.tensor(a) for k, a in w.items()}
            return
        index = os.path.join(folder, "model.safetensors.index.json")
        files = (sorted(set(_json(index)["weight_map"].values())) if os.path.exists(index)
                 else ["model.safetensors"])
        self.w = {}
        for f in files:
            self.w.update(_tensors(folder, f))

    def norm(self, x, name):
        c = self.c
        x = x * (x.pow(2).mean(-1, keepdim=True) + c.rms_norm_eps) ** -0.5
        return x * (c.NORM_OFFSET + self.w["model." + name + ".weight"])

    def rotate(self, x, pos):
        """x (T,H,D), pos (T): element d < D/2 pairs with d + D/2."""
        angle = (pos[:, None] * frequencies(self.c))[:, None]
        x1, x2 = x.chunk(2, -1)
        return torch.cat([x1 * angle.cos() - x2 * angle.sin(),
                          x2 * angle.cos() + x1 * angle.sin()], -1)

    def attention(self, q, k, v, pos, window):
        """q (T,H,D) at positions pos (T); k, v (S,KVH,D) at positions 0 .. S-1."""
        c, group = self.c, self.c.num_attention_heads // self.c.kv_heads
        k, v = (t.repeat_interleave(group, 1) for t in (k, v))
        s = torch.einsum("thd,shd->hts", q, k) * c.scale
        if c.attn_logit_softcapping:
            s = c.attn_logit_softcapping * torch.tanh(s / c.attn_logit_softcapping)
        back = pos[:, None] - torch.arange(k.shape[0])[None]
        seen = back >= 0 if window is None else (back >= 0) & (back < window)
        p = s.masked_fill(~seen, -math.inf).softmax(-1)
        return torch.einsum("hts,shd->thd", p, v).flatten(1)

    def forward(self, tokens, adapter=None, n_prompt=None):
        """Logits (T,V)."""
        c, w, ad = self.c, self.w, adapter or Adapter({"peft_type": None}, {})
        embed = w["model.embed_tokens.weight"]
        x = torch.cat([ad.virtual_tokens(c), embed[tokens]])
        x = x * (math.sqrt(c.hidden_size) if c.NORM_OFFSET else 1)
        T = len(x)
        ad.start(c)
        for i in range(c.num_hidden_layers):
            layer = "layers.%d." % i

            def linear(t, x):
                name = "model." + layer + LINEARS[t]
                has_bias = c.mlp_bias if LINEARS[t].startswith("mlp") else (
                    c.attention_bias and t in c.BIASES)
                bias = w[name + ".bias"] if has_bias else None
                return ad.linear(i, t, lambda z: F.linear(z, w[name + ".weight"], bias), x)

            h = self.norm(x, layer + "input_layernorm")
            ad.start_layer(c, i, h[:n_prompt])
            q = linear("q", h).reshape(T, -1, c.D)
            k, v = (linear(t, h).reshape(T, c.kv_heads, c.D) for t in "kv")
            if c.HEAD_NORMS:
                q, k = (self.norm(a, layer + "self_attn.%s_norm" % t) for t, a in zip("qk", (q, k)))
            pk, pv = ad.prefix(c, i)
            pos = len(pk) + torch.arange(T)
            k, v = torch.cat([pk, self.rotate(k, pos)]), torch.cat([pv, v])
            a = linear("o", self.attention(self.rotate(q, pos), k, v, pos, c.windows[i]))
            if c.SANDWICH:
                a = self.norm(a, layer + "post_attention_layernorm")
            x = x + ad.block(i, "self_attn", h, a)
            h = self.norm(x, layer + ("pre_feedforward" if c.SANDWICH else "post_attention")
                          + "_layernorm")
            f = linear("down", activation(c.act, linear("gate", h)) * linear("up", h))
            if c.SANDWICH:
                f = self.norm(f, layer + "post_feedforward_layernorm")
            x = x + ad.block(i, "mlp", h, f)
        head = embed if c.tie_word_embeddings else w["lm_head.weight"]
        z = self.norm(x[T - len(tokens):], "norm") @ head.T
        cap = c.final_logit_softcapping
        return cap * torch.tanh(z / cap) if cap else z

    def loss(self, tokens, n_prompt, adapter=None):
        """The mean negative log-likelihood of the response, tokens n_prompt .. T-1."""
        z = self.forward(tokens[:-1], adapter, n_prompt)[n_prompt - 1:]
        return F.cross_entropy(z, torch.tensor(tokens[n_prompt:]))


def gradients(model, tokens, n_prompt, adapter=None):
    """(loss, {name: array}): of the adapter, or of the whole model when there is none."""
    wanted = adapter.p if adapter else model.w
    wanted = {k: t for k, t in wanted.items() if not k.startswith("base_model.vera_")  # frozen
              and t.numel()}
    for t in wanted.values():
        t.requires_grad_()
        t.grad = None
    loss = model.loss(tokens, n_prompt, adapter)
    loss.backward()
    return loss.item(), {k: (torch.zeros_like(t) if t.grad is None else t.grad).numpy()
                         for k, t in wanted.items()}
