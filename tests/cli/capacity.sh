#!/usr/bin/env bash
# `pedrobench capacity`: the fit and its validation on short served runs, fleets, machines, the
# figure, refusals. Times of this machine are not judged.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"
serve() {
    "$PEDROBENCH" serve --random 32x64x2x4x2x90 --budget 4k --tenants 12 --prompt 4-40 --output 2-9 \
        --quiet "$@" >"$tmp/serve.txt" 2>&1 || { cat "$tmp/serve.txt"; exit 1; }
}
capacity() { "$PEDROBENCH" capacity "$@" --quiet; }
# holds CODE: Python with the JSON file as j and its answers as a.
holds() {
    try "$PB_PYTHON" -c 'import json, sys
j = json.load(open(sys.argv[1])); a = j["answers"]
exec(sys.argv[2])' "$tmp/j.json" "$1"
    ok "$1" [ "$code" -eq 0 ]
}
serve --methods lora --clients 6 --requests 300 --out "$tmp/lora.h5"
serve --methods pedro --clients 6 --requests 300 --out "$tmp/pedro.h5"
serve --methods lora --rate 300 --requests 200 --seed 2 --out "$tmp/other.h5"
serve --methods lora --adapter-memory 100k --clients 6 --requests 150 --out "$tmp/loads.h5"
serve --methods lora,pedro --clients 6 --requests 60 --out "$tmp/mixed.h5"
"$PEDROBENCH" bench machine --quiet --seconds 0.05 --min-rounds 3 --sample 0.0005 --out "$tmp/machine.h5" >/dev/null

# The fit: all parts and terms, errors on fitted steps and on those held out.
exits 0 capacity "$tmp/lora.h5" "$tmp/pedro.h5" --machine "$tmp/machine.h5" --out "$tmp/j.json"
prints "^Fitted to [0-9]+ steps of 2 files"
prints "^backbone +(sum|max) +all +weights +bandwidth"
prints "^adapter +(sum|max) +pedro +rows +compute"
holds 'f = j["fit"]; assert f["fitted"]["steps"] + f["held_out"]["steps"] == f["steps"] > 300
assert 0.15 < f["held_out"]["steps"] / f["steps"] < 0.25
assert 0 < f["held_out"]["median"] <= f["held_out"]["p90"] < 5 and not a'
holds 't = j["fit"]["terms"]; assert set(t) == {"lora", "pedro"}
assert t["lora"]["backbone"] == dict(t["pedro"]["backbone"], **{k: dict(v, share=t["lora"]["backbone"][k]["share"]) for k, v in t["pedro"]["backbone"].items()})
assert all(v["seconds_per_unit"] >= 0 for k in t.values() for p in k.values() for v in p.values())
for k, terms in t.items():
    s = sum(v["share"] for p in terms.values() for v in p.values()); assert s > 0.99, s'
holds 's = j["fit"]["sizes"]; assert s["weights"] > 4 * 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64) and s["position"] == 2 * 2 * 16 * 4
assert s["logits"] == 2 * 32 * 90 and j["machine"]["measured_bandwidth"] > 1e8'
exits 0 capacity "$tmp/lora.h5"
prints "^Without --machine"

# A run replayed: as many requests, and times of the same size.
exits 0 capacity "$tmp/lora.h5" --validate "$tmp/lora.h5" --validate "$tmp/other.h5" --out "$tmp/j.json"
prints "^other.h5 +TTFT +p50 "
prints "^Largest error: [0-9.]+ % as fitted"
holds 'v = j["validation"]; assert len(v) == 12 and {x["measure"] for x in v} == {"TTFT", "TPOT", "end to end"}
x = {(r["measure"], r["quantile"]): r for r in v[:6]}
for m in "TPOT", "end to end":
    r = x[m, 0.5]; assert 1 / 3 < r["drawn_ms"] / r["measured_ms"] < 3 and r["fit_ms"] > 0, r
    assert r["lo95_ms"] <= r["measured_ms"] <= r["hi95_ms"]
assert v[0]["fit_ms"] != v[0]["drawn_ms"]'
exits 0 capacity "$tmp/mixed.h5" "$tmp/lora.h5" --validate "$tmp/mixed.h5"
prints "^mixed.h5 +TTFT"
# Several runs of one load: medians, and the range.
exits 0 capacity "$tmp/lora.h5" --validate "$tmp/lora.h5" --validate "$tmp/other.h5" \
    --validate "$tmp/other.h5,$tmp/lora.h5,$tmp/other.h5" --out "$tmp/j.json"
prints "^other.h5 and 2 more +TTFT +p50 "
holds 'v = j["validation"]; assert len(v) == 18 and [x["runs"] for x in v[::6]] == [1, 1, 3]
for one, two, all in zip(v[:6], v[6:12], v[12:]):
    assert all["measured_ms"] == two["measured_ms"] and all["fit_ms"] == two["fit_ms"]
    assert [all["lo95_ms"], all["hi95_ms"]] == sorted((one["measured_ms"], two["measured_ms"]))'
refuses 1 capacity "$tmp/lora.h5" "$tmp/mixed.h5" --validate "$tmp/lora.h5,$tmp/mixed.h5"
says "other methods than the files before it"
refuses 1 capacity "$tmp/lora.h5" --validate "$tmp/lora.h5,"

# Fleets: the largest rate within limits; loads as measured; the same every time.
question=("$tmp/lora.h5" "$tmp/pedro.h5" "$tmp/loads.h5" --slo 'ttft=5s,tpot=2s' --requests 1000)
exits 0 capacity "${question[@]}" --adapter-memory 100k --tenants 1,2,1000,100k --out "$tmp/j.json"
prints "^lora +[0-9]+ +100000 "
cp "$tmp/out" "$tmp/first"
holds 'assert len(a) == 8 and all(x["within"] and x["requests_per_second"] > 0 for x in a)
for x in a:
    assert x["TTFT"]["at_quantile_ms"] <= 5000 and x["TPOT"]["at_quantile_ms"] <= 2000
    assert x["TTFT"]["median_ms"] <= x["TTFT"]["at_quantile_ms"]
    assert x["latency"] + x["bandwidth"] + x["compute"] <= 1.0001 and x["disk_busy"] <= 1.001
few, many = a[1], a[3]
assert few["misses"] == 0 and many["misses"] > 0.5 and many["disk_busy"] > few["disk_busy"] == 0
assert 0 < j["fit"]["load_latency_s"] < 1'
exits 0 capacity "${question[@]}" --adapter-memory 100k --tenants 1,2,1000,100k
ok "the same answers again" cmp -s "$tmp/first" "$tmp/out"
exits 0 capacity "${question[@]}" --tenants 50 --methods lora,pedro=1M --deterministic --out "$tmp/j.json"
holds 'assert [x["methods"] for x in a] == ["lora", "pedro"] and a[1]["bytes_per_tenant"] == 1000000
rate = a[0]["requests_per_second"]; open(sys.argv[1] + ".rate", "w").write("%.6g" % rate)'
rate=$(cat "$tmp/j.json.rate")
exits 0 capacity "${question[@]}" --tenants 50 --methods lora --deterministic --bandwidth 4x --flops 4x --out "$tmp/j.json"
prints "is an assumption"
holds "assert a[0]['requests_per_second'] >= 0.99 * $rate and j['machine']['compute'] == j['machine']['bandwidth'] == 4"
# At that rate it is within the limits, and far above it is not.
exits 0 capacity "${question[@]}" --tenants 50 --methods lora --deterministic --rate "$rate" --out "$tmp/j.json"
holds 'assert a[0]["within"]'
exits 0 capacity "${question[@]}" --tenants 50 --methods lora --rate 1000000 --slo ttft=1ms --out "$tmp/j.json"
holds 'assert not a[0]["within"] and a[0]["requests_per_second"] == 1e6'
exits 0 capacity "${question[@]}" --tenants 3 --prompt 4-8 --output 2 --popularity zipf:1 --cores 8 --memory 10M --format csv
ok "a CSV of the fleets" awk -F, 'NR == 1 { n = NF } NF != n { exit 1 } END { exit NR != 3 || n != 17 }' "$tmp/out"

# The figure, of two machines.
if command -v gnuplot >/dev/null; then
    exits 0 capacity "${question[@]}" --tenants 1,10 --out "$tmp/here.json"
    exits 0 capacity "${question[@]}" --tenants 1,10 --flops 2x --out "$tmp/there.json"
    exits 0 "$PEDROBENCH" plot "$tmp/here.json" "$tmp/there.json" --out "$tmp/figures" --terminals svg
    ok "figure" [ -s "$tmp/figures/capacity.svg" ]
    ok "its numbers" [ "$(grep -c '^\(lora\|pedro\)' "$tmp/figures/capacity.dat")" = 8 ]
    echo '{}' >"$tmp/none.json"
    refuses 1 plot "$tmp/none.json" --out "$tmp/figures"
    says "holds no answers"
fi

# Refusals.
refuses 1 capacity "$tmp/machine.h5"
refuses 1 capacity "$tmp/lora.h5" --validate "$tmp/mixed.h5"
says 'no file of lora:pedro is fitted on'
refuses 1 capacity "$tmp/lora.h5" --machine "$tmp/other.h5"
refuses 2 capacity "$tmp/lora.h5" --slo ttft=1s --bandwidth 200G
says "give --machine"
refuses 2 capacity "$tmp/lora.h5" --slo ttft=1s --cores 4 --flops 2x
refuses 2 capacity "$tmp/lora.h5" --slo ttft=1s --adapter-memory 100k
says "has loads of adapters"
refuses 2 capacity "$tmp/loads.h5" --slo ttft=1s --memory 1k
says "leaves nothing"
refuses 1 capacity "$tmp/loads.h5" --slo ttft=1s --adapter-memory 1k
says "the store holds 1000"
refuses 2 capacity "$tmp/lora.h5" --slo ttft=1s --methods ia3
says 'tenants of "ia3" alone'
for bad in --slo=ttft=1 --slo=itl=1ms --tenants=0 --tenants=1,x --rate=0 --prompt=5 --requests=10 --quantile=1 --popularity=often; do
    exits 2 capacity "$tmp/lora.h5" "$bad"
done
exits 2 capacity
finish
