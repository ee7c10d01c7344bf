"""The C program's metrics of generated text (unit_metrics --items) against implementations of their
definitions (metrics_reference.py): text full of hard cases, and the original data sets' own answers
disturbed a little, where PB_DATA has them."""
import csv
import json
import os
import random
import sqlite3
import subprocess
import tempfile

import bleu_reference as bleu
import check
import metrics_reference as ref

binary = os.path.join(os.environ.get("PB_TEST_BIN", ""), "unit_metrics")
if not os.path.exists(binary):
    check.skip("PB_TEST_BIN, the folder of the test programs, is not set or has no unit_metrics")
rng = random.Random(1)


def run(items, families, **table):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump(dict(items=[[h] + rs for h, rs in items], metrics=families, **table), f)
        f.flush()
        p = subprocess.run([binary, "--items", f.name], stdout=subprocess.PIPE, check=True)
    return json.loads(p.stdout)


def compare(label, items, **metrics):
    """Every item's number, of metrics with one per item, and their mean."""
    got = run(items, sorted(metrics))
    for name, function in sorted(metrics.items()):
        want = [function(h, rs) for h, rs in items]
        compare_numbers(label, name, got[name], want, items)


def compare_numbers(label, name, got, want, items):
    wrong = [i for i, w in enumerate(want) if not (abs(got["items"][i] - w) <= 1e-12)]
    check.ok("%s, %s: %d of %d differ, first %r: %r instead of %r" % (
        label, name, len(wrong), len(items), items[wrong[0]] if wrong else "",
        got["items"][wrong[0]] if wrong else 0, want[wrong[0]] if wrong else 0), not wrong)
    check.at_most("mean", "%s, %s" % (label, name), abs(got["score"] - sum(want) / len(want)), 1e-12)
    print("%s: %d items, %s %.4f" % (label, len(items), name, got["score"]))


def disturbed(text, signs, most=3):
    chars = list(text)
    for _ in range(rng.randrange(most)):
        i = rng.randrange(len(chars) + 1)
        chars[i:i + rng.randrange(2)] = rng.choice(signs)
    return "".join(chars)


# ---------------------------------------------------------------- SQuAD
WORDS = ["a", "an", "the", "A", "The", "THE", "them", "Caf\u00e9", "\u00a3the", "the\u00e9", "a-b",
         "a.", "_the_", "the\u2013", "\u2014a", "U.S.", "\u00c9t\u00e9", "\u00c5", "5", "\u00b2",
         "'s", "\u3000", "\u00a0", "the\u00a0end", "\x1c", "\u212a", "\u4e16\u754c", "!", "\u2019"]


def words(n):
    return rng.choice([" ", "", "  "]).join(rng.choice(WORDS) for _ in range(n))


items = []
for i in range(4000):
    refs = [words(rng.randrange(6)) for _ in range(rng.randrange(1, 4))]
    items.append((disturbed(rng.choice(refs), WORDS + [" "]) if i % 4 else words(4), refs))
compare("SQuAD, random", items, squad_em=ref.squad_em, squad_f1=ref.squad_f1)

# ---------------------------------------------------------------- GSM8K
SIGNS = ["0", "1", "25", "-", ",", ".", "$", "#", "#### ", " ", "\n", "####", "x", "-3", "1,000"]


def sum_text(n):
    return "".join(rng.choice(SIGNS) for _ in range(n))


items = []
for i in range(4000):
    n = rng.choice(["5", "-5", "1,000", "2.5", "18", "0", "1000000"])
    answer = "so it is %s\n#### %s" % (n, n)
    items.append((disturbed(answer, SIGNS) if i % 3 else sum_text(12), [answer]))
compare("GSM8K, random", items, gsm8k_strict=ref.gsm8k_strict, gsm8k_flexible=ref.gsm8k_flexible)

# ---------------------------------------------------------------- WikiSQL
COLUMNS = ["NAME", "NO._FIELD", "SCHOOL/CLUB", "COUNT"]
VALUES = ["Amir", "amir", "3", "3,883", "about 4", "4", "2.5", "-1", "13' 5\"", "A AND B", "x > y"]


def query():
    out = "SELECT %s%s FROM table" % (rng.choice(["", "MAX ", "count ", "SUM "]),
                                      rng.choice(COLUMNS[:3]))
    conditions = ['%s %s "%s"' % (rng.choice(COLUMNS), rng.choice("=><"), rng.choice(VALUES))
                  for _ in range(rng.randrange(4))]
    return out + (" WHERE " + " AND ".join(conditions) if conditions else ""), conditions


def reordered(text, conditions):
    rng.shuffle(conditions)
    if rng.randrange(4) == 0 and conditions:
        conditions = conditions + [rng.choice(conditions)]
    head = text.split(" WHERE ")[0]
    return head + (" WHERE " + " AND ".join(conditions) if conditions else "")


items = []
for i in range(4000):
    text, conditions = query()
    hyp = query()[0] if i % 5 == 0 else reordered(text, conditions)
    if i % 3 == 0:
        hyp = disturbed(hyp, [" ", "x", '"', "AND ", "=", "a", "A"])
    items.append((hyp, [text]))
compare("WikiSQL, random", items, wikisql_logical_form=ref.wikisql_logical_form)

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "t.db")
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE table_1_1 (col0 text, col1 real, col2 text, col3 real)")
    for _ in range(30):
        db.execute("INSERT INTO table_1_1 VALUES (?, ?, ?, ?)", (
            rng.choice(VALUES).lower(), rng.choice([3, 4, 2.5, -1, 3883, None]),
            rng.choice(VALUES).lower(), rng.choice([3, 4, None])))
    db.commit()
    answerable = [(h, rs) for h, rs in items if ref.wikisql_answers(
        db, "table_1_1", COLUMNS, ref.sql_parse(rs[0])) is not None]
    want = [ref.wikisql_execution(h, rs, path, "table_1_1", COLUMNS) for h, rs in answerable]
    got = run(answerable, ["wikisql_execution"], database=path, table="table_1_1", columns=COLUMNS)
    compare_numbers("WikiSQL, random", "wikisql_execution", got["wikisql_execution"], want,
                    answerable)

# ---------------------------------------------------------------- NIST, ROUGE-L, CIDEr
PLAIN = "it pub food near river cheap good family the is in and star 5 20".split()


def plain(n, of=None):
    return " ".join(rng.choice(of or PLAIN) for _ in range(n))


def prose(label, items):
    got = run(items, ["nist", "rouge_l", "cider"])
    check.at_most("NIST", label, abs(got["nist"]["score"] - ref.nist(items, bleu.tokens)), 1e-10)
    print("%s: %d items, nist %.4f" % (label, len(items), got["nist"]["score"]))
    for name, want in (("rouge_l", [ref.rouge_l(h, rs) for h, rs in items]),
                       ("cider", ref.cider(items))):
        compare_numbers(label, name, got[name], want, items)


items = []
for i in range(400):
    refs = [plain(rng.randrange(14)) for _ in range(rng.randrange(1, 5))]
    words_ = rng.choice(refs).split()
    for _ in range(rng.randrange(3)):
        words_.insert(rng.randrange(len(words_) + 1), rng.choice(PLAIN))
    items.append((" ".join(words_) if i % 4 else plain(rng.randrange(9)), refs))
prose("prose, random", items)
prose("prose, one item", [("it is good", ["it is good food", "good"])])
prose("prose, empty", [("", ["it is"]), ("it", ["", "it it"]), ("", [""])])
short = [(plain(8), [plain(12)]) for _ in range(50)]  # the length counts
prose("prose, short", short)
odd = [(disturbed(rng.choice(rs), list("Aa0 9.,-'&;/\u00e9")), rs) for rs in (
    ["The pub, near it's 3.50.", "\u00a320-25 (cheap)"], ["Caf\u00e9 5-star!", "1,000 a/b"]) * 100]
check.at_most("NIST", "signs", abs(run(odd, ["nist"])["nist"]["score"] - ref.nist(odd, bleu.tokens)),
              1e-10)

# ---------------------------------------------------------------- the data sets' own answers
path = check.data("squad", "dev.json")
if path:
    with open(path, encoding="utf-8") as f:
        questions = [q for d in json.load(f)["data"] for p in d["paragraphs"] for q in p["qas"]]
    items = [(disturbed(rng.choice(q["answers"])["text"], WORDS + [" "]),
              [a["text"] for a in q["answers"]]) for q in questions]
    compare("SQuAD, disturbed", items, squad_em=ref.squad_em, squad_f1=ref.squad_f1)
path = check.data("e2e", "test.csv")
if path:
    groups = {}
    with open(path, encoding="utf-8", newline="") as f:
        for row in csv.DictReader(f):
            groups.setdefault(row["mr"], []).append(" ".join(row["ref"].split()))
    items = [(g[0], g[1:]) for g in groups.values() if len(g) > 1]
    want = ref.nist(items, bleu.tokens)
    check.at_most("NIST", "E2E", abs(run(items, ["nist"])["nist"]["score"] - want), 1e-10)
    print("E2E, one reference against the others: nist %.4f" % want)
path = check.data("gsm8k", "test.jsonl")
if path:
    with open(path, encoding="utf-8") as f:
        answers = [json.loads(line)["answer"] for line in f]
    compare("GSM8K, disturbed", [(disturbed(a, SIGNS, 2), [a]) for a in answers],
            gsm8k_strict=ref.gsm8k_strict, gsm8k_flexible=ref.gsm8k_flexible)
path = check.data("wikisql", "dev.tsv")
if path:
    with open(path, encoding="utf-8") as f:
        queries = [line.rstrip("\n").split("\t")[3] for line in f][:4000]
    items = [(disturbed(q, [" ", "x", "AND ", "a"], 2), [q]) for q in queries]
    read = sum(ref.sql_parse(q) is not None for q in queries)
    check.ok("WikiSQL: %d of %d queries are read" % (read, len(queries)), read == len(queries))
    compare("WikiSQL, disturbed", items, wikisql_logical_form=ref.wikisql_logical_form)
check.finish()
