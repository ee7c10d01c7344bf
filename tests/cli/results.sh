# table, plot, report, collect and rebuild as a user calls them, on synthetic runs.
set -u
: "${PEDROBENCH:?}" "${PB_SOURCE:?}" "${PB_PYTHON:=python3}"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1
bad=0

fail() {
    echo "FAILED: $*"
    bad=1
}

# expect CODE WORDS COMMAND...: the exit code, and words of what it says.
expect() {
    local code=$1 words=$2 got
    shift 2
    "$PEDROBENCH" "$@" >out 2>err
    got=$?
    [ "$got" = "$code" ] || fail "$*: exit code $got, not $code: $(head -c 300 err)"
    grep -qF -- "$words" out err || fail "$*: does not say \"$words\": $(head -c 300 err)"
}

"$PB_PYTHON" "$PB_SOURCE/tests/oracle/synthetic.py" runs || exit 1
expect 0 "sql-prefix-4.h5" rebuild runs/*.jsonl

for c in table plot report collect rebuild; do
    expect 0 "Examples:" $c --help
    expect 2 "unrecognized option" $c --nonsense
    expect 2 "was given" $c
done
mkdir empty
expect 1 "holds no run file" table empty
expect 1 "cannot open" table nowhere.h5
expect 2 "unknown table format" table runs --format pdf
expect 2 "--out is missing" plot runs
expect 2 "unknown figure" plot runs --out f --figure pie
expect 1 "not a pedrobench-run file" table runs/latency-1.jsonl
expect 1 "no latency scenario" table runs/sql-lora-1.h5 --latency

expect 0 "pedro bottleneck=6" table runs
expect 0 "none" table runs --metric loss --baseline ia3 --resamples 200
expect 0 "| pedro bottleneck=6 |" table runs --format markdown
"$PEDROBENCH" table runs --resamples 500 >a
"$PEDROBENCH" table runs --resamples 500 >b
cmp -s a b || fail "two tables of the same runs differ"
"$PEDROBENCH" table runs --format csv >scores.csv
"$PEDROBENCH" table runs --latency --format csv >latency.csv
"$PB_PYTHON" - <<'END' || fail "the CSV tables"
import csv
import statistics
import sys

import synthetic

rows = list(csv.DictReader(open("scores.csv", newline="")))
assert len(rows) == 15, len(rows)
for r in rows:
    scores = []
    for name, config, events in synthetic.runs():
        e = [e for e in events if e["event"] == "eval"]
        if config["method"] == r["method"] and config.get("task") == r["task"] and e:
            scores.append(100 * e[0]["metrics"][r["metric"]])
    assert int(r["n"]) == len(scores) == 3
    assert abs(float(r["mean"]) - statistics.mean(scores)) < 1e-6, r
    assert abs(float(r["sd"]) - statistics.stdev(scores)) < 1e-6, r
    assert float(r["lo95"]) <= float(r["mean"]) <= float(r["hi95"]), r
    assert r["resampled"] == "seeds and items", r
    diverged = r["method"] == "prefix" and r["task"] == "sql"
    assert int(r["diverged"]) == diverged, r
rows = {r["scenario"]: r for r in csv.DictReader(open("latency.csv", newline=""))}
for name, config, events in synthetic.runs():
    for e in events:
        if e["event"] == "latency":
            a, r = e["attrs"], rows[e["scenario"]]
            ms = statistics.median(e["samples_ns"]) * 1e-6 * a["rows"] / a["tokens_per_sample"]
            assert abs(float(r["median_ms_per_token"]) - ms) < 1e-6 * ms, r
            assert abs(float(r["tokens_per_second"]) - 1e3 * a["rows"] / ms) < 1e-3, r
END

if command -v gnuplot >/dev/null; then
    expect 0 "scores.svg" plot runs --out figures
    for f in scores forest score-params loss token-time throughput memory; do
        for end in svg png dat; do
            [ -s figures/$f.$end ] || fail "figures/$f.$end is missing"
        done
        "$PB_PYTHON" -c "import sys, xml.dom.minidom as m; m.parse('figures/$f.svg')" ||
            fail "$f.svg is not well formed"
    done
    "$PB_PYTHON" - <<'END' || fail "the numbers of the figures"
import csv

rows = {(r["task"], r["label"]): r for r in csv.DictReader(open("scores.csv", newline=""))}


def blocks(name):
    text = open("figures/%s.dat" % name).read().split("\n\n\n")
    return [[line.split("\t") for line in b.splitlines() if line[0] != "#"] for b in text if b]


lines = [line for b in blocks("forest") for line in b]
assert len(lines) == 9, len(lines)  # the baseline and the backbone alone have no line
for line in lines:
    want = rows[line[0], line[1]]
    for got, key in zip(line[4:7], ("difference", "difference_lo95", "difference_hi95")):
        assert abs(float(got) - float(want[key])) < 1e-6, (line, want)
for line in (line for b in blocks("score-params") for line in b if line[7] != "NaN"):
    # Set apart from others of like size, but at its size; the front's last corner has none.
    size, drawn = float(line[3]), float(line[7])
    assert not abs(drawn / size - 1) > 0.0501, line
fronts = [b for b in blocks("score-params") if b[0][1] == "Pareto front"]
assert len(fronts) == 3
for task, front in zip(sorted({r[0] for r in rows}), fronts):
    points = [(float(r["trainable"]), float(r["mean"])) for (t, _), r in rows.items()
              if t == task and r["block"] != "reference"]
    best = {m for x, m in points if not any(y <= x and n > m for y, n in points)}
    assert {round(float(line[4]), 6) for line in front} == {round(m, 6) for m in best}, task
END
    expect 0 "scores.tex" plot runs --out figures --figure scores --terminals tex
    grep -q 'includegraphics.*{scores}' figures/scores.tex || fail "the .tex file names its picture with a folder"
    grep -qF $'exact\xc2\xa0match\xc2\xa0(\\%)' figures/scores.tex || fail "% is not escaped for LaTeX"
    [ -s figures/scores.pdf ] || fail "the picture of scores.tex"
    expect 2 "unknown kind of figure \"gif\"" plot runs --out f --terminals svg,gif
    "$PB_PYTHON" - <<'END' || exit 1
import json

import synthetic


def put(name, run, change):
    config, events = run
    change(config)
    with open(name, "w") as f:
        for e in [synthetic.start(config)] + events[1:]:
            f.write(json.dumps(e) + "\n")


import os
os.makedirs("trials")
os.makedirs("ablation")
for rate in (0.001, 0.01, 0.1):
    for method in ("lora", "pedro"):
        put("trials/%s-%g.jsonl" % (method, rate),
            synthetic.train_run(method, "sql", 101, method == "lora" and rate == 0.1),
            lambda c: c.update(lr=rate))
for i, options in enumerate(({}, {"pool": "mean"}, {"act": "relu"}, {"pool": "max"})):
    for seed in (1, 2, 3):
        put("ablation/%d-%d.jsonl" % (i, seed), synthetic.train_run("pedro", "sql", seed),
            lambda c: c.update(options=dict({"pool": "last", "act": "gelu"}, **options)))
END
    expect 0 "lora-0.1.h5" rebuild trials/*.jsonl
    expect 0 "learning-rate.svg" plot trials --out figures --figure learning-rate --terminals svg
    [ "$(cut -f 2,3,7,8 figures/learning-rate.dat | grep -c .)" = 7 ] || fail "six trials"
    grep -qP 'lora\t0.1\tNaN\tNaN\tNaN\t0\t1$' figures/learning-rate.dat || fail "the trial that diverged"
    expect 0 "" rebuild ablation/*.jsonl
    expect 0 "ablation.svg" plot ablation --out figures --figure ablation --terminals svg
    [ "$(cut -f 2 figures/ablation.dat | grep . | tr '\n' ' ')" = "row act=relu pool=max pool=mean " ] ||
        fail "the variants: $(cut -f 2 figures/ablation.dat)"
    expect 0 "" plot runs --out "it's here" --figure memory --terminals svg
    [ -s "it's here/memory.svg" ] || fail "a folder with a quote in its name"
    expect 0 "report.html" report runs --out report.html --title "<b>A & B</b>"
    "$PB_PYTHON" - <<'END' || fail "the report"
import re

s = open("report.html", encoding="utf-8").read()
ids = re.findall(r"\bid=[\"']([^\"']+)", s)
assert len(ids) == len(set(ids)), "an id occurs twice"
refs = re.findall(r"href=[\"']#([^\"']+)", s) + re.findall(r"url\(#([^)]+)\)", s)
assert set(refs) <= set(ids), set(refs) - set(ids)
assert not re.search(r"<script|(src|href)=[\"'](?!#)", s), "it is not self-contained"
assert "<b>A" not in s and "&lt;b&gt;A &amp; B" in s
assert s.count("<figure") == 7 and "diverged" in s and "synthetic" in s
END
    PATH=/nonexistent "$PEDROBENCH" plot runs --out f >out 2>err && fail "plot without gnuplot"
    grep -q "install gnuplot" err || fail "plot without gnuplot says: $(cat err)"
else
    echo "no gnuplot: figures were not tested"
fi
expect 0 "tables.html" report runs --out tables.html --no-figures
expect 0 "views/all.h5" collect runs --out views/all.h5

head -c 3000 runs/sql-lora-1.h5 >runs/sql-lora-1.cut && mv runs/sql-lora-1.cut runs/sql-lora-1.h5
expect 1 "does not match its checksum" table runs
expect 0 "sql-lora-1.h5" rebuild runs/sql-lora-1.jsonl
expect 0 "pedro" table runs
exit $bad
