"""`pedrobench tokenizer encode` and `decode` on 10,000 lines of real and odd text:
- SentencePiece models against Debian's spm_encode and spm_decode, id for id: LLaMA-2's, and models
  trained here by spm_train (BPE and unigram, with and without bytes to fall back on, several
  normalisations, user-defined symbols);
- LLaMA-2's pieces written as a tokenizer.json (merges as Hugging Face's converter makes them)
  against the same ids;
- GPT-2's tokenizer.json against the slow BPE below, which cuts words by unicodedata.
Where the tokenizer loses nothing, decoding gives every line back."""
import json
import os
import random
import shutil
import subprocess
import tempfile
import unicodedata

import check

LINES = 10000
ODD = [
    "", " ", "  ", "   leading", "trailing   ", "a  b   c    d", "\ttab\tand \t space", "x\r", "\r",
    "\x00", "nul\x00inside", "\x01\x02\x1f\x7f", "bell\x07 esc\x1b[31m", "\x0b\x0c vertical",
    "na\u00efve caf\u00e9 \u20ac5", "cafe\u0301 e\u0301\u0327", "\ufb01n \ufb03 \u2460 \u00bd \u33a1",
    "\uff21\uff22\uff23 \uff11\uff12\uff13\uff01", "\uff76\uff9e\uff77\uff9e \u30ab\u3099",
    "\u3000wide\u3000space", "no\u00a0break \u2009thin \u2028line \u2029par", "\ufeffbom",
    "zero\u200bwidth\u200djoin\u00ad", "\u2581under\u2581\u2581", "a \u2581 b", "\ufffd",
    "\U0001f600\U0001f601", "\U0001f469\u200d\U0001f4bb\U0001f3fd ok", "\U0001f1e9\U0001f1ea\U0001f1eb",
    "\u6f22\u5b57\u304b\u306a\u4ea4\u3058\u308a\u6587", "\u4f60\u597d\uff0c\u4e16\u754c\u3002",
    "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab", "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0661\u0662\u0663",
    "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac \u03c2",
    "\u0e44\u0e17\u0e22\u0e20\u0e32\u0e29\u0e32", "\U00010348\U0001d54f\U000e0041",
    "<s>", "</s> <unk> <s>", "<0x41> <0x0A>", "<|endoftext|>", "<sep> a <sep><cls>b", "[[mask]]x",
    "1234567890 3.14159 1,000,000", "I'll you're we've 'tis DON'T it's", "snake_case CamelCase x=y;",
    "a" * 3000, "ab" * 2000 + " " * 300 + "!", "\u6f22" * 700, "(((((((((((((((((((((((((((((((((",
]
BAD = [b"\xff", b"\xc3", b"a\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok \xc0\x80 ok",
       b"\xe2\x96", b"\x80\x80\x80\x80 \xf0\x9f\x98"]  # not UTF-8


def texts():
    """Lists of texts, by the file they are from."""
    def lines(name):
        with open(check.data(name), encoding="utf-8", newline="\n") as f:
            return f.read().split("\n")
    alpaca = json.loads("\n".join(lines("alpaca/random_9k.json")))
    gsm8k = [json.loads(s) for s in lines("gsm8k/test.jsonl") if s]
    squad = json.loads("\n".join(lines("squad/dev.json")))["data"]
    squad = [p for a in squad for p in a["paragraphs"]]
    return [
        lines("e2e/train.tsv"), lines("sst2/train.tsv"), lines("corpus/tinystories_sample.txt"),
        [s for r in alpaca for k in ("instruction", "input", "output") for s in r[k].split("\n")],
        [s for r in gsm8k for k in ("question", "answer") for s in r[k].split("\n")],
        [s for p in squad for t in [p["context"]] + [q["question"] for q in p["qas"]]
         for s in t.split("\n")]]


def random_line(rng):
    """Characters of everywhere, with runs of spaces."""
    ranges = [(32, 126)] * 4 + [(0, 31), (0x80, 0x24f), (0x300, 0x36f), (0x370, 0x5ff),
                                (0x900, 0xdff), (0x1e00, 0x2bff), (0x3000, 0x9fff),
                                (0xac00, 0xd7a3), (0xf900, 0xffff), (0x1f300, 0x1faff)]
    out = []
    for _ in range(rng.randrange(1, 60)):
        c = chr(rng.randint(*rng.choice(ranges)))
        out += [" " * rng.randrange(4), c * rng.choice([1, 1, 1, 2, 5])]
    return "".join(out).replace("\n", "")


def make_lines():
    """The odd lines, and the real ones."""
    rng = random.Random(1)
    odd = ODD + [random_line(rng) for _ in range(600)]
    odd = [s.encode() for s in odd] + BAD
    sources = texts()
    real = []
    while len(odd) + len(real) < LINES:
        real.append(rng.choice(sources[len(real) % len(sources)]).encode())
    return odd, real


def spm(program, model, lines, *args):
    p = subprocess.run([program, "--model=" + model, *args], input=b"\n".join(lines) + b"\n",
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
    if p.returncode:
        raise RuntimeError("%s: %s" % (program, p.stderr.decode()[-300:]))
    return p.stdout.split(b"\n")[:-1]


def ours(what, path, lines):
    p = subprocess.run([check.program(), "tokenizer", what, "--tokenizer", path],
                       input=b"\n".join(lines) + b"\n", stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=300)
    if p.returncode:
        raise RuntimeError("tokenizer %s: %s" % (what, p.stderr.decode()[-300:]))
    return p.stdout.split(b"\n")[:-1]


def same(label, lines, got, want):
    """Every line's result is the wanted one; the first that is not is shown."""
    if not check.ok("%s: %d results for %d" % (label, len(got), len(want)), len(got) == len(want)):
        return
    wrong = [i for i in range(len(want)) if got[i] != want[i]]
    first = "" if not wrong else "; line %d, %.80r: got %.120r, not %.120r" % (
        wrong[0], lines[wrong[0]], got[wrong[0]], want[wrong[0]])
    check.ok("%s: %d of %d lines differ%s" % (label, len(wrong), len(want), first), not wrong)


def is_utf8(line):
    try:
        line.decode()
        return True
    except UnicodeDecodeError:
        return False


def against_spm(label, model, lines, exact):
    """`exact`: lines that are UTF-8 and without U+2581 come back byte for byte."""
    try:
        want = spm("spm_encode", model, lines, "--output_format=id")
        got = ours("encode", model, lines)
        same(label + ", ids", lines, got, want)
        text = ours("decode", model, want)
        same(label + ", text", lines, text, spm("spm_decode", model, want, "--input_format=id"))
        if exact:
            kept = [i for i, s in enumerate(lines) if is_utf8(s) and "\u2581".encode() not in s]
            check.ok(label + ": nearly all lines can come back", len(kept) > 0.9 * LINES)
            same(label + ", there and back", [lines[i] for i in kept], [text[i] for i in kept],
                 [lines[i] for i in kept])
        return want
    except (RuntimeError, subprocess.TimeoutExpired) as e:
        check.ok("%s: %s" % (label, e), False)


TRAINED = {  # flags of spm_train, and whether such a model loses nothing
    "bpe": ("bpe", {}, False),
    "bpe bytes": ("bpe", dict(byte_fallback="true"), False),
    "bpe identity bytes": ("bpe", dict(byte_fallback="true", normalization_rule_name="identity",
                                       remove_extra_whitespaces="false"), True),
    "bpe identity, no prefix, digits": (
        "bpe", dict(byte_fallback="true", normalization_rule_name="identity", split_digits="true",
                    remove_extra_whitespaces="false", add_dummy_prefix="false",
                    allow_whitespace_only_pieces="true"), True),
    "bpe symbols": ("bpe", dict(user_defined_symbols="<sep>,<cls>,[[mask]],ing,  ",
                                byte_fallback="true"), False),
    "bpe nfkc_cf": ("bpe", dict(normalization_rule_name="nfkc_cf"), False),
    "unigram": ("unigram", {}, False),
    "unigram bytes": ("unigram", dict(byte_fallback="true"), False),
    "unigram identity bytes": (
        "unigram", dict(byte_fallback="true", normalization_rule_name="identity",
                        remove_extra_whitespaces="false"), True),
    "unigram symbols": ("unigram", dict(user_defined_symbols="<sep>,<cls>,[[mask]],ing",
                                        control_symbols="<ctl>", pad_id="3"), False),
    "unigram nfkc, no prefix": (
        "unigram", dict(normalization_rule_name="nfkc", add_dummy_prefix="false"), False),
}


def train(folder, name, text):
    kind, flags, _ = TRAINED[name]
    prefix = os.path.join(folder, name.replace(" ", "-").replace(",", ""))
    p = subprocess.run(["spm_train", "--input=" + text, "--model_prefix=" + prefix,
                        "--model_type=" + kind, "--vocab_size=1500", "--num_threads=2",
                        "--minloglevel=2", "--character_coverage=0.999",
                        *("--%s=%s" % f for f in flags.items())],
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
    if p.returncode:
        raise RuntimeError("spm_train, %s: %s" % (name, p.stderr.decode()[-300:]))
    return prefix + ".model"


def pieces(path):
    """[(piece, score, type)] of a tokenizer.model."""
    with open(path, "rb") as f:
        data = f.read()

    def fields(data):
        at = 0

        def number():
            nonlocal at
            value = shift = 0
            while True:
                b = data[at]
                value |= (b & 127) << shift
                at, shift = at + 1, shift + 7
                if b < 128:
                    return value
        while at < len(data):
            key = number()
            size = {0: 0, 1: 8, 5: 4}.get(key & 7)
            value = number() if size == 0 else None
            size = number() if size is None else size
            yield key >> 3, data[at:at + size] if value is None else value
            at += size
    out = []
    for number, value in fields(data):
        if number == 1:
            piece = dict(fields(value))
            score = memoryview(piece[2]).cast("f")[0]
            out.append((piece[1].decode(), score, piece.get(3, 1)))
    return out


def llama_json(model, path):
    """The pieces as tokenizer.json; every way to put a piece together is a merge, by score."""
    all_pieces = pieces(model)
    vocab = {p: i for i, (p, _, _) in enumerate(all_pieces)}
    merges = []
    for piece, score, kind in all_pieces:
        if kind == 1:
            parts = [(piece[:k], piece[k:]) for k in range(1, len(piece))]
            parts = [p for p in parts if p[0] in vocab and p[1] in vocab]
            merges += [(-score, p) for p in sorted(parts, key=lambda p: (vocab[p[0]], vocab[p[1]]))]
    merges.sort(key=lambda m: m[0])
    with open(path, "w") as f:
        json.dump({
            "version": "1.0",
            "added_tokens": [dict(id=i, content=p, special=True, normalized=False, lstrip=False,
                                  rstrip=False, single_word=False)
                             for i, (p, _, kind) in enumerate(all_pieces) if kind in (2, 3)],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
            "pre_tokenizer": None,
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True,
                      "byte_fallback": True, "vocab": vocab,
                      "merges": [" ".join(p) for _, p in merges]}}, f)
    return path


def cut_words(text):
    """'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"""
    def kind(c):
        if c in "\t\n\x0b\x0c\r \x85\xa0" or unicodedata.category(c) in ("Zs", "Zl", "Zp"):
            return " "
        k = unicodedata.category(c)[0]
        return k if k in "LN" else "other"
    kinds, at, n = [kind(c) for c in text], 0, len(text)
    while at < n:
        short = next((s for s in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
                      if text.startswith(s, at)), None)
        if short:
            end = at + len(short)
        else:
            start = at + (text[at] == " " and at + 1 < n and kinds[at + 1] != " ")
            end = start
            while end < n and kinds[end] == kinds[start]:
                end += 1
            if kinds[start] == " " and end < n and end - start > 1:
                end -= 1  # the last one goes to the next word
        yield text[at:end]
        at = end


def gpt2_oracle(vocab, merges):
    printable = [b for b in range(256) if 32 < b < 127 or (b > 160 and b != 173)]
    others = [b for b in range(256) if b not in printable]
    spell = {b: chr(b) for b in printable}
    spell.update({b: chr(256 + i) for i, b in enumerate(others)})
    rank, known = {m: i for i, m in enumerate(merges)}, {}

    def encode_word(word):
        parts = [spell[b] for b in word.encode()]
        while len(parts) > 1:
            best = min(zip(parts, parts[1:]), key=lambda p: rank.get(p, len(rank)))
            if best not in rank:
                break
            k = 0
            while k + 1 < len(parts):
                if (parts[k], parts[k + 1]) == best:
                    parts[k:k + 2] = ["".join(best)]
                k += 1
        return [vocab[p] for p in parts]

    def encode(line):
        ids = []
        for word in cut_words(line.decode()):
            if word not in known:
                known[word] = encode_word(word)
            ids += known[word]
        return " ".join(map(str, ids)).encode()
    return encode


def check_gpt2(folder, lines):
    with open(check.data("tokenizers/gpt2/vocab.json"), encoding="utf-8") as f:
        vocab = json.load(f)
    with open(check.data("tokenizers/gpt2/vocab.bpe"), encoding="utf-8") as f:
        merges = [tuple(s.split(" ")) for s in f.read().split("\n")[1:] if s]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    path = os.path.join(folder, "gpt2.json")
    with open(path, "w") as f:
        json.dump({"version": "1.0", "normalizer": None, "pre_tokenizer": byte_level,
                   "added_tokens": [dict(id=50256, content="<|endoftext|>", special=True)],
                   "post_processor": byte_level, "decoder": byte_level,
                   "model": {"type": "BPE", "vocab": vocab, "merges": merges}}, f)
    encode = gpt2_oracle(vocab, merges)
    kept = [s for s in lines if is_utf8(s)]
    got = ours("encode", path, kept)
    same("GPT-2 tokenizer.json, ids", kept, got, [encode(s) for s in kept])
    got = ours("encode", path, lines)
    same("GPT-2 tokenizer.json, there and back", lines, ours("decode", path, got), lines)


check.program()
for tool in ("spm_encode", "spm_decode", "spm_train"):
    if not shutil.which(tool):
        check.skip("no %s (Debian: sentencepiece)" % tool)
for part in ("tokenizers", "e2e", "sst2", "gsm8k", "squad", "alpaca", "corpus"):
    if not check.data(part):
        check.skip("no folder %s in the data folder (PB_DATA)" % part)
with tempfile.TemporaryDirectory() as tmp:
    odd, real = make_lines()
    lines = odd + real
    llama = check.data("tokenizers/llama2/tokenizer.model")
    want = against_spm("LLaMA-2", llama, lines, True)
    try:
        path = llama_json(llama, os.path.join(tmp, "llama.json"))
        valid = [i for i, s in enumerate(lines) if is_utf8(s)]
        some = [lines[i] for i in valid]
        got = ours("encode", path, some)
        same("LLaMA-2 tokenizer.json, ids", some, got, [want[i] for i in valid])
        kept = [i for i, s in enumerate(some) if "\u2581".encode() not in s]
        same("LLaMA-2 tokenizer.json, there and back", [some[i] for i in kept],
             ours("decode", path, [got[i] for i in kept]), [some[i] for i in kept])
        check_gpt2(tmp, lines)
    except RuntimeError as e:
        check.ok(str(e), False)
    text = os.path.join(tmp, "text")
    with open(text, "wb") as f:
        f.write(b"\n".join(real + [s.encode() for s in ODD if "\x00" not in s]) + b"\n")
    for name, (_, _, exact) in TRAINED.items():
        try:
            against_spm(name, train(tmp, name, text), lines, exact)
        except RuntimeError as e:
            check.ok(str(e), False)
    print("%d lines, %d tokenizers" % (len(lines), len(TRAINED) + 3))
check.finish()
