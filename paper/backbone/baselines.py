#!/usr/bin/env python3
"""Bits per byte of simple models on a backbone's validation text: what its own figure is to be
compared with.

Compressors: xz and bzip2 on the validation text alone, and xz with the whole training text before
it, size(training + validation) - size(training), with a dictionary as large as both.

n-gram models over bytes and over the backbone's own tokens, trained on the same text as the
backbone: interpolated modified Kneser-Ney (Chen and Goodman 1999), without any tuned parameter.

    p_n(w|c) = max(a(cw) - D(a(cw)), 0) / A(c) + (D1 N1(c) + D2 N2(c) + D3 N3(c)) / A(c) p_n-1(w|c')

a is an n-gram's count at the highest order and the number of different symbols in front of it
below; A(c) is the sum of a over w; Nk(c) counts the w with a(cw) = k (N3: 3 or more); c' is c
without its oldest symbol; p_0 is uniform. Dk = k - (k + 1) Y t_k+1 / t_k, Y = t_1 / (t_1 + 2 t_2),
t_k the number of n-grams with a = k. An n-gram at a document's beginning has nothing in front of
it, so there a is its count at all orders.

Accounting is the backbone's: documents without the white space around them, each followed by an
END that is paid for but has no bytes; compressors get one zero byte for it. An n-gram model sees
the whole document before a symbol, as far back as its order goes.

n-grams are integers, oldest symbol in the highest bits, so that sorting groups them by context, and
no n-gram may have more than 64 bits. Needs NumPy and about 3 GB for 100 MB of text.
"""
import argparse
import bz2
import json
import lzma
import os
import subprocess
import sys
import tempfile
import time

import numpy as np


def say(*what):
    print(time.strftime("%H:%M:%S"), *what, file=sys.stderr, flush=True)


def run_starts(a):
    """Where runs of equal values begin in a sorted array."""
    new = np.empty(len(a), bool)
    new[:1] = True
    np.not_equal(a[1:], a[:-1], out=new[1:])
    return np.flatnonzero(new)


def run_lengths(starts, n):
    return np.diff(np.append(starts, n))


class Table:
    """One order's n-grams and their a, ready to be interpolated with the order below."""

    def __init__(self, keys, a, bits):
        t = [int(np.count_nonzero(a == k)) for k in range(1, 5)]
        self.discount = np.array([0, 0.5, 1, 1.5])
        if min(t) > 0:
            y = t[0] / (t[0] + 2 * t[1])
            d = [k - (k + 1) * y * t[k] / t[k - 1] for k in (1, 2, 3)]
            # Of few n-grams (single bytes, say) the estimate can be out of range.
            if all(0 < x <= k for k, x in enumerate(d, 1)):
                self.discount[1:] = d
        self.keys, self.a, self.bits = keys, a, np.uint64(bits)
        context = keys >> self.bits
        starts = run_starts(context)
        self.context = context[starts]
        self.total = np.add.reduceat(a, starts).astype(float)
        self.rest = np.add.reduceat(self.discount[np.minimum(a, 3)], starts) / self.total

    def interpolate(self, keys, lower):
        """p of the n-grams `keys`, given their p one order below."""
        i = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        a = np.where(self.keys[i] == keys, self.a[i], 0)
        context = keys >> self.bits
        c = np.minimum(np.searchsorted(self.context, context), len(self.context) - 1)
        own = (a - self.discount[np.minimum(a, 3)]) / self.total[c] + self.rest[c] * lower
        return np.where(self.context[c] == context, own, lower)


def stream_of(documents, boundary, pad):
    """One array of symbols; every document stands behind `pad` boundaries and is followed by one
    that is predicted. Also: which symbols are predicted."""
    n = sum(len(d) + pad + 1 for d in documents)
    stream, predicted = np.full(n, boundary, np.uint16), np.zeros(n, bool)
    at = 0
    for d in documents:
        at += pad
        stream[at:at + len(d)] = d
        predicted[at:at + len(d) + 1] = True
        at += len(d) + 1
    return stream, predicted


class NGrams:
    """Modified Kneser-Ney models of the orders 1..n (n-gram lengths) from one training text.

    Symbols are below 1 << bits; `boundary` stands for a document's end as a symbol and for what is
    before its beginning as a context; `symbols` is how many different ones can be predicted."""

    def __init__(self, documents, n, bits, boundary, symbols):
        assert n * bits <= 64, "an n-gram has %d bits" % (n * bits)
        self.n, self.bits, self.boundary, self.symbols = n, bits, boundary, symbols
        keys = self.keys_of(documents)
        keys.sort()
        starts = run_starts(keys)
        count = run_lengths(starts, len(keys))
        keys = keys[starts]
        self.by_count, self.by_kind = {}, {}
        a = count
        for k in range(n, 0, -1):
            if k < n:
                keys = keys & self.mask(k)
                order = np.argsort(keys)
                keys = keys[order]
                starts = run_starts(keys)
                kinds = run_lengths(starts, len(keys))
                count = np.add.reduceat(count[order], starts)
                keys = keys[starts]
                oldest = keys >> np.uint64(bits * (k - 1))
                a = np.where((oldest == boundary) & (k > 1), count, kinds)
                self.by_kind[k] = Table(keys, a, bits)
            self.by_count[k] = Table(keys, count, bits)

    def mask(self, k):
        return np.uint64((1 << (self.bits * k)) - 1)

    def keys_of(self, documents):
        """The n-gram that ends at each predicted symbol."""
        stream, predicted = stream_of(documents, self.boundary, self.n - 1)
        keys = np.zeros(len(stream) - self.n + 1, np.uint64)
        for j in range(self.n):
            keys <<= np.uint64(self.bits)
            keys |= stream[j:len(stream) - self.n + 1 + j]
        return keys[predicted[self.n - 1:]]

    def probabilities(self, keys):
        """[p of every n-gram's last symbol under the model of order 1, ..., n]"""
        out, lower = [], np.full(len(keys), 1 / self.symbols)
        for k in range(1, self.n + 1):
            own = keys & self.mask(k)
            out.append(self.by_count[k].interpolate(own, lower))
            if k < self.n:
                lower = self.by_kind[k].interpolate(own, lower)
        return out

    def bits_of(self, documents):
        return [-np.log2(p).sum() for p in self.probabilities(self.keys_of(documents))]

    def size(self, k):
        return len(self.by_count[k].keys)


# ---------------------------------------------------------------- text

def split(text, mark):
    return [d for d in (part.strip() for part in text.split(mark)) if d]


def read(path):
    with open(path, "rb") as f:
        return f.read()


def generated(program, n, seed):
    return subprocess.run([program, "tasks", "--plaintext", str(n), "--task-seed", str(seed)],
                          check=True, stdout=subprocess.PIPE).stdout


def encode(program, tokenizer, documents):
    """The documents as arrays of ids, by the program itself."""
    mark = b"\x01"
    with tempfile.TemporaryFile() as f:
        for d in documents:
            if mark in d:
                sys.exit("a document has the control character 1")
            f.write(d + mark)
        f.seek(0)
        p = subprocess.Popen([program, "tokenizer", "encode", "--tokenizer", tokenizer, "--mark",
                              mark], stdin=f, stdout=subprocess.PIPE)
        ids = [np.fromstring(line, np.int32, sep=" ").astype(np.uint16) for line in p.stdout]
    if p.wait() or len(ids) != len(documents):
        sys.exit("%s could not encode the text" % program)
    return ids


def special_ids(tokenizer):
    """Size of the vocabulary, id of the token that ends a document, and how many specials there
    are: of them only the END is ever predicted."""
    config = os.path.join(os.path.dirname(tokenizer), "tokenizer_config.json")
    with open(tokenizer, encoding="utf-8") as f:
        j = json.load(f)
    with open(config, encoding="utf-8") as f:
        end = json.load(f)["eos_token"]
    added = {t["content"]: t["id"] for t in j.get("added_tokens", [])}
    vocab = len(set(j["model"]["vocab"].values()) | set(added.values()))
    return vocab, added[end], len(added)


# ---------------------------------------------------------------- the table

def compressors(train, valid):
    def size(filters, *parts):
        c = lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_NONE, filters=filters)
        return sum(len(c.compress(p)) for p in parts) + len(c.flush())

    joined = [b"".join(d + b"\0" for d in documents) for documents in (train, valid)]
    total = sum(map(len, joined))
    preset = 9 | lzma.PRESET_EXTREME
    yield "xz -9e, validation text alone", size([{"id": lzma.FILTER_LZMA2, "preset": preset}],
                                                joined[1])
    yield "bzip2 -9, validation text alone", len(bz2.compress(joined[1], 9))
    # All of the training text stays within the match finder's reach, up to 1.5 GiB.
    wide = [{"id": lzma.FILTER_LZMA2, "preset": preset,
             "dict_size": min(max(1 << 20, total), 3 << 29)}]
    yield "xz -9e after the training text", size(wide, *joined) - size(wide, joined[0])


def rows_of(args):
    start = time.time()
    mark = args.mark.encode().decode("unicode_escape").encode("latin-1") \
        if "\\" in args.mark else args.mark.encode()
    train = [d for path in args.text for d in split(read(path), mark)]
    if args.generated:
        train += split(generated(args.program, args.generated, args.seed), b"\n\n")
    valid = split(read(args.valid), mark)
    train_bytes, n = sum(map(len, train)), sum(map(len, valid))
    if not train or not valid:
        sys.exit("there is no text")
    say("training text: %d documents, %d bytes; validation text: %d documents, %d bytes" %
        (len(train), train_bytes, len(valid), n))
    yield {"training_bytes": train_bytes, "training_documents": len(train), "valid_bytes": n,
           "valid_documents": len(valid)}

    def row(model, bits, **more):
        nonlocal start
        r = {"model": model, "bits_per_byte": bits / n, "seconds": round(time.time() - start, 1)}
        start = time.time()
        say("%s: %.4f" % (model, r["bits_per_byte"]))
        return {**r, **more}

    if args.order >= 0:
        as_symbols = [[np.frombuffer(d, np.uint8) for d in text] for text in (train, valid)]
        model = NGrams(as_symbols[0], args.order + 1, 9, 256, 257)
        for k, bits in enumerate(model.bits_of(as_symbols[1]), 1):
            yield row("bytes, order %d" % (k - 1), bits, ngrams=model.size(k))
        del model, as_symbols
    if args.tokenizer:
        vocab, end, specials = special_ids(args.tokenizer)
        ids = [encode(args.program, args.tokenizer, text) for text in (train, valid)]
        say("%d training tokens, %d validation tokens" % tuple(sum(map(len, i)) for i in ids))
        model = NGrams(ids[0], args.token_order + 1, (vocab - 1).bit_length(), end,
                       vocab - specials + 1)
        for k, bits in enumerate(model.bits_of(ids[1]), 1):
            yield row("tokens, order %d" % (k - 1), bits, ngrams=model.size(k))
        del model, ids
    if not args.no_xz:
        for model, size in compressors(train, valid):
            yield row(model, 8 * size, bytes=size)


def main():
    parser = argparse.ArgumentParser(description="Bits per byte of simple models on a backbone's "
                                     "validation text.")
    parser.add_argument("--text", nargs="+", default=[], help="training texts")
    parser.add_argument("--valid", required=True, help="validation text")
    parser.add_argument("--mark", default="\\n\\n", help="what separates documents in them "
                        "(default: a blank line)")
    parser.add_argument("--generated", type=int, default=0, metavar="N",
                        help="bytes of the suite's own text to add to the training text")
    parser.add_argument("--seed", type=int, default=1, help="its seed (default 1)")
    parser.add_argument("--tokenizer", help="tokenizer.json, for n-grams of tokens")
    parser.add_argument("--order", type=int, default=6,
                        help="largest context of bytes, -1 for none (default 6)")
    parser.add_argument("--token-order", type=int, default=4,
                        help="largest context of tokens (default 4)")
    parser.add_argument("--no-xz", action="store_true", help="no compressors: they take longest")
    parser.add_argument("--program", default=os.environ.get("PEDROBENCH", "build/pedrobench"),
                        help="the suite's program (default $PEDROBENCH or build/pedrobench)")
    parser.add_argument("--json", metavar="FILE", help="write the rows to a file as well")
    args = parser.parse_args()
    texts, *rows = rows_of(args)
    print("| model | bits per byte | n-grams |\n|---|--:|--:|")
    for r in rows:
        print("| %s | %.3f | %s |" % (r["model"], r["bits_per_byte"],
                                      "{:,}".format(r["ngrams"]) if "ngrams" in r else ""))
    if args.json:
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump({**texts, "rows": rows}, f, indent=2)
            f.write("\n")


if __name__ == "__main__":
    main()
