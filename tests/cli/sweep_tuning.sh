#!/usr/bin/env bash
# Tuning within a sweep, against an independent computation over the trials' files; shards, whose
# union is the whole; and the same runs made by GNU parallel and by make.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"
cd "$tmp" || exit

"$PEDROBENCH" pretrain --out model --steps 2 --quiet \
    --geometry width=32,ffn=64,layers=1,heads=4,kv_heads=2,head_dim=8 2>err || ok "pretrain" false

# Two tuning seeds, whose losses are to be averaged; rates that are too low, good, and too high.
experiment() { # RATE_PER TASKS METHODS
    cat <<END
{"model": "model", "tasks": $2, "methods": $3, "seeds": [1, 2],
 "tuning": {"seeds": [101, 102], "rate_per": "$1", "limit": {"test": 1},
            "lr": {"lora": [1e-6, 0.1], "ia3": [1e-6, 0.3, 99]}},
 "defaults": {"budget": "5%", "steps": 8, "batch": 4, "eval_every": 4,
              "limit": {"train": 16, "valid": 4, "test": 2}}}
END
}
experiment task '{"yesno": {}, "sql": {"limit": {"test": 1}}}' '{"none": {}, "lora": {}}' |
    sed 's/, "ia3": \[.*99\]//' >two.json
experiment method '{"yesno": {}, "sql": {"limit": {"test": 1}}}' '{"ia3": {}}' |
    sed 's/"lora": \[1e-6, 0.1\], //; s/\[101, 102\]/[101]/' >one.json

# What was chosen, from the trials' own files: by record, and by the runs that took it.
cat >check.py <<'PY'
import collections, glob, json, sys
import h5py
folder, per_task = sys.argv[1], sys.argv[2] == "task"
losses = collections.defaultdict(list)
for path in glob.glob(folder + "/tuning/*/*.h5"):
    with h5py.File(path, "r") as f:
        c = json.loads(f["config"].attrs["json"])
        assert c["seed"] in (101, 102) and c["limit"]["test"] == 1 and c["limit"]["train"] == 16, c
        loss = float("inf")
        if f.attrs["status"] in ("complete", b"complete"):
            loss = min(f["train/valid/loss"][:].tolist())
        losses[c["method"], c["task"] if per_task else None, c["lr"]].append(loss)
best = {}
for (method, task, lr), v in losses.items():
    assert len(v) == 2, (method, task, lr, v) # two seeds, or two tasks
    x = sum(v) / len(v)
    if (method, task) not in best or x < best[method, task][0]:
        best[method, task] = x, lr
assert best
n = 0
for path in glob.glob(folder + "/*/*.h5"):
    with h5py.File(path, "r") as f:
        c = json.loads(f["config"].attrs["json"])
    assert c["seed"] in (1, 2) and (c["limit"]["test"] == 1) == (c["task"] == "sql"), c
    if c["method"] != "none":
        n += 1
        assert c["lr"] == best[c["method"], c["task"] if per_task else None][1], (path, c["lr"], best)
assert n == 4, n
for (method, task), (loss, lr) in best.items():
    r = json.load(open("%s/tuning/%s%s.json" % (folder, task + "/" if task else "", method)))
    rates = sorted({k[2] for k in losses})
    assert r["lr"] == lr and abs(r["loss"] - loss) < 1e-12, (r, lr, loss)
    assert r["at_edge"] == (lr in (rates[0], rates[-1])), r
    assert [p["lr"] for p in r["curve"]] == rates and len(r["trials"]) == 2 * len(rates)
print(best)
PY
agrees() { "$PB_PYTHON" check.py "$@" >out 2>err; }

what() { # FILE...: what was run and what came out, without times and places
    "$PB_PYTHON" - "$@" <<'PY'
import sys, h5py
for line in sorted("%s %s" % (f.attrs["config_sha256"], [x.hex() for x in f["eval/%s/per_example/loss" % t][:].tolist()])
                   for f in (h5py.File(p, "r") for p in sys.argv[1:]) for t in f["eval"]):
    print(line)
PY
}

exits 0 "$PEDROBENCH" sweep two.json --out whole
says 'the best rate of .*/lora, .* at the edge of its grid'
ok "rates per task" agrees whole task
exits 0 "$PEDROBENCH" sweep two.json --out whole --status
prints '^all +14 '
prints '^rate of yesno/lora: '
exits 0 "$PEDROBENCH" table whole
ok "trials are not in the table" [ "$(grep -c 'lr=' out)" = 0 ]
exits 0 "$PEDROBENCH" table whole/tuning --metric loss
prints 'lr=0.1 '

# ---- shards

for i in 1 2 3; do
    exits 0 "$PEDROBENCH" sweep two.json --out "s$i" --shard "$i/3" --quiet
    exits 0 "$PEDROBENCH" sweep two.json --out "s$i" --shard "$i/3" --status
done
(cd whole && find . -name '*.h5' | sort) >ids
(for i in 1 2 3; do (cd "s$i" && find . -name '*.h5'); done | sort) >parts
ok "every run is in one shard" cmp -s ids parts
exits 0 "$PEDROBENCH" collect s1 s2 s3 --out all.h5
exits 0 "$PEDROBENCH" table s1 s2 s3
"$PB_PYTHON" - <<'PY' >linked
import h5py
with h5py.File("all.h5", "r") as f:
    g = f["runs"]
    assert all(isinstance(g.get(k, getlink=True), h5py.ExternalLink) for k in g)
    for x in sorted(g[k].attrs["config_sha256"] for k in g):
        print(x)
PY
what whole/*/*.h5 >results
ok "links to all runs" cmp -s linked <(cut -d ' ' -f 1 results)
ok "the same results" cmp -s results <(what s*/*/*.h5)

# ---- lists of jobs

exits 0 "$PEDROBENCH" sweep one.json --out "with make" --emit make --to jobs.mk
if command -v make >/dev/null; then
    exits 0 make -s -j 2 -f jobs.mk
    ok "one rate for all tasks, by make" agrees "with make" method
    exits 0 "$PEDROBENCH" sweep one.json --out "with make" --status
    prints '^all +10 '
else
    echo "no make: its list was not tested"
fi
exits 0 "$PEDROBENCH" sweep one.json --out "it's parallel" --emit parallel --to jobs.sh
ok "a script" bash -n jobs.sh
if command -v parallel >/dev/null && parallel --version 2>/dev/null | grep -q GNU; then
    JOBS=2 exits 0 bash jobs.sh
    ok "one rate for all tasks, by parallel" agrees "it's parallel" method
    ok "the same results" cmp -s <(what "with make"/*/*.h5) <(what "it's parallel"/*/*.h5)
    printf '{"methods": {"lora": {"budget": 3}}, "tasks": {"yesno": {}}, "seeds": [1], "model": "model"}' >bad.json
    "$PEDROBENCH" sweep bad.json --out bad --emit parallel --to bad.sh
    exits 1 bash bad.sh
else
    echo "no GNU parallel: its list was not tested"
fi
exits 0 "$PEDROBENCH" sweep two.json --out slurm --emit slurm --to slurm.sh
ok "a script" bash -n slurm.sh
ok "an array for each stage, the second after the first" [ "$(grep -c 'array=0-[57] ' slurm.sh)" = 2 ]
finish
