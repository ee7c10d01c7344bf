"""Metrics of generated text, each from its definition.

SQuAD v1.1: the rules of its evaluation script (Rajpurkar et al. 2016). GSM8K: those of
lm-evaluation-harness. WikiSQL: those of the data set's lib/query.py, lib/dbengine.py and evaluate.py. NIST: Doddington 2002
and mteval-v13a. ROUGE-L (Lin 2004) and CIDEr (Vedantam et al. 2015): as coco-caption's scripts.
"""
import math
import re
import sqlite3
import string
from collections import Counter

NO_PUNCTUATION = {ord(c): None for c in string.punctuation}


def squad_normalise(text):
    text = text.lower().translate(NO_PUNCTUATION)
    return " ".join(re.sub(r"\b(?:a|an|the)\b", " ", text).split())


def squad_em(hyp, refs):
    return max(float(squad_normalise(hyp) == squad_normalise(r)) for r in refs)


def squad_f1(hyp, refs):
    def one(ref):
        h, r = squad_normalise(hyp).split(), squad_normalise(ref).split()
        same = sum((Counter(h) & Counter(r)).values())
        if not same:
            return 0.0
        precision, recall = same / len(h), same / len(r)
        return 2 * precision * recall / (precision + recall)
    return max(map(one, refs))


def gsm8k_clean(text):
    return re.sub(r"\.$", "", re.sub(r"(?s).*#### ", "", text).replace(",", "").replace("$", ""))


def gsm8k_strict(hyp, refs):
    found = re.search(r"#### (-?[0-9.,]+)", hyp)
    return float(bool(found) and any(
        gsm8k_clean(found.group(1)) == gsm8k_clean(r.strip()) for r in refs))


def gsm8k_flexible(hyp, refs):
    found = [m.group() for m in re.finditer(r"-?[$0-9.,]{2,}|-?[0-9]+", hyp)]
    return float(bool(found) and any(
        gsm8k_clean(found[-1]) == gsm8k_clean(r.strip()) for r in refs))


def sql_parse(text):
    """(aggregate, column, [(column, operator, value)]), or None; columns without white space."""
    def name(column):
        return re.sub(r"\s", "", column.lower())

    m = re.fullmatch(r"(?is)SELECT\s+(?:(MAX|MIN|COUNT|SUM|AVG)\s+)?(\S.*?)\s+FROM\s+\S.*?"
                     r"(?:\s+WHERE\s+(\S.*))?", text.strip())
    if not m:
        return None
    conditions, rest = [], m.group(3)
    end = r"(?:\s*$|\s%s(?-i:AND)\s+(?=\S))"
    while rest:
        c = re.match(r"(?is)(\S.*?)\s+([=<>])\s+(?:([\"'])(.*?)\3" + end % "*" +
                     r"|(?![\"'])(\S.*?)" + end % "+" + ")", rest)
        if not c:
            return None
        conditions.append((name(c.group(1)), c.group(2), (c.group(4) or c.group(5) or "").lower()))
        rest = rest[c.end():]
    return (m.group(1) or "").upper(), name(m.group(2)), conditions


def wikisql_logical_form(hyp, refs):
    def same(a, b):
        return a is not None and a[:2] == b[:2] and set(a[2]) == set(b[2])
    return float(any(same(sql_parse(hyp), sql_parse(r)) if sql_parse(r) else hyp.split() == r.split()
                     for r in refs))


def wikisql_answers(db, table, columns, query):
    """What a query gives, or None when it cannot be asked."""
    names = [c.lower() for c in columns]
    types = [row[2].lower() for row in db.execute("PRAGMA table_info('%s')" % table)]
    try:
        aggregate, column, conditions = query
        text = "SELECT %s(col%d) FROM '%s'" % (aggregate, names.index(column), table)
        values, parts = {}, []
        for column, op, value in conditions:
            i = names.index(column)
            if types[i] == "real":
                try:
                    value = float(value.replace(",", ""))
                except ValueError:
                    value = float(re.findall(r"[-+]?\d*\.\d+|\d+", value)[0])
            values["col%d" % i] = value
            parts.append("col%d %s :col%d" % (i, op, i))
        if parts:
            text += " WHERE " + " AND ".join(parts)
        return [row[0] for row in db.execute(text, values)]
    except (TypeError, ValueError, IndexError):
        return None


def wikisql_execution(hyp, refs, path, table, columns):
    db = sqlite3.connect(path)
    got = wikisql_answers(db, table, columns, sql_parse(hyp))
    return float(any(got is not None and got == wikisql_answers(db, table, columns, sql_parse(r))
                     for r in refs))


def nist(items, tokens, order=5):
    """NIST of a set, [(hypothesis, references)], with mteval-v13a's mean reference length."""
    def grams(words, n):
        return Counter(tuple(words[i:i + n]) for i in range(len(words) - n + 1))

    texts = [(tokens(h), [tokens(r) for r in refs]) for h, refs in items]
    every = [r for _, refs in texts for r in refs]
    count = Counter({(): sum(map(len, every))})
    for r in every:
        for n in range(1, order + 1):
            count.update(grams(r, n))
    score = 0.0
    for n in range(1, order + 1):
        info = total = 0
        for h, refs in texts:
            best = Counter()
            for r in refs:
                best |= grams(r, n)
            own = grams(h, n)
            total += sum(own.values())
            info += sum(k * math.log2(count[w[:-1]] / count[w]) for w, k in (own & best).items())
        score += info / max(total, 1)
    length = sum(map(len, every)) / (len(every) / len(texts))
    ratio = sum(len(h) for h, _ in texts) / length
    if ratio <= 0:
        return 0.0
    return score * math.exp(math.log(0.5) * (math.log(min(1, ratio)) / math.log(1.5)) ** 2)


def rouge_l(hyp, refs):
    """Of texts whose tokens stand between spaces."""
    def lcs(a, b):
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1][j + 1] = (table[i][j] + 1 if x == y
                                       else max(table[i][j + 1], table[i + 1][j]))
        return table[-1][-1]

    h = hyp.split() or [""]
    pairs = [(lcs(h, r.split() or [""]), len(r.split()) or 1) for r in refs]
    p, q = max(n for n, _ in pairs) / len(h), max(n / m for n, m in pairs)
    return 2.44 * p * q / (q + 1.44 * p) if p and q else 0.0


def cider(items):
    """Numbers of a set, of texts whose tokens stand between spaces."""
    def grams(text):
        w = text.split()
        return [Counter(tuple(w[i:i + n]) for i in range(len(w) - n + 1)) for n in range(1, 5)]

    df = Counter()
    for _, refs in items:
        df.update({w for r in refs for c in grams(r) for w in c})

    def weights(text):
        return [{w: k * (math.log(len(items)) - math.log(max(1, df[w]))) for w, k in c.items()}
                for c in grams(text)]

    def norm(v):
        return math.sqrt(sum(x * x for x in v.values()))

    out = []
    for hyp, refs in items:
        total = 0.0
        for r in refs:
            apart = max(len(hyp.split()) - 1, 0) - max(len(r.split()) - 1, 0)
            for a, b in zip(weights(hyp), weights(r)):
                dot = sum(min(x, b[w]) * b[w] for w, x in a.items() if w in b)
                total += (dot / (norm(a) * norm(b) or 1)) * math.exp(-apart ** 2 / 72)
        out.append(10 * total / 4 / len(refs))
    return out
