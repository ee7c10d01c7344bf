"""Real pretrained weights predict TinyStories as well as was published with them: the mean negative
log-likelihood of `pedrobench logits` on the sample's first stories, each from its BOS and cut at
the model's context. (Later parts of the sample are harder: 1.47 nats per token over all of it.)
"""
import os

import numpy as np

import check
import greedy_reference as greedy

BOS, BYTE = 1, 3


def characters(path):
    """Encodes text by characters and bytes, as BabyLlama's SentencePiece model does."""
    ids = {}
    with open(path, encoding="utf-8") as f:
        for line in f.read().split("\n"):
            if "\t" in line:
                number, piece = line.split("\t")
                ids.setdefault(piece, int(number))

    def encode(text):
        out = [BOS]
        for c in "\u2581" + text.replace(" ", "\u2581"):
            known = ids.get(c) if len(c) == 1 else None
            out += [known] if known is not None else [BYTE + b for b in c.encode()]
        return out
    return encode


def loss(path, runs):
    total = n = 0
    for ids in runs:
        got = check.run_json("logits", "--model", path, "--tokens", ",".join(map(str, ids[:-1])))
        z = np.asarray(got["logits"])
        z -= z.max(1, keepdims=True)
        z -= np.log(np.exp(z).sum(1, keepdims=True))
        total -= z[np.arange(len(z)), ids[1:]].sum()
        n += len(z)
    return total / n, n


check.program()
sample = check.data("corpus", "tinystories_sample.txt")
folders = [check.data("weights", d) for d in ("stories260K", "babyllama_tok361")]
if not sample or None in folders:
    check.skip("no data folder with corpus and weights (PB_DATA)")
with open(sample, encoding="utf-8") as f:
    stories = [s.strip() for s in f.read().split("<|endoftext|>")][:60]
_, tok = greedy.load(folders[0])
for name, path, encode, context, published in (
        ("stories260K, nats per token", os.path.join(folders[0], "checkpoint_legacy.bin"),
         tok.encode, 512, 1.30),
        ("babyllama, nats per character", os.path.join(folders[1], "model5000.bin"),
         characters(os.path.join(folders[1], "vocab361.derived.tsv")), 256, 0.56)):
    try:
        got, n = loss(path, [encode(s)[:context + 1] for s in stories])
        print("%s: %.4f over %d, published %.2f" % (name, got, n, published))
        check.ok("%s: %.4f is not %.2f" % (name, got, published), abs(got - published) <= 0.02)
    except Exception as e:
        check.ok("%s: %s" % (name, e), False)
check.finish()
