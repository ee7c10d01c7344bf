# shellcheck shell=bash
# pedrobench table in all its forms: the CSV equals what h5py finds in the result files, the other
# forms say the same, LaTeX escapes its characters, published figures are marked.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"
cd "$tmp" || exit
: "${PB_PYTHON:=/usr/bin/python3}"
"$PB_PYTHON" -c 'import h5py' 2>/dev/null || skip "python3-h5py is missing"
"$PB_PYTHON" "$PB_SOURCE/tests/oracle/synthetic.py" runs || exit
exits 0 "$PEDROBENCH" rebuild runs/*.jsonl

exits 0 "$PEDROBENCH" table runs --out tables --resamples 200
for name in overview restaurant sql yesno latency; do
    for end in txt md csv tex; do
        ok "$name.$end is there" [ -s "tables/$name.$end" ]
    done
done
ok "the tables agree with the files" "$PB_PYTHON" - <<'END'
import csv
import glob
import re
import statistics

import h5py

scale = {"bleu": 100, "accuracy": 100, "exact_match": 100}
scores = {}  # (task, method) -> seed -> score
for path in glob.glob("runs/*.h5"):
    with h5py.File(path, "r") as f:
        if "eval" not in f or f.attrs["status"] != "complete":
            continue
        c = f["config"].attrs
        e = f["eval"][c["task"]]
        metric = e.attrs["headline"]
        key = c["task"], c["method"]
        scores.setdefault(key, {})[c["seed"]] = scale[metric] * e["metrics"].attrs[metric]
assert len(scores) == 15


def read(name):
    return list(csv.DictReader(open("tables/" + name + ".csv", newline="", encoding="utf-8")))


def cells(name):  # what the other forms have, as lists of cells of each line
    text = open("tables/" + name, encoding="utf-8").read()
    if name.endswith(".md"):
        return [[re.sub(r"\\(.)", r"\1", c).strip() for c in line.strip("| ").split(" | ")]
                for line in text.splitlines()]
    if name.endswith(".tex"):
        text = text.replace(r"$\pm$", "\u00b1").replace("$-$", "-").replace(r"$\sim$", "~")
        return [[c.strip() for c in line.replace(r"\\", "").split("&")]
                for line in text.splitlines()]
    return [re.split(r"  +", line.strip()) for line in text.splitlines()]


for task in ("restaurant", "sql", "yesno"):
    rows = {r["method"]: r for r in read(task)}
    assert set(rows) == {m for t, m in scores if t == task}
    base = scores[task, "lora"]
    for method, r in rows.items():
        x = scores[task, method]
        assert int(r["n"]) == len(x) and r["task"] == task
        assert abs(float(r["mean"]) - statistics.mean(x.values())) < 1e-6
        assert abs(float(r["sd"]) - statistics.stdev(x.values())) < 1e-6
        assert abs(float(r["median"]) - statistics.median(x.values())) < 1e-6
        if method != "lora":
            d = [x[s] - base[s] for s in x]
            assert abs(float(r["difference"]) - statistics.mean(d)) < 1e-6
            # Twice the spread of three seeds and more: 2 sqrt(3) is the factor without noise.
            assert 1.9 < float(r["detectable"]) / statistics.stdev(d) < 3.5, r
    for end in ("txt", "md", "tex"):
        lines = {line[0]: line for line in cells(task + "." + end) if len(line) > 9}
        for r in rows.values():
            line = lines[r["label"]]
            assert "%.2f \u00b1 %.2f" % (float(r["mean"]), float(r["sd"])) in line, (end, line, r)
            assert "{:,.0f}".format(float(r["trainable"])) in line
            if r["difference"]:
                assert any(c.startswith("%+.2f [" % float(r["difference"])) for c in line), line
                assert "%.2f" % float(r["detectable"]) in line
for r in read("overview"):
    for task in ("restaurant", "sql", "yesno"):
        x = scores[task, r["method"]].values()
        assert abs(float(r[task]) - statistics.mean(x)) < 1e-6
        assert abs(float(r[task + "_sd"]) - statistics.stdev(x)) < 1e-6
    for end in ("txt", "md", "tex"):
        line = [x for x in cells("overview." + end) if x[0] == r["label"]][0]
        assert any(c.startswith("%.2f \u00b1 %.2f" % (float(r["sql"]), float(r["sql_sd"])))
                   for c in line), (end, line, r)
END
"$PEDROBENCH" table runs --format latex >all.tex
ok "LaTeX escapes %" grep -qF 'sql, exact\_match \%' all.tex
ok "and leaves none" bash -c "! grep -E '(^|[^\\\\])[%_#]' all.tex | grep -vE '%$|label\{tab:'"
ok "with the rules of booktabs" test "$(grep -c '\\toprule' all.tex)" = 4
if command -v pdflatex >/dev/null; then
    {
        echo '\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}'
        cat all.tex tables/latency.tex
        echo '\end{document}'
    } >page.tex
    ok "LaTeX takes them" pdflatex -interaction=nonstopmode -halt-on-error page.tex >page.out
    # The article, of which there is one table and one figure.
    mkdir -p copy/paper copy/runs/article
    cp -r "$PB_SOURCE/paper/article" copy/paper
    exits 0 "$PEDROBENCH" table runs --resamples 100 --out copy/runs/main/tables
    if command -v gnuplot >/dev/null; then
        exits 0 "$PEDROBENCH" plot runs --figure forest --terminals tex --out copy/runs/main/figures
    fi
    (cd copy/paper/article &&
        pdflatex -interaction=nonstopmode -halt-on-error -output-directory=../../runs/article article.tex) >article.out
    ok "the article is set without results" [ -s copy/runs/article/article.pdf ]
    ok "with the table there is" grep -qF 'runs/main/tables/overview.tex' article.out
    ok "and not the others" bash -c '! grep -F "runs/budgets" article.out'
else
    echo "no LaTeX: the tables were not set"
fi

cat >published.json <<'END'
{"rows": [{"task": "sql", "method": "LoRA_x", "backbone": "big", "source": "A & B", "trainable": 1000,
           "backbone_parameters": 100000, "metrics": {"exact_match": 77.25}},
          {"task": "none_of_ours", "method": "x", "backbone": "y", "source": "z", "trainable": 1,
           "backbone_parameters": 1, "metrics": {"bleu": 1}}]}
END
exits 0 "$PEDROBENCH" table runs --published published.json --resamples 100
prints '^published by others, on other backbones: not comparable$'
prints '^LoRA_x, big \(A & B\) +1,000 +1 +0 +77.25 '
exits 0 "$PEDROBENCH" table runs --published published.json --resamples 100 --format csv
prints '^,LoRA_x,published,,"LoRA_x, big \(A & B\)",1000,1,sql,exact_match,%,0,77.25,'
sed -i 's/"source"/"sauce"/' published.json
refuses 1 table runs --published published.json
exits 0 "$PEDROBENCH" table runs --published "$PB_SOURCE/paper/published/figures.json"
exits 2 "$PEDROBENCH" table runs --out x --format csv
says 'every table in every format'
refuses 1 table runs --out /dev/null/x

for file in "$PB_SOURCE"/paper/*.json; do
    exits 0 "$PEDROBENCH" sweep "$file" --out dry --dry-run --model "$PB_SOURCE/paper/backbone-bytes"
done
finish
