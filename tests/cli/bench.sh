# `pedrobench bench`: what each part counts, its JSON and its file, refusals. Times are not judged.
set -u
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }
G=random:32x64x2x4x2x90
bench() { "$PEDROBENCH" bench "$@" --quiet --seconds 0.05 --min-rounds 3 --sample 0.0005; }
# A line of Python sees the works as `w`, and arms by name as `arm`.
holds() { # FILE EXPRESSION
    "$PB_PYTHON" -c "
import json, sys
w = json.load(open(sys.argv[1]))['works']
arm = {a['name']: a for a in w[0]['arms']}
sys.exit(not ($2))" "$1" || fail "$1: $2"
}

bench machine --json > "$dir/machine.json" || fail "machine"
holds "$dir/machine.json" "len(w[0]['arms']) == 8 and arm['multiply-add peak']['flops'] > 0"
holds "$dir/machine.json" "all(len(a['seconds']) >= 3 and min(a['seconds']) > 0 for x in w for a in x['arms'])"
holds "$dir/machine.json" "any(a['note'] == 'memory' and a['bytes'] > 5e8 for a in w[0]['arms'] if a.get('note'))"

# The products' FLOPs and bytes are what their shapes say.
bench kernels --geometry $G --rows 3 --json > "$dir/kernels.json" || fail "kernels"
holds "$dir/kernels.json" "arm['panels fp32']['flops'] == arm['BLIS']['flops'] == 2 * 3 * 32 * 64"
holds "$dir/kernels.json" "arm['panels fp32']['bytes'] == 4 * 32 * 64 == 2 * arm['panels bf16']['bytes']"
holds "$dir/kernels.json" "w[1]['arms'][4]['flops'] == 4 * 3 * 32 * 64 and arm['panels int8']['bytes'] == 32 * 64 * 34 / 32"
holds "$dir/kernels.json" "arm['panels fp32']['fraction_of_limit'] > 0 and arm['BLIS']['time_ratio'] > 0"

# Training: every method and all weights; a trained backbone needs about 3/2 of what frozen ones do.
bench train --geometry $G --methods lora,ia3,pedro,prefix,full --sequences 2 --tokens 16 --json \
    > "$dir/train.json" || fail "train"
holds "$dir/train.json" "w[0]['tokens'] == 32 and {'lora', 'ia3', 'pedro', 'prefix', 'full'} < set(arm)"
holds "$dir/train.json" "1.2 < arm['full']['flops'] / arm['ia3']['flops'] < 1.6"
# The first trained vector of IA3 is at the first layer's keys: nothing below needs a gradient, and
# 2 (forward) + 2 (backward) FLOPs per weight and row are its bulk.
holds "$dir/train.json" "0.75 < arm['ia3']['flops'] / (4 * 32 * (2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64) + 32 * 90)) < 1.25"

bench prefill --geometry $G --tokens 20 --json > "$dir/prefill.json" || fail "prefill"
holds "$dir/prefill.json" "arm['fp32']['flops'] == arm['bf16']['flops'] and arm['fp32']['bytes'] > 1.5 * arm['bf16']['bytes'] > 2 * arm['int8']['bytes']"
bench decode --geometry $G --rows 1,5 --weights bf16 --json > "$dir/decode.json" || fail "decode"
holds "$dir/decode.json" "len(w) == 2 and 'fp32' not in arm and w[1]['tokens'] == 5"

# Tenants: the file holds what is printed, sample by sample.
bench tenants --geometry $G --rows 4 --json --out "$dir/tenants.h5" > "$dir/tenants.json" ||
    fail "tenants"
holds "$dir/tenants.json" "arm['lora']['against'] == 'base' and 'predict' in arm['lora']['note']"
holds "$dir/tenants.json" "arm['lora']['bytes'] > arm['base']['bytes'] and arm['ia3']['at_most'] == 1.02"
"$PB_PYTHON" - "$dir/tenants.h5" "$dir/tenants.json" <<'END' || fail "the file is not what was printed"
import json, sys
import h5py
w = json.load(open(sys.argv[2]))["works"][0]
with h5py.File(sys.argv[1], "r") as f:
    assert f.attrs["schema"] == "pedrobench-bench" and "cpu" in f["env"].attrs
    for i, a in enumerate(w["arms"]):
        g = f["work/000/%03d" % i]
        assert g.attrs["name"] == a["name"] and g.attrs["flops"] == a["flops"]
        assert list(g["seconds"][()]) == a["seconds"] and g["seconds"].attrs["units"] == "s"
END
"$PEDROBENCH" inspect "$dir/tenants.h5" > "$dir/inspect.txt" || fail "inspect"
grep -q "4 rows of as many tenants *pedro" "$dir/inspect.txt" || fail "inspect lacks an arm"
head -c 3000 "$dir/tenants.h5" > "$dir/cut.h5"
"$PEDROBENCH" inspect "$dir/cut.h5" 2> "$dir/cut.txt" && fail "a cut file"
[ "$(wc -l < "$dir/cut.txt")" -le 2 ] || fail "more than one error"

# A table for people.
bench decode --geometry $G --rows 2 > "$dir/table.txt" || fail "a table"
grep -q "^bf16 .*%" "$dir/table.txt" || fail "the table lacks a fraction"
"$PEDROBENCH" bench barriers --geometry random:512x1024x2x8x8x900 --rows 64 > "$dir/barriers.txt" || fail "barriers"
# At most two more regions per group of sites (q,k,v / o / gate,up / down) and layer for LoRA.
awk '/^base/ { base = $6 } /^lora/ { lora = $6 } END { exit !(base > 3 && lora > base && lora <= base + 8) }' \
    "$dir/barriers.txt" || fail "barriers: $(cat "$dir/barriers.txt")"

# Refusals: one line, one hint, exit code 2.
refused() { # WORD ARGUMENTS...
    local word=$1
    shift
    "$PEDROBENCH" bench "$@" > "$dir/out" 2> "$dir/err"
    [ $? = 2 ] || fail "exit code of: bench $*"
    grep -q -- "$word" "$dir/err" || fail "bench $* says: $(cat "$dir/err")"
    [ -s "$dir/out" ] && fail "bench $* prints something"
}
refused "no benchmark \"speed\"" speed
refused "name a benchmark"
refused "32x64" decode --geometry random:32x64
refused "no method \"lorra\"" train --geometry $G --methods lorra
refused "--rows" decode --rows x
refused "no axis .width." scaling --geometry $G --axis width
refused "is no folder" decode --peers --llama-cpp "$dir/nothing"

# What follows does the same works again: once is enough for sanitizers.
[ "${PB_SANITIZED:-0}" = 0 ] || exit 0

# Along an axis arms differ in nothing else, and the file has their places on it.
bench scaling --geometry $G --axis rank,threads --json --out "$dir/scaling.h5" > "$dir/scaling.json" ||
    fail "scaling"
holds "$dir/scaling.json" "[x['axis'] for x in w] == ['rank', 'threads']"
holds "$dir/scaling.json" "arm['train, 64']['x'] == 64 and arm['train, 64']['memory_bytes'] > arm['train, 1']['memory_bytes']"
holds "$dir/scaling.json" "arm['decode, 16 tenants, 8']['flops'] > arm['decode, 16 tenants, 4']['flops']"
"$PEDROBENCH" inspect "$dir/scaling.h5" > "$dir/inspect.txt" || fail "inspect"
grep -q "train, 64 *rank" "$dir/inspect.txt" || fail "the file lacks the axis"

# The floors of a geometry that the page does not name: all works, and a verdict for each floor.
"$PEDROBENCH" plot "$dir/scaling.h5" --out "$dir/figures" 2> "$dir/err" || fail "figures: $(cat "$dir/err")"
grep -q "train" "$dir/figures/scaling-time.dat" && [ -s "$dir/figures/scaling-memory.svg" ] || fail "figures of scaling"
grep -q ">threads<" "$dir/figures/scaling-time.svg" || fail "an axis has no panel"
bench floors --geometry $G --json > "$dir/floors.json" || fail "floors"
"$PB_PYTHON" - "$dir/floors.json" <<'END' || fail "the floors"
import json, sys
j = json.load(open(sys.argv[1]))
kinds = {w["work"].split(",")[0] for w in j["works"]}
assert kinds == {"prefill", "training step", "decode"}, kinds
assert {f["measure"] for f in j["floors"]} == {
    "fraction of the limit", "time / base", "parallel regions added per layer"}
for f in j["floors"]:
    most = f["expected"] == "at most"
    assert f["met"] == (f["value"] <= f["bound"] if most else f["value"] >= f["bound"]), f
END

# A peer that is not there is named, and the rest goes on.
if ! "$PB_PYTHON" -c "import torch" 2> /dev/null; then
    PB_LLAMA_CPP='' bench prefill --geometry $G --peers > "$dir/peer.txt" 2> "$dir/peer.err" || fail "an absent peer"
    grep -q "pytorch fp32 is absent" "$dir/peer.err" || fail "the absent peer is not named"
else
    PB_LLAMA_CPP='' bench prefill --geometry $G --tokens 8 --peers --json > "$dir/peer.json" 2> "$dir/peer.err" || fail "a peer"
    holds "$dir/peer.json" "arm['pytorch fp32']['kind'] == 'peer' and arm['pytorch fp32']['against'] == 'fp32'"
fi

# llama.cpp is named when there is no build of it.
grep -q "llama.cpp fp32 is absent: no build was named" "$dir/peer.err" || fail "llama.cpp is not named"
exit 0
