"""llama2.c inference again, in NumPy: reads its files as they are (legacy v0 checkpoint, rows of q
and k in interleaved order) and shares no code with reference.py, so that the two check each other.
Source: karpathy/llama2.c, export.py (legacy_export), run.c (forward, encode, decode, generate).

Usage: greedy_reference.py DIR [--prompt TEXT] [--max-new 200] [--dtype fp64] [--nats FILE]
DIR holds checkpoint_legacy.bin and tokenizer.bin. Greedy decoding; stops at BOS or EOS.
"""
import argparse
import os
import re
import struct

import numpy as np

BOS, EOS = 1, 2


class Tokenizer:
    """tokenizer.bin: i32 longest piece; per piece f32 score, i32 length, bytes."""

    def __init__(self, path, vocab):
        with open(path, "rb") as f:
            raw = f.read()
        self.pieces, self.scores, at = [], [], 4
        for _ in range(vocab):
            score, n = struct.unpack_from("<fi", raw, at)
            self.pieces.append(raw[at + 8:at + 8 + n])
            self.scores.append(score)
            at += 8 + n
        assert at == len(raw)
        self.ids = {}
        for i, p in enumerate(self.pieces):
            self.ids.setdefault(p, i)

    def encode(self, text):
        """BOS, a blank in front, code points (else their bytes + 3), then the pair with the best
        score is merged, the leftmost of equals, until none is left."""
        ids = []
        for ch in " " + text if text else "":
            b = ch.encode()
            ids += [self.ids[b]] if b in self.ids else [3 + x for x in b]
        def pair(i):
            j = self.ids.get(self.pieces[ids[i]] + self.pieces[ids[i + 1]])
            return (-1e10, -1) if j is None else (self.scores[j], j)
        pairs = [pair(i) for i in range(len(ids) - 1)]
        while pairs:
            best = max(p[0] for p in pairs)
            i = next(i for i, p in enumerate(pairs) if p[0] == best)
            if pairs[i][1] < 0:
                break
            ids[i:i + 2] = [pairs[i][1]]
            del pairs[i]
            if i < len(pairs):
                pairs[i] = pair(i)
            if i > 0:
                pairs[i - 1] = pair(i - 1)
        return [BOS] + ids

    def decode(self, ids):
        """The text after BOS: the blank at the start goes, <0xNN> is that byte."""
        out = b""
        for prev, i in zip(ids, ids[1:]):
            p = self.pieces[i]
            p = p[1:] if prev == BOS and p[:1] == b" " else p
            byte = re.fullmatch(rb"<0x([0-9A-F]{2})>", p)
            out += bytes([int(byte.group(1), 16)]) if byte else p
        return out.decode("utf-8", "replace")


class Model:
    """logits(token, pos) for one token at a time, with a KV cache, as run.c's forward."""

    def __init__(self, path, dtype=np.float64):
        with open(path, "rb") as f:
            raw = f.read()
        self.dim, self.hidden, self.n, self.heads, self.kv, vocab, self.seq = struct.unpack_from(
            "<7i", raw)
        data, at = np.frombuffer(raw, "<f4", offset=28).astype(dtype), 0
        tied, self.vocab = vocab > 0, abs(vocab)
        self.hd = self.dim // self.heads

        def take(*shape):
            nonlocal at
            size = int(np.prod(shape))
            at += size
            return data[at - size:at].reshape(shape)
        L, C, F, KV = self.n, self.dim, self.hidden, self.kv * self.hd
        self.emb, self.rms_att = take(self.vocab, C), take(L, C)
        self.wq, self.wk, self.wv, self.wo = (take(L, C, C), take(L, KV, C), take(L, KV, C),
                                              take(L, C, C))
        self.rms_ffn = take(L, C)
        self.w1, self.w2, self.w3 = take(L, F, C), take(L, C, F), take(L, F, C)
        self.rms_final = take(C)
        take(self.seq * self.hd)  # two tables of RoPE, unused
        self.head = self.emb if tied else take(self.vocab, C)
        assert at == len(data), "file size does not follow from its header"
        self.dtype = dtype
        self.k = np.zeros((L, self.seq, self.kv, self.hd), dtype)
        self.v = np.zeros_like(self.k)

    def norm(self, x, g):
        return g * (x / np.sqrt((x * x).mean() + self.dtype(1e-5)))

    def rotate(self, x, pos):
        """Neighbours 2i, 2i+1 of a head turn by pos * 10000^(-2i/head size)."""
        a = pos * 10000.0 ** (-np.arange(0, self.hd, 2) / self.hd)
        z = x.reshape(-1, self.hd // 2, 2)
        c, s = np.cos(a).astype(self.dtype), np.sin(a).astype(self.dtype)
        return np.stack([z[..., 0] * c - z[..., 1] * s, z[..., 0] * s + z[..., 1] * c], -1).reshape(
            -1, self.hd)

    def logits(self, token, pos):
        x, group = self.emb[token], self.heads // self.kv
        for l in range(self.n):
            h = self.norm(x, self.rms_att[l])
            q = self.rotate(self.wq[l] @ h, pos)                          # (H,D)
            self.k[l, pos] = self.rotate(self.wk[l] @ h, pos)
            self.v[l, pos] = (self.wv[l] @ h).reshape(self.kv, self.hd)
            att = []
            for j in range(self.heads):
                k, v = self.k[l, :pos + 1, j // group], self.v[l, :pos + 1, j // group]
                p = k @ q[j] / np.sqrt(self.dtype(self.hd))
                p = np.exp(p - p.max())
                att.append(p @ v / p.sum())
            x = x + self.wo[l] @ np.concatenate(att)
            h = self.norm(x, self.rms_ffn[l])
            g = self.w1[l] @ h
            x = x + self.w2[l] @ (g / (1 + np.exp(-g)) * (self.w3[l] @ h))
        return self.head @ self.norm(x, self.rms_final)


def load(folder, dtype=np.float64):
    m = Model(os.path.join(folder, "checkpoint_legacy.bin"), dtype)
    return m, Tokenizer(os.path.join(folder, "tokenizer.bin"), m.vocab)


def generate(model, ids, max_new):
    """(all ids without the final BOS or EOS, the smallest lead of the best logit over the next)."""
    ids, lead, n = list(ids), np.inf, len(ids)
    for pos in range(min(n + max_new - 1, model.seq)):
        z = model.logits(ids[pos], pos)
        if pos < n - 1:
            continue
        second, first = np.sort(z)[-2:]
        lead, best = min(lead, first - second), int(z.argmax())
        if best in (BOS, EOS):
            break
        ids.append(best)
    return ids, lead


def nats(model, ids):
    """The negative log-likelihood of ids[1:], each."""
    out = []
    for pos, (t, u) in enumerate(zip(ids, ids[1:])):
        z = model.logits(t, pos)
        out.append(np.log(np.exp(z - z.max()).sum()) + z.max() - z[u])
    return out


def documents(path, count):
    """`count` texts, evenly spaced over a file (its parts differ in difficulty), which separates
    them by <|endoftext|>; a last one without the mark is dropped; blank ends go."""
    with open(path, encoding="utf-8") as f:
        parts = [p for p in map(str.strip, f.read().split("<|endoftext|>")[:-1]) if p]
    return [parts[i * len(parts) // count] for i in range(min(count, len(parts)))]


def corpus_nats(model, tok, path, count):
    """(mean nats per token, tokens) over whole texts, each from BOS, cut at the model's context."""
    total = []
    for text in documents(path, count):
        total += nats(model, tok.encode(text)[:model.seq])
    return float(np.mean(total)), len(total)


def main():
    ap = argparse.ArgumentParser(description="llama2.c greedy generation in NumPy")
    ap.add_argument("folder")
    ap.add_argument("--prompt", default="Once upon a time")
    ap.add_argument("--max-new", type=int, default=200)
    ap.add_argument("--dtype", choices=["fp32", "fp64"], default="fp64")
    ap.add_argument("--nats", metavar="FILE", help="print nats per token on 50 of its texts")
    a = ap.parse_args()
    model, tok = load(a.folder, np.float32 if a.dtype == "fp32" else np.float64)
    if a.nats:
        print("%.4f nats per token over %d tokens" % corpus_nats(model, tok, a.nats, 50))
    else:
        print(tok.decode(generate(model, tok.encode(a.prompt), a.max_new)[0]))


if __name__ == "__main__":
    main()
