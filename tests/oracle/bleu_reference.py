"""Corpus BLEU-4 from its definition, with mteval-v13a's tokenisation and length conventions.

    BLEU = min(1, exp(1 - r/c)) * (p_1 p_2 p_3 p_4)^(1/4),  p_n = sum of clipped matches / n-grams

Source: Papineni et al. 2002; the tokenisation rules are those documented in NIST's mteval-v13a.
"""
import math
import re
from collections import Counter

RULES = [
    (r"<skipped>", ""), (r"-\n", ""), (r"\n", " "),
    (r"&quot;", '"'), (r"&amp;", "&"), (r"&lt;", "<"), (r"&gt;", ">"),
]
SPLITS = [
    (r"([\x20-\x26\x28-\x2b\x2f\x3a-\x40\x5b-\x60\x7b-\x7e])", r" \1 "),  # signs
    (r"([^0-9])([.,])", r"\1 \2 "),
    (r"([.,])([^0-9])", r" \1 \2"),
    (r"([0-9])(-)", r"\1 \2 "),
]


def tokens(text, case=False):
    for pattern, to in RULES:
        text = re.sub(pattern, lambda m, to=to: to, text)
    text = " " + text + " "
    if not case:  # A to Z only, as tr/A-Z/a-z/
        text = re.sub(r"[A-Z]", lambda m: m.group().lower(), text)
    for pattern, to in SPLITS:
        text = re.sub(pattern, to, text)
    return [t for t in re.split(r"[ \t\n\v\f\r]+", text) if t]


def ngrams(words, n):
    return Counter(tuple(words[i:i + n]) for i in range(len(words) - n + 1))


def stats(hyp, refs, case=False):
    """[matches of order 1..4, n-grams of order 1..4, hypothesis length, closest length]"""
    h, rs = tokens(hyp, case), [tokens(r, case) for r in refs]
    matches, totals = [], []
    for n in range(1, 5):
        have, allowed = ngrams(h, n), Counter()
        for r in rs:
            allowed |= ngrams(r, n)  # the union of multisets is the maximum of counts
        matches.append(sum((have & allowed).values()))
        totals.append(sum(have.values()))
    closest = min((abs(len(r) - len(h)), len(r)) for r in rs)[1]
    return matches + totals + [len(h), closest]


def score(total, smooth=False):
    c, r = total[8], total[9]
    if c == 0:
        return 0.0
    product, missing = 1.0, 0
    for match, count in zip(total[:4], total[4:8]):
        if match == 0 and not smooth:
            return 0.0
        if count == 0:
            continue
        if match == 0:
            missing += 1
            match = 2.0 ** -missing
        product *= match / count
    return min(1.0, math.exp(1 - r / c)) * product ** 0.25
