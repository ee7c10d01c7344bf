"""The C program's BLEU (unit_metrics --bleu) against bleu_reference.py: random text full of the
tokeniser's hard cases, and references of E2E NLG scored against each other."""
import csv
import os
import random
import subprocess
import tempfile

import bleu_reference as bleu
import check

binary = os.path.join(os.environ.get("PB_TEST_BIN", ""), "unit_metrics")
if not os.path.exists(binary):
    check.skip("PB_TEST_BIN, the folder of the test programs, is not set or has no unit_metrics")


def run(items):
    with tempfile.NamedTemporaryFile("wb", suffix=".tsv") as f:
        for hyp, refs in items:
            f.write("\t".join([hyp] + refs).encode() + b"\n")
        f.flush()
        p = subprocess.run([binary, "--bleu", f.name], stdout=subprocess.PIPE, check=True)
    *rows, scores = p.stdout.decode().splitlines()
    return [list(map(int, r.split())) for r in rows], list(map(float, scores.split()))


def compare(label, items):
    rows, scores = run(items)
    stats = [[bleu.stats(h, rs, case) for h, rs in items] for case in (False, True)]
    wrong = [i for i, row in enumerate(stats[0]) if rows[i] != row]
    check.ok("%s: statistics of %d items, %d differ, first %r" % (
        label, len(items), len(wrong), items[wrong[0]] if wrong else ""),
        not wrong and len(rows) == len(items))
    for k, got in enumerate(scores):
        want = bleu.score([sum(c) for c in zip(*stats[k // 2])], smooth=k % 2 == 1)
        check.at_most("BLEU", "%s, case %d, smooth %d" % (label, k // 2, k % 2),
                      abs(got - want), 1e-12)
    print("%s: %d items, BLEU %.4f" % (label, len(items), scores[0]))


rng = random.Random(1)
WORDS = ["the", "The", "pub", "Caf\u00e9", "\u00a320-25", "5.", ".5", "3.50", "1,000", "a.b", "..",
         "it's", "'", "--", "9-", "-9", "&amp;", "&quot;", "&amp;lt;", "<skipped>", "(", "x/y", "!",
         "a,b", ",", "-", "\u00a0", "\v", "\r", "~", "_", "`", "\\1", "A_B"]
SIGNS = "aA0 9.,-'&;/\\<>(\u00e9\u00a3"


def words(n):
    return rng.choice([" ", "", "  "]).join(rng.choice(WORDS) for _ in range(n))


def noise(n):
    return "".join(rng.choice(SIGNS) for _ in range(n))


def near_copy(text):
    chars = list(text)
    for _ in range(rng.randrange(4)):
        if chars:
            chars[rng.randrange(len(chars))] = rng.choice(SIGNS)
    return "".join(chars)


items = []
for i in range(3000):
    refs = [(words if i % 2 else noise)(rng.randrange(25)) for _ in range(rng.randrange(1, 5))]
    items.append((near_copy(rng.choice(refs)) if i % 3 else words(rng.randrange(20)), refs))
compare("random", items)
compare("empty", [("", ["a b"]), ("", [""])])
compare("one", [("a b c d e", ["a b c d f", "e"])])

path = check.data("e2e", "test.csv")
if path:
    groups = {}
    with open(path, encoding="utf-8", newline="") as f:
        for row in csv.DictReader(f):
            groups.setdefault(row["mr"], []).append(" ".join(row["ref"].split()))
    compare("E2E, one reference against the others",
            [(g[i], g[:i] + g[i + 1:]) for g in groups.values() if len(g) > 1
             for i in range(len(g))])
else:
    print("skipped: E2E, no data folder with e2e/test.csv (PB_DATA)")
check.finish()
