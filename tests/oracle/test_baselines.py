"""paper/backbone/baselines.py: probabilities sum to one, and are those of a plain implementation of
modified Kneser-Ney with dictionaries; texts are split and counted as the backbone's are."""
import collections
import json
import math
import os
import random
import subprocess
import sys
import tempfile

import numpy as np

import check

sys.path.insert(0, os.path.join(check.source(), "paper", "backbone"))
import baselines  # noqa: E402

BITS, END, SYMBOLS = 5, 31, 12


class Plain:
    """The formulas of baselines.py, over tuples."""

    def __init__(self, documents, n):
        self.n = n
        self.count = [collections.Counter() for _ in range(n + 1)]
        before = [collections.defaultdict(set) for _ in range(n + 1)]
        for d in documents:
            s = [END] * n + list(d) + [END]
            for i in range(n, len(s)):
                for k in range(1, n + 1):
                    gram = tuple(s[i - k + 1:i + 1])
                    self.count[k][gram] += 1
                    before[k][gram].add(s[i - k])
        self.kinds = [{g: c if g[0] == END and k > 1 else len(before[k][g])
                       for g, c in self.count[k].items()} for k in range(n + 1)]

    @staticmethod
    def discounts(a):
        t = [sum(x == k for x in a.values()) for k in range(5)]
        if 0 in t[1:]:
            return [0, 0.5, 1, 1.5]
        y = t[1] / (t[1] + 2 * t[2])
        d = [k - (k + 1) * y * t[k + 1] / t[k] if k else 0 for k in range(4)]
        return d if all(0 < d[k] <= k for k in (1, 2, 3)) else [0, 0.5, 1, 1.5]

    def p(self, context, w, k, top=True):
        if k == 0:
            return 1 / SYMBOLS
        lower = self.p(context[1:], w, k - 1, False)
        a = (self.count if top else self.kinds)[k]
        of = [x for g, x in a.items() if g[:-1] == context]
        if not of:
            return lower
        d = self.discounts(a)
        own = a.get(context + (w,), 0)
        return ((own - d[min(own, 3)]) + sum(d[min(x, 3)] for x in of) * lower) / sum(of)


def make(rng, n, length):
    """Documents with enough structure for counts of every size: a sticky, skewed walk."""
    out = []
    for _ in range(n):
        d, x = [], rng.randrange(SYMBOLS - 1)
        for _ in range(rng.randrange(1, length)):
            x = (x * 3 + min(rng.randrange(6), rng.randrange(6))) % (SYMBOLS - 1)
            d.append(x)
        out.append(d)
    return out


def key(gram):
    value = 0
    for s in gram:
        value = value << BITS | s
    return value


rng = random.Random(1)
vocabulary = list(range(SYMBOLS - 1)) + [END]
for n in (1, 2, 4):
    train, test = make(rng, 60, 40), make(rng, 8, 30) + [[5]]
    fast = baselines.NGrams(train, n, BITS, END, SYMBOLS)
    plain = Plain(train, n)
    contexts = [tuple([END] * n)[1:]] + [
        tuple(rng.choice(vocabulary[:-1]) for _ in range(n - 1)) for _ in range(20)]
    for d in test:
        s = [END] * (n - 1) + d
        contexts += [tuple(s[i - n + 1:i]) for i in range(n - 1, len(s), 5)]
    grams = [c + (w,) for c in contexts for w in vocabulary]
    got = fast.probabilities(np.array([key(g) for g in grams], np.uint64))
    check.ok("one result per order", len(got) == n)
    for k, p in enumerate(got, 1):
        sums = p.reshape(len(contexts), SYMBOLS).sum(axis=1)
        check.at_most("sum of probabilities", "order %d of %d" % (k, n),
                      check.max_error(sums, np.ones(len(contexts))), 1e-12)
        want = [plain.p(g[n - k:-1], g[-1], k) for g in grams]
        check.at_most("against dictionaries", "order %d of %d" % (k, n),
                      check.max_error(p, want), 1e-12)
        check.ok("every symbol is possible", (p > 0).all())
    real = not np.array_equal(fast.by_count[n].discount, [0, 0.5, 1, 1.5])
    check.ok("discounts of order %d are estimated" % n, real or n == 1)
    bits = fast.bits_of(test)
    for k in range(1, n + 1):
        want = 0.0
        for d in test:
            s = [END] * n + d + [END]
            want -= sum(math.log2(plain.p(tuple(s[i - k + 1:i]), s[i], k))
                        for i in range(n, len(s)))
        check.at_most("bits", "order %d of %d" % (k, n), abs(bits[k - 1] - want) / want, 1e-12)
    check.ok("distinct n-grams", fast.size(n) == len(plain.count[n]))

check.ok("white space around documents is no part of them",
         baselines.split(b"\n a b\n--  \n--c\t--", b"--") == [b"a b", b"c"])

# The whole program: a text of one symbol costs what the formulas say, by hand.
with tempfile.TemporaryDirectory() as tmp:
    paths = [os.path.join(tmp, name) for name in ("train", "valid", "out.json")]
    with open(paths[0], "w") as f:
        f.write("ab\n\n  ab \n\nb")
    with open(paths[1], "w") as f:
        f.write(" a\n")
    subprocess.run([sys.executable, baselines.__file__, "--text", paths[0], "--valid", paths[1],
                    "--order", "0", "--json", paths[2]], check=True, stdout=subprocess.PIPE,
                   stderr=subprocess.PIPE)
    with open(paths[2]) as f:
        out = json.load(f)
    rows = {r["model"]: r for r in out["rows"]}
    # Counts a 2, b 3, END 3; the discounts 1, 1.5 and 1.5 of 8 symbols go to 257 equally.
    rest = 4 / 8 / 257
    want = -math.log2((2 - 1) / 8 + rest) - math.log2((3 - 1.5) / 8 + rest)
    check.at_most("bits by hand", "order 0", abs(rows["bytes, order 0"]["bits_per_byte"] - want),
                  1e-12)
    check.ok("bytes are those of documents",
             (out["training_bytes"], out["valid_bytes"], out["training_documents"]) == (5, 1, 3))
    check.ok("compressors are there", len(rows) == 4)

# Tokens come from the program; a byte-level tokenizer without merges gives bytes again.
program = os.environ.get("PEDROBENCH")
if program:
    with tempfile.TemporaryDirectory() as tmp:
        text = os.path.join(tmp, "text")
        with open(text, "w") as f:
            f.write("the cat sat\non the mat--the dog ran to the cat")
        tokenizer = os.path.join(tmp, "tokenizer.json")
        check.run("tokenizer", "train", "--vocab", "264", "--mark", "--", "--out", tokenizer, "-q",
                  text)
        ids = baselines.encode(program, tokenizer, [b"the cat\nsat", b"dog"])
        check.ok("documents keep their line breaks", len(ids) == 2 and len(ids[0]) < 11)
        vocab, end, specials = baselines.special_ids(tokenizer)
        check.ok("the tokenizer's specials", (vocab, end, specials) == (264, 1, 2))
        check.ok("generated text", baselines.generated(program, 500, 1).count(b"\n\n") >= 2)
check.finish()
