"""The tasks on original files, read a second time by Python's own csv and json: rows of the files
are those of the published tables, and every prompt, response, candidate and reference, in order, is
what the program made of tasks/NAME.json (compared by the hash of the whole data set). No prompt is
in two splits. The descriptions are not read here; templates and rules are written out again.
"""
import csv
import glob
import hashlib
import json
import os
import re

import check

SPACE = " \t\n\v\f\r"  # what is cut from both ends of a field; no other space, such as U+00A0


def sha(text):
    return hashlib.sha256(text if isinstance(text, bytes) else text.encode()).hexdigest()


def trim(text):
    return text.strip(SPACE)


def content(splits):
    """The chain of hashes that stands in a result file as data_sha256."""
    state = ""

    def absorb(role, s):
        nonlocal state
        state = sha("%s %s %s" % (state, role, sha(s)))
    for name in ("train", "valid", "test"):
        absorb("split", name)
        for prompt, response, candidates, references in splits.get(name, []):
            absorb("prompt", prompt)
            absorb("response", response)
            for c in candidates:
                absorb("candidate", c)
            for r in references:
                absorb("reference", r)
    return state


def path(*parts):
    return check.data(*parts)


def jsonl(*parts):
    with open(path(*parts), encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def load(*parts):
    with open(path(*parts), encoding="utf-8") as f:
        return json.load(f)


def table(*parts):
    with open(path(*parts), encoding="utf-8", newline="") as f:
        return list(csv.reader(f))


def tabbed(*parts):
    with open(path(*parts), encoding="utf-8", newline="") as f:
        return [[trim(x) for x in line.rstrip("\r\n").split("\t")]
                for line in f.read().split("\n") if line]


def write(prompt, *references):
    return prompt, references[0], [], list(dict.fromkeys(references))


def rank(prompt, candidates, label):
    return prompt, candidates[label], candidates, []


def place(text):
    """Where in [0, 1) a text falls that decides about the split."""
    return int(sha(text)[:8], 16) / 2 ** 32


def cut(rows, bounds, key=lambda e: e[0]):
    """Pairs (key, example) or examples, by the place of the key."""
    return {name: [e for e in rows if a <= place(key(e)) < b] for name, a, b in bounds}


NINE = (("train", 0, 0.9), ("valid", 0.9, 1))
EIGHT = (("train", 0, 0.8), ("valid", 0.8, 0.9), ("test", 0.9, 1))


def unshared(splits):
    test = {e[0] for e in splits["test"]}
    later = test | {e[0] for e in splits["valid"]}
    return {"train": [e for e in splits.get("train", []) if e[0] not in later],
            "valid": [e for e in splits["valid"] if e[0] not in test], "test": splits["test"]}


def viggo():
    def grouped(rows):
        refs = {}
        for mr, ref in rows:
            refs.setdefault(trim(mr) + "\n", []).append(trim(ref))
        return [write(mr, *r) for mr, r in refs.items()]
    rows = {s: table("viggo", f)[1:] for s, f in
            (("train", "train.csv"), ("valid", "dev.csv"), ("test", "test.csv"))}
    yield {s: len(r) for s, r in rows.items()}, (5103, 714, 1083)
    yield unshared({"train": [write(trim(a) + "\n", trim(b)) for a, b in rows["train"]],
                    "valid": grouped(rows["valid"]), "test": grouped(rows["test"])})


def wikisql():
    rows = {s: tabbed("wikisql", f) for s, f in
            (("train", "train.tsv"), ("valid", "dev.tsv"), ("test", "test.tsv"))}
    yield {s: len(r) for s, r in rows.items()}, (56355, 8421, 15878)
    whole = {s: [x for x in r if "TABLEalias" not in x[3] and not
                 re.search(r"[=<>] (\"var\d+\"|var\d+|\"var\d+|var\d+\")( |$)", x[3])]
             for s, r in rows.items()}
    yield unshared({s: [write("columns: %s\nquestion: %s\n" % (c, q), sql) for q, _, c, sql in r]
                    for s, r in whole.items()})


def sst2():
    rows = {s: tabbed("sst2", f)[1:] for s, f in
            (("train", "train.tsv"), ("valid", "dev.tsv"), ("test", "test.tsv"))}
    yield {s: len(r) for s, r in rows.items()}, (60614, 6735, 872)
    yield unshared({s: [rank(x + "\nsentiment:", [" negative", " positive"], int(y)) for x, y in r]
                    for s, r in rows.items()})


def by_field(folder, field, make, counts):
    train, test = jsonl(folder, "train.jsonl"), jsonl(folder, "dev.jsonl")
    yield {"train": len(train), "test": len(test)}, counts
    splits = cut(train, NINE, lambda row: trim(row[field]))
    splits["test"] = test
    yield {s: [make(row) for row in rows] for s, rows in splits.items()}


def rte():
    return by_field("rte", "sentence_1", lambda x: rank(
        "%s\nquestion: %s True or false?\nanswer:" % (trim(x["sentence_1"]),
                                                    trim(x["sentence_2"])),
        [" true", " false"], ["entailment", "not_entailment"].index(x["label"])), (2490, 0, 277))


def cb():
    return by_field("cb", "premise", lambda x: rank(
        "%s\nquestion: %s. True, false, or neither?\nanswer:" % (trim(x["premise"]),
                                                               trim(x["hypothesis"])),
        [" true", " false", " neither"],
        ["entailment", "contradiction", "neutral"].index(x["label"])), (250, 0, 56))


def copa():
    return by_field("copa", "premise", lambda x: rank(
        "%s\nWhat was the %s?\n" % (trim(x["premise"]), x["question"]),
        [trim(x["choice1"]), trim(x["choice2"])], x["label"]), (400, 0, 100))


def boolq():
    rows = jsonl("boolq", "dev_with_passage.jsonl")
    yield {"test": len(rows)}, (0, 0, 3270)
    splits = cut(rows, EIGHT, lambda x: trim(x["passage"]))
    yield {s: [rank("%s\nquestion: %s?\nanswer:" % (trim(x["passage"]), trim(x["question"])),
                    [" no", " yes"], int(x["answer"])) for x in r] for s, r in splits.items()}


def boolq_closed():
    def make(x):
        q = x["instruction"].split("question: ", 1)[1].rsplit("\n\nAnswer format", 1)[0]
        return rank("question: %s\nanswer:" % trim(q), [" no", " yes"],
                    ["false", "true"].index(x["answer"]))
    train, test = load("boolq", "train_question_only.json"), load("boolq",
                                                                  "test_question_only.json")
    yield {"train": len(train), "test": len(test)}, (9427, 0, 3270)
    splits = cut([make(x) for x in train], NINE)
    splits["test"] = [make(x) for x in test]
    yield unshared(splits)


def choices(folder, counts):
    def make(x):
        head, rest = x["instruction"].split("\n\nAnswer1: ", 1)
        answers = re.split(r" Answer[2-5]: ", rest.rsplit("\n\nAnswer format: ", 1)[0])
        question = head.split("the correct answer to the question: ", 1)[1]
        return rank("question: %s\nanswer:" % trim(question), [" " + trim(a) for a in answers],
                    int(x["answer"][-1]) - 1)
    train, test = load(folder, "train.json"), load(folder, "test.json")
    yield {"train": len(train), "test": len(test)}, counts
    splits = cut([e for e in map(make, train) if len(set(e[2])) == len(e[2])], NINE)
    splits["test"] = [make(x) for x in test]
    yield unshared(splits)


def gsm8k():
    def make(x):
        return write("question: %s\nanswer:\n" % trim(x["question"]), trim(x["answer"]))
    train, test = jsonl("gsm8k", "train.jsonl"), jsonl("gsm8k", "test.jsonl")
    yield {"train": len(train), "test": len(test)}, (7473, 0, 1319)
    splits = cut([make(x) for x in train], NINE)
    splits["test"] = [make(x) for x in test]
    yield splits


def squad():
    rows = [(trim(p["context"]), trim(q["question"]), [trim(a["text"]) for a in q["answers"]])
            for article in load("squad", "dev.json")["data"] for p in article["paragraphs"]
            for q in p["qas"]]
    yield {"test": len(rows)}, (0, 0, 1190)
    yield {s: [write("%s\nquestion: %s\nanswer:\n" % (c, q), *a) for c, q, a in r]
           for s, r in cut(rows, EIGHT).items()}


def alpaca():
    def make(x):
        said = trim(x["instruction"])
        if trim(x["input"]):
            said += "\n\n### Input:\n" + trim(x["input"])
        return "### Instruction:\n%s\n\n### Response:\n" % said, trim(x["output"]), [], [
            trim(x["output"])]
    rows = load("alpaca", "random_9k.json")
    questions = jsonl("mt_bench", "question.jsonl")
    yield {"train": len(rows), "test": len(questions)}, (9229, 0, 80)
    splits = {s: [e for e in r if e[1]] for s, r in
              cut([make(x) for x in rows], (("train", 0, 0.95), ("valid", 0.95, 1))).items()}
    turns = [[], []]
    for q in questions:
        first, second = (trim(t) for t in q["turns"])
        answers = [trim(a) for a in q.get("reference", [])] + ["", ""]
        one = "### Instruction:\n%s\n\n### Response:\n" % first
        two = "%s%s\n\n### Instruction:\n%s\n\n### Response:\n" % (one, answers[0], second)
        for turn, prompt, answer in zip(turns, (one, two), answers):
            if answer:
                turn.append(write(prompt, answer))
    splits["test"] = turns[0] + turns[1]
    yield splits


def bbh():
    rows = [x for f in sorted(glob.glob(os.path.join(path("bbh"), "*.json")))
            for x in load("bbh", os.path.basename(f))["examples"]]
    yield {"test": len(rows)}, (0, 0, 6511)
    yield {"test": [write("%s\nanswer:\n" % trim(x["input"]), trim(x["target"]))
                    for x in rows]}


def mmlu():
    rows = {s: [x for f in sorted(glob.glob(os.path.join(path("mmlu", d), "*.csv")))
                for x in table("mmlu", d, os.path.basename(f))[1:]]
            for s, d in (("valid", "dev"), ("test", "test"))}
    yield {s: len(r) for s, r in rows.items()}, (0, 285, 14042)
    yield unshared({s: [rank("%s\nA. %s\nB. %s\nC. %s\nD. %s\nanswer:"
                             % tuple(trim(x) for x in r[:5]), [" A", " B", " C", " D"], int(r[5]))
                        for r in rs] for s, rs in rows.items()})


TASKS = {"viggo": viggo, "wikisql": wikisql, "sst2": sst2, "rte": rte, "cb": cb, "copa": copa,
         "boolq": boolq, "boolq_closed": boolq_closed,
         "arc_easy": lambda: choices("arc_easy", (2251, 0, 2376)),
         "arc_challenge": lambda: choices("arc_challenge", (1119, 0, 1172)),
         "openbookqa": lambda: choices("openbookqa", (4957, 0, 500)),
         "gsm8k": gsm8k, "squad": squad, "alpaca": alpaca, "bbh": bbh, "mmlu": mmlu}
described = {os.path.basename(f)[:-5]
             for f in glob.glob(os.path.join(check.source(), "tasks", "*.json"))}
check.ok("every description is read here: %s" % (described ^ set(TASKS)), described == set(TASKS))

root = check.data()
if not root or not any(check.data(name) for name in TASKS):
    check.skip("no data folder with original files (PB_DATA)")
for name, read in sorted(TASKS.items()):
    folder = {"boolq_closed": "boolq"}.get(name, name)
    if not check.data(folder):
        print("skipped: %s, not in the data folder" % name)
        continue
    steps = read()
    rows, published = next(steps)
    counts = tuple(rows.get(s, 0) for s in ("train", "valid", "test"))
    check.ok("%s: rows %s, published %s" % (name, counts, published), counts == published)
    splits = next(steps)
    prompts = [{e[0] for e in splits.get(s, [])} for s in ("train", "valid", "test")]
    check.ok("%s: splits share no prompt" % name,
             sum(map(len, prompts)) == len(set().union(*prompts)))
    said = check.run("tasks", "show", name, "--data", root, "--count", "0")
    want = content(splits)
    check.ok("%s: content %s" % (name, want), "content %s, as the suite" % want[:16] in said)
    with open(os.path.join(check.source(), "tasks", name + ".json"), encoding="utf-8") as f:
        check.ok("%s: content of the description" % name, json.load(f)["content"] == want)
    for s in ("train", "valid", "test"):
        check.ok("%s %s: %d examples" % (name, s, len(splits.get(s, []))),
                 re.search(r"^%s +%d " % (s, len(splits.get(s, []))), said, re.M))
    print(name, {s: len(e) for s, e in splits.items()})
check.finish()
