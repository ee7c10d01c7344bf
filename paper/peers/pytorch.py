#!/usr/bin/env python3
"""PyTorch as a peer of `pedrobench bench`: the same work on the same shapes, timed in the same run.

A LLaMA-style model with random weights, written as PyTorch users write it (dense operations, eager
mode): prefill, decoding with a key-value cache, and training steps of LoRA (r = 8, all linears),
IA3, prefix tuning (16 positions) and PEDRO (r = 8) on the frozen backbone, or of all weights, with
AdamW. Protocol: harness/bench/peer.h.

Debian's OpenBLAS falls back to slow kernels on processors that it does not know. OPENBLAS_CORETYPE
names one that it does; the script sets it, unless it is set, and reports the speed of a product
both ways.

Usage: echo '{"work": "speed"}' | pytorch.py
"""
import json
import math
import os
import subprocess
import sys
import time

import peer


def core_type():
    with open("/proc/cpuinfo") as f:
        flags = next((line.split() for line in f if line.startswith("flags")), [])
    if "avx512bw" in flags:
        return "SkylakeX"
    return "Haswell" if "avx2" in flags else ""


try:
    import torch
    import torch.nn.functional as F
except ImportError:
    peer.not_installed("python3-torch")


def product_speed(n=1024):
    a, b = torch.rand(n, n), torch.rand(n, n)
    best = 1e9
    for _ in range(8):
        t = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - t)
    return 2 * n ** 3 / best / 1e9


def speed_without():
    """The same product in a process of its own, without our choice of kernels."""
    env = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    env["PB_PEER_PLAIN"] = "1"
    try:
        out = subprocess.run([sys.executable, __file__], input='{"work": "speed"}\n', env=env,
                             capture_output=True, text=True, timeout=300, check=True).stdout
        return json.loads(out.splitlines()[0])["speed"]
    except (subprocess.SubprocessError, ValueError, KeyError, IndexError):
        return float("nan")


class Model:
    """Weights (out,in); what is trained requires gradients."""

    def __init__(self, q):
        self.q = q
        C, Fn, V = q["width"], q["ffn"], q["vocab"]
        self.H, self.KVH = q["heads"], q["kv_heads"]
        self.D = C // self.H
        kv = self.KVH * self.D
        self.shapes = {"q": (C, C), "k": (kv, C), "v": (kv, C), "o": (C, C), "gate": (Fn, C),
                       "up": (Fn, C), "down": (C, Fn)}
        g = torch.Generator().manual_seed(1)

        def normal(*shape):
            return torch.randn(*shape, generator=g) * 0.02

        self.embed = normal(V, C)
        self.norm = torch.ones(C)
        self.layers = [{"attn_norm": torch.ones(C), "ffn_norm": torch.ones(C),
                        **{n: normal(*s) for n, s in self.shapes.items()}}
                       for _ in range(q["layers"])]
        self.adapter = [self.make_adapter(normal) for _ in self.layers]
        for p in self.parameters():
            p.requires_grad_(True)
        inv = 1.0 / 10000 ** (torch.arange(0, self.D, 2).float() / self.D)
        angle = torch.outer(torch.arange(4096).float(), inv)
        self.cos = torch.cat([angle.cos()] * 2, -1)
        self.sin = torch.cat([angle.sin()] * 2, -1)

    def make_adapter(self, normal):
        m, C, kv = self.q["method"], self.q["width"], self.KVH * self.D
        if m == "lora":
            return {n: (normal(8, i), normal(o, 8)) for n, (o, i) in self.shapes.items()}
        if m == "ia3":
            return {"k": torch.ones(kv), "v": torch.ones(kv), "mid": torch.ones(self.q["ffn"])}
        if m == "prefix":
            return {"k": normal(16, self.KVH, self.D), "v": normal(16, self.KVH, self.D)}
        if m == "pedro":
            return {"down": normal(8, C), "up": normal(C + kv + self.q["ffn"], 8),
                    "a": torch.tensor([-0.0036, 0.5, 0.42, 0.1265, 0.0161, 0.0007, -3.3e-6]),
                    "b": torch.tensor([0, 0.253, 0, 0.0014, 0])}
        if m in ("base", "full"):
            return {}
        raise ValueError(m)

    def parameters(self):
        if self.q["method"] == "full":
            return [self.embed, self.norm] + [w for la in self.layers for w in la.values()]
        out = []
        for a in self.adapter:
            for w in a.values():
                out += list(w) if isinstance(w, tuple) else [w]
        return out

    def linear(self, i, name, x):
        y = F.linear(x, self.layers[i][name])
        if self.q["method"] == "lora":
            A, B = self.adapter[i][name]
            y = y + 2.0 * F.linear(F.linear(x, A), B)
        return y

    def rotate(self, x, pos):
        half = x.shape[-1] // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], -1)
        return x * self.cos[pos] + turned * self.sin[pos]

    @staticmethod
    def rms(x, w):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * w

    def vectors(self, i, h, n_prompt):
        a = self.adapter[i]
        t = F.linear(h[:, n_prompt - 1], a["down"])
        top = sum(a["a"][j] * t ** j for j in range(7))
        under = 1 + sum(a["b"][j] * t ** (j + 1) for j in range(5)).abs()
        v = 1 + F.linear(top / under, a["up"])
        C, kv = self.q["width"], self.KVH * self.D
        return v[:, None, :C], v[:, None, C:C + kv], v[:, None, C + kv:]

    def forward(self, tokens, cache=None, pos0=0):
        """Hidden states (S,T,C). cache: per layer [keys, values] (S,KVH,n,D), grown in place."""
        m, (S, T) = self.q["method"], tokens.shape
        x = self.embed[tokens]
        prefix = 16 if m == "prefix" else 0
        pos = torch.arange(pos0 + prefix, pos0 + prefix + T)
        for i, la in enumerate(self.layers):
            h = self.rms(x, la["attn_norm"])
            q, k, v = (self.linear(i, n, h) for n in "qkv")
            if m == "ia3":
                k, v = k * self.adapter[i]["k"], v * self.adapter[i]["v"]
            if m == "pedro":
                lq, lv, lu = self.vectors(i, h, T // 2)
                q, v = q * lq, v * lv
            q = self.rotate(q.view(S, T, self.H, self.D).transpose(1, 2), pos)
            k = self.rotate(k.view(S, T, self.KVH, self.D).transpose(1, 2), pos)
            v = v.view(S, T, self.KVH, self.D).transpose(1, 2)
            if m == "prefix":
                a = self.adapter[i]
                k = torch.cat([a["k"].transpose(0, 1).expand(S, -1, -1, -1), k], 2)
                v = torch.cat([a["v"].transpose(0, 1).expand(S, -1, -1, -1), v], 2)
            if cache is not None:
                if cache[i] is not None:
                    k, v = torch.cat([cache[i][0], k], 2), torch.cat([cache[i][1], v], 2)
                cache[i] = (k, v)
            if self.H != self.KVH:
                k = k.repeat_interleave(self.H // self.KVH, 1)
                v = v.repeat_interleave(self.H // self.KVH, 1)
            s = q @ k.transpose(-1, -2) / math.sqrt(self.D)
            if T > 1:
                n = k.shape[2]
                s = s + torch.full((T, n), -math.inf).triu(n - T + 1)
            y = (s.softmax(-1) @ v).transpose(1, 2).reshape(S, T, self.H * self.D)
            x = x + self.linear(i, "o", y)
            h = self.rms(x, la["ffn_norm"])
            gate, up = self.linear(i, "gate", h), self.linear(i, "up", h)
            if m == "pedro":
                up = up * lu
            mid = F.silu(gate) * up
            if m == "ia3":
                mid = mid * self.adapter[i]["mid"]
            x = x + self.linear(i, "down", mid)
        return self.rms(x, self.norm)


def job(q):
    """A function that does the work once."""
    model = Model(q)
    S, T, V = q["sequences"], q["tokens"], q["vocab"]
    tokens = torch.randint(V, (S, T), generator=torch.Generator().manual_seed(2))
    target = torch.randint(V, (S * T,), generator=torch.Generator().manual_seed(3))
    if q["work"] == "train":
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0)

        def train():
            optimizer.zero_grad(set_to_none=True)
            h = model.forward(tokens).view(S * T, -1)
            F.cross_entropy(F.linear(h, model.embed), target).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return train
    if q["work"] == "prefill":
        def prefill():
            with torch.no_grad():
                h = model.forward(tokens, [None] * q["layers"])
                F.linear(h[:, -1], model.embed)
        return prefill
    with torch.no_grad():
        full = [None] * q["layers"]
        model.forward(torch.randint(V, (S, q["context"])), full)

    def decode():
        with torch.no_grad():
            h = model.forward(tokens, list(full), q["context"])
            F.linear(h[:, -1], model.embed)
    return decode


def prepare(q):
    torch.set_num_threads(q.get("threads", os.cpu_count()))
    if q["work"] == "speed":
        return None, {"speed": product_speed()}
    if q["work"] not in ("train", "prefill", "decode") or q["weights"] != "fp32":
        raise peer.Absent("not done here: %s in %s" % (q["work"], q["weights"]))
    try:
        run = job(q)
    except ValueError as e:
        raise peer.Absent("no method %s here" % e) from e
    run()
    return peer.timed(run), {
        "ready": "PyTorch %s, product of 1024: %.0f GFLOP/s, %.0f without OPENBLAS_CORETYPE=%s"
        % (torch.__version__, product_speed(), speed_without(),
           os.environ.get("OPENBLAS_CORETYPE", ""))}


if __name__ == "__main__":
    if "PB_PEER_PLAIN" not in os.environ and "OPENBLAS_CORETYPE" not in os.environ:
        # Libraries read it when they are loaded.
        os.environ["OPENBLAS_CORETYPE"] = core_type()
        os.execv(sys.executable, [sys.executable, __file__] + sys.argv[1:])
    peer.serve(prepare)
