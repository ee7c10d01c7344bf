#!/usr/bin/env bash
# `pedrobench serve`: loops, traces, limits, what is in the file, repetition, interruption,
# refusals.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"
mkdir "$tmp/adapters"
export TMPDIR=$tmp/adapters # this test's alone
serve() { "$PEDROBENCH" serve --random 32x64x2x4x2x90 --budget 4k --quiet "$@"; }
# read_h5 FILE CODE: Python with the file as f and numpy as np; exits 0 if the code's asserts hold.
read_h5() {
    try "$PB_PYTHON" -c 'import sys, h5py, numpy as np
f = h5py.File(sys.argv[1]); about = f["serve"].attrs
r = {k: f["serve/requests/" + k][:] for k in f["serve/requests"]}
s = {k: f["serve/steps/" + k][:] for k in f["serve/steps"]}
exec(sys.argv[2])' "$@"
    ok "$1: $2" [ "$code" -eq 0 ]
}
same=(--tenants 12 --prompt 4-20 --output 2-9 --requests 60 --seed 5)

# An open loop: every request and step is in the file, and they agree with each other.
exits 0 serve "${same[@]}" --rate 400 --slo ttft=1s,tpot=1s --warm-up 10 --out "$tmp/open.h5"
for line in "TTFT +all +50 " "end to end +pedro" "^ITL" "^lora +3 " "^attention" "^other" "goodput"; do
    prints "$line"
done
read_h5 "$tmp/open.h5" '
assert f.attrs["status"] == b"complete" or f.attrs["status"] == "complete"
assert len(r["tenant"]) == 60 and (r["outcome"] == 2).all() and (r["n_out"] == r["output"]).all()
assert (r["method"] == r["tenant"] % 4).all() and len(set(r["tenant"])) > 6
assert (r["due"] == r["scheduled"]).all() and (np.diff(r["due"]) >= 0).all()
for a, b in ("scheduled", "queued"), ("queued", "admitted"), ("admitted", "first"), ("first", "last"), ("last", "finished"):
    assert (r[a] <= r[b]).all(), (a, b)
t = f["serve/tokens/at"][:]; end = np.cumsum(r["steps"])
assert len(t) == end[-1] and (t[end - 1] == r["last"]).all() and (t[end - r["steps"]] == r["first"]).all()'
# The second thread has a processor of its own, if there are two and the user does not place threads.
PB_THREADS=2 "$PEDROBENCH" serve --random 32x64x2x4x2x90 --budget 4k --quiet "${same[@]}" \
    --clients 4 --requests 30000 --out "$tmp/bound.h5" >/dev/null 2>&1 &
pid=$! bound=no
for ((i = 0; i < 300; i++)); do
    mapfile -t cpus < <(sed -n 's/^Cpus_allowed_list:\t//p' /proc/$pid/task/*/status 2>/dev/null)
    [[ " ${cpus[*]} " == *" 1 "* ]] && bound=yes && break
    kill -0 $pid 2>/dev/null || break
    sleep 0.02
done
kill $pid 2>/dev/null
wait $pid 2>/dev/null
if [[ $(taskset -cp $$ 2>/dev/null) == *': 0,1' || $(taskset -cp $$ 2>/dev/null) == *': 0-'* ]]; then
    ok "a thread is bound to processor 1" [ "$bound" = yes ]
fi
exits 0 env OMP_PROC_BIND=false "$PEDROBENCH" serve --random 32x64x2x4x2x90 --budget 4k --quiet \
    "${same[@]}" --clients 4 --out "$tmp/free.h5"
read_h5 "$tmp/free.h5" 'assert not f["env"].attrs["threads_bound"], dict(f["env"].attrs)'
read_h5 "$tmp/open.h5" '
assert (s["rows"] == s["prefill"] + s["decode"]).all()
assert s["prefill"].sum() == r["prompt"].sum() and s["outputs"].sum() == r["steps"].sum()
assert (s["keys"] >= s["rows"]).all() and (s["pairs"] >= s["rows"]).all()
assert (s["begin"][1:] >= (s["begin"] + s["duration"])[:-1]).all()
ns = sum(s[p + "_ns"] for p in ("backbone", "attention", "adapter", "head"))
assert (ns <= s["duration"]).all() and (s["backbone_ns"] > 0).all()
assert (s["tenants"] > 1).any() and (s["adapter_bytes"] > 0).all()
pairs = r["prompt"] + r["output"] - 1
assert s["pairs"].sum() == (pairs * (pairs + 1) // 2).sum()
m = f["serve/methods"]
assert m["lora"].attrs["bytes_per_tenant"] > 0 and "trainable" in m["pedro"].attrs
assert about["counted_ns"] == r["scheduled"][10] and about["end_ns"] >= r["finished"].max()'
read_h5 "$tmp/open.h5" 'assert f["config"].attrs["rate"] == 400 and f["config"].attrs["requests"] == 60
assert f["serve/requests/first"].attrs["units"] in ("ns", b"ns")'

# What tables say is what the file holds.
exits 0 "$PEDROBENCH" table "$tmp/open.h5" --serving --format csv
cp "$tmp/out" "$tmp/table.csv"
read_h5 "$tmp/open.h5" "
line = [l.split(',') for l in open('$tmp/table.csv') if ',TTFT,all,' in l][0]
head = open('$tmp/table.csv').readline().strip().split(',')
ms = np.sort((r['first'] - r['scheduled'])[10:]) / 1e6
got = dict(zip(head, line))
assert got['n'] == '50' and abs(float(got['p50']) / np.percentile(ms, 50) - 1) < 1e-6
assert abs(float(got['p90']) / np.percentile(ms, 90) - 1) < 1e-6 and got['p99'] == ''
assert float(got['p50_lo95']) in np.round(ms, 10) or min(abs(ms - float(got['p50_lo95']))) < 1e-6
total = [l.split(',') for l in open('$tmp/table.csv') if l.startswith('$tmp/open.h5,all,12,50,50,0,0,0,')][0]
window = (about['end_ns'] - about['counted_ns']) / 1e9
assert abs(float(total[8]) / (50 / window) - 1) < 1e-6
assert abs(float(total[9]) / (r['n_out'][10:].sum() / window) - 1) < 1e-6 and float(total[11]) == 1"
exits 0 "$PEDROBENCH" inspect "$tmp/open.h5"
prints "workload: 400 requests/s"
exits 0 "$PEDROBENCH" table "$tmp/open.h5" --out "$tmp/tables"
ok "tables as files" [ -s "$tmp/tables/serving-latency.tex" ] && [ -s "$tmp/tables/serving-parts.md" ]

# The same again does nothing.
before=$(sha256sum <"$tmp/open.h5")
exits 0 "$PEDROBENCH" serve --random 32x64x2x4x2x90 --budget 4k "${same[@]}" --rate 400 \
    --slo ttft=1s,tpot=1s --warm-up 10 --out "$tmp/open.h5"
says "complete"
ok "the file stays" [ "$before" = "$(sha256sum <"$tmp/open.h5")" ]

# What is served does not depend on how: one slot or many, chunks, memory for a few adapters.
exits 0 serve "${same[@]}" --clients 3 --slots 2 --rows 5 --out "$tmp/few.h5"
exits 0 serve "${same[@]}" --rate 1000 --cv 4 --adapter-memory 40k --out "$tmp/memory.h5"
digests='import sys, h5py
files = [h5py.File(p) for p in sys.argv[1:]]
for name in "tenant", "prompt", "output", "digest":
    v = [f["serve/requests/" + name][:] for f in files]
    assert all((x == v[0]).all() for x in v), name
assert len(set(v[0])) > 5'
exits 0 "$PB_PYTHON" -c "$digests" "$tmp/open.h5" "$tmp/few.h5" "$tmp/memory.h5"
read_h5 "$tmp/few.h5" '
assert (r["due"] == 0).all() and s["segments"].max() <= 2 and s["rows"].max() <= 25
done = np.sort(r["finished"])
assert (r["scheduled"][:3] == 0).all() and (r["scheduled"][3:] == done[:57]).all()
running = [((r["scheduled"] <= t) & (r["finished"] > t)).sum() for t in r["scheduled"]]
assert max(running) == 3'
read_h5 "$tmp/memory.h5" '
load = f["serve/loads/tenant"][:]
assert about["evictions"] > 5 and len(load) > 12 and not f["serve/loads/failed"][:].any()
assert about["adapter_peak_bytes"] <= 40000 and about["adapter_limit_bytes"] == 40000
assert (f["serve/loads/asked"][:] <= f["serve/loads/begun"][:]).all()
assert (f["serve/loads/begun"][:] < f["serve/loads/ready"][:]).all()'
ok "no adapters stay on disk" [ -z "$(find "$TMPDIR" -name 'pedrobench-tenants-*')" ]

# A trace, with beams, budgets, options and the bare backbone; a trained adapter as a tenant.
printf 'time,tenant,prompt,output\n0,0,5,3\n0.01,4,7,2\n0.02,1,3,4\n' >"$tmp/trace.csv"
exits 0 serve --methods lora,base --budget 2k,4k --tenants 5 --trace "$tmp/trace.csv" --beam 2 \
    --warm-up 0 --out "$tmp/trace.h5" --format markdown
prints '^\| TTFT \| lora 4k '
read_h5 "$tmp/trace.h5" '
assert list(r["due"]) == [0, 10000000, 20000000] and list(r["tenant"]) == [0, 4, 1]
assert list(r["prompt"]) == [5, 7, 3] and list(r["n_out"]) == [3, 2, 4]
assert set(f["serve/methods"]) == {"lora 2k", "lora 4k", "base"}
assert f["serve/methods/base"].attrs["index"] == 1 and list(r["method"]) == [0, 1, 1]'
exits 0 serve --methods lora --set lora.rank=3 --tenants 2 --requests 8 --out "$tmp/set.h5"
read_h5 "$tmp/set.h5" 'assert f["serve/methods/lora"].attrs["knob_value"] == 3'

exits 0 "$PEDROBENCH" train --model "$PB_SOURCE/paper/backbone-bytes" --task yesno --method ia3 --steps 1 \
    --train-examples 40 --valid-examples 2 --test-examples 2 --quiet --out "$tmp/trained.h5"
for memory in 1G 10k; do
    exits 0 "$PEDROBENCH" serve --model "$PB_SOURCE/paper/backbone-bytes" --quiet --requests 20 --tenants 3 \
        --adapter "$tmp/trained.adapter" --adapter-memory $memory --out "$tmp/trained$memory.h5"
    read_h5 "$tmp/trained$memory.h5" 'assert list(f["serve/methods"]) == ["trained.adapter"]
assert len(set(r["tenant"])) == 3 and (r["outcome"] == 2).all()'
done
exits 0 "$PB_PYTHON" -c "$digests" "$tmp/trained1G.h5" "$tmp/trained10k.h5"

# Components: the bare backbone has no adapters, LoRA works in every row.
exits 0 serve --methods base --requests 20 --out "$tmp/base.h5"
read_h5 "$tmp/base.h5" 'assert not s["adapter_flops"].any() and not s["adapter_regions"].any()
assert (s["attention_flops"] > 0).all() and (s["head_read_bytes"][s["outputs"] > 0] > 0).all()
assert not s["adapter_bytes"].any() and not s["tenants"].any()'
exits 0 serve --methods lora --requests 20 --out "$tmp/lora.h5"
read_h5 "$tmp/lora.h5" 'assert (s["adapter_flops"] > 0).all() and (s["adapter_read_bytes"] > 0).all()
assert (s["adapter_bytes"] == s["tenants"] * f["serve/methods/lora"].attrs["bytes_per_tenant"]).all()'

# A queue for one: what is turned away is counted.
exits 0 serve --tenants 4 --rate 100000 --requests 40 --queue 1 --slots 1 --warm-up 0 --format csv
prints ",all,4,40,[1-9][0-9]?,[1-9][0-9]?,0,0,"

# A closed loop for some time.
exits 0 serve --tenants 4 --clients 2 --seconds 0.4 --out "$tmp/time.h5"
read_h5 "$tmp/time.h5" 'assert r["scheduled"].max() < 4e8 <= about["end_ns"] < 3e10 and len(r["tenant"]) > 8'

# Lengths of a task's examples.
exits 0 "$PEDROBENCH" serve --model "$PB_SOURCE/paper/backbone-bytes" --quiet --budget 4k \
    --methods lora --prompt task:yesno --requests 20 --out "$tmp/task.h5"
read_h5 "$tmp/task.h5" 'assert len(set(r["prompt"])) > 3 and r["output"].max() < 12'

# Ctrl-C: what was served is in the file, and shown. (Not through a function, which would run in a
# shell of its own.)
"$PEDROBENCH" serve --random 32x64x2x4x2x90 --budget 4k --quiet --tenants 4 --rate 50 \
    --requests 5000 --warm-up 5 --out "$tmp/c.h5" >"$tmp/out" 2>"$tmp/err" &
pid=$!
for _ in $(seq 100); do
    sleep 0.1
    [ -s "$tmp/c.jsonl" ] && break
done
sleep 1
kill -INT $pid
wait $pid
code=$?
ok "exit code of an interrupted session" [ "$code" = 130 ]
prints "^TTFT"
read_h5 "$tmp/c.h5" 'assert f.attrs["status"] in ("interrupted", b"interrupted")
assert 5 < len(r["tenant"]) < 5000 and (r["outcome"] == 2).sum() > 5 and len(s["rows"]) > 10'
exits 0 "$PEDROBENCH" inspect "$tmp/c.h5"
mv "$tmp/c.h5" "$tmp/kept.h5"
exits 0 "$PEDROBENCH" rebuild "$tmp/c.jsonl"
exits 0 h5diff "$tmp/c.h5" "$tmp/kept.h5"

# Figures.
exits 0 serve "${same[@]}" --rate 800 --warm-up 10 --out "$tmp/runs/fast.h5"
cp "$tmp/open.h5" "$tmp/few.h5" "$tmp/runs"
exits 0 serve --methods lora --tenants 3 --requests 20 --out "$tmp/runs/3.h5"
exits 0 serve --methods lora --tenants 9 --requests 20 --out "$tmp/runs/9.h5"
if command -v gnuplot >/dev/null; then
    exits 0 "$PEDROBENCH" plot "$tmp/runs" --out "$tmp/figures" --terminals svg
    for figure in served-latency load components tenants-memory; do
        ok "figure $figure" [ -s "$tmp/figures/$figure.svg" ]
    done
    ok "a knee" awk -F'\t' '$7 == 1 { n++ } END { exit n != 1 }' "$tmp/figures/load.dat"

    # Of several runs at one rate, medians.
    for seed in 1 2 3; do
        mkdir -p "$tmp/rounds/$seed"
        cp "$tmp/open.h5" "$tmp/rounds/$seed"
        exits 0 serve "${same[@]}" --rate 800 --warm-up 10 --seed $seed --out "$tmp/rounds/$seed/fast.h5"
        exits 0 "$PEDROBENCH" plot "$tmp/rounds/$seed" --out "$tmp/round-$seed" --figure load --terminals svg
    done
    exits 0 "$PEDROBENCH" plot "$tmp/rounds" --out "$tmp/rounds-all" --figure load --terminals svg
    at_800() { awk -F'\t' -v c="$1" '$2 == 800 { print $c }' "${@:2}"; }
    for column in 3 4 5 6; do
        ok "one point of three runs, column $column" [ "$(at_800 $column "$tmp/rounds-all/load.dat")" = \
            "$(at_800 $column "$tmp"/round-?/load.dat | sort -g | sed -n 2p)" ]
    done
fi

# Refusals.
refuse() { refuses "$1" serve --random 32x64x2x4x2x90 --budget 4k "${@:2}"; }
refuse 2 --rate 3 --clients 2
exits 2 serve --rate fast
refuse 2 --rate 3 --seconds 2 --requests 9
refuse 2 --methods lorra
refuse 2 --methods full
refuse 2 --set ia3.what=1
exits 2 serve --set lora
refuse 2 --methods ia3 --set lora.rank=2
refuse 2 --popularity zipf
refuse 2 --prompt 9-3
refuse 2 --prompt task:yesno --output 4
exits 2 serve --slo ttft=fast
exits 2 serve --slo ttft=1us
refuse 2 --tenants 2
refuse 2 --adapter-memory 10
says "more than the limit of 10"
refuse 2 --clients 9 --queue 3
refuse 2 --beam 3 --slots 2
refuse 2 --trace "$tmp/trace.csv" --prompt 3
refuse 1 --trace "$tmp/trace.csv" --tenants 4
says "unknown tenant 4"
refuse 1 --trace "$tmp/nothing.csv"
refuse 1 --prompt 70000
says "context"
refuses 2 serve --random nothing-7b
refuses 1 table "$tmp/open.h5"
says "serving"
finish
