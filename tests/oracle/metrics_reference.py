"""Metrics of answers, sums and queries, each from its definition.

SQuAD v1.1: the rules of its evaluation script (Rajpurkar et al. 2016). GSM8K: those of
lm-evaluation-harness. WikiSQL: those of the data set's lib/query.py, lib/dbengine.py and evaluate.py.
"""
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
    end = r"(?:\s*$|\s%sAND\s+(?=\S))"
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
    return float(any(same(sql_parse(hyp), sql_parse(r)) for r in refs))


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
