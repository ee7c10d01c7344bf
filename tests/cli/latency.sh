# `pedrobench latency`: file, table, repetition, interruption, refusals.
set -u
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }
run() { "$PEDROBENCH" latency --random 32x64x2x4x2x90 --budget 4k --prompt 6 --new 5 --quiet "$@"; }
short="--tenants 1,2,4 --seconds 0.5 --min-samples 3"

# One run: raw samples with their attributes, a table, and the results' own table.
run $short --out "$dir/a.h5" > "$dir/a.txt" || fail "a run"
for word in "^base-again *none" "^merged *merged" "^pedro *different" "^lora *loop" "^mixed *mixed" \
        "^Noise floor" "^Decode: median ms" "^Prefill: median ms" "^Memory" "regions/token"; do
    grep -q "$word" "$dir/a.txt" || fail "the table lacks $word"
done
[ -e "$dir/a.jsonl" ] && fail "the journal of a complete run stays"
status() { h5dump -a /status "$1" | grep -q "\"$2\""; }
status "$dir/a.h5" complete || fail "status"
for group in prefill/base/none/1 decode/none/none/4 decode/merged/merged/2 decode/mixed/mixed/4 \
        decode/prefix/loop/2 prefill/ia3/same/4; do
    h5dump -H -d "/latency/$group/samples" "$dir/a.h5" | grep -q "H5T_STD_I64" || fail "no $group"
done
for attr in tokens_per_sample resident_bytes_per_tenant kv_bytes_per_sequence flops_per_token \
        bytes_per_token regions_per_token trainable knob_value; do
    h5dump -a "/latency/decode/pedro/different/4/$attr" "$dir/a.h5" > /dev/null || fail "no $attr"
done
h5dump -a /notes/noise_floor_decode_4 "$dir/a.h5" > /dev/null || fail "no noise floor"
"$PEDROBENCH" table "$dir/a.h5" --latency --format csv > "$dir/table.csv" || fail "table"
grep -q "decode/pedro/different/4" "$dir/table.csv" || fail "the results' table lacks an arm"

# The same again does nothing; another configuration runs.
before=$(sha256sum < "$dir/a.h5")
"$PEDROBENCH" latency --random 32x64x2x4x2x90 --budget 4k --prompt 6 --new 5 $short \
    --out "$dir/a.h5" > "$dir/again.txt" 2> "$dir/again.err" || fail "the same again"
grep -q "complete" "$dir/again.err" || fail "it should say that the file is complete"
[ -s "$dir/again.txt" ] && fail "a table of nothing"
[ "$before" = "$(sha256sum < "$dir/a.h5")" ] || fail "the file changed"

# CSV: a head and one line per arm; two methods, one batch size: 2 (4 + 2 2 + 2 + 1) arms.
run --methods lora,pedro --tenants 2 --seconds 0.2 --min-samples 6 --format csv > "$dir/b.csv" ||
    fail "csv"
[ "$(wc -l < "$dir/b.csv")" = 23 ] || fail "csv has $(wc -l < "$dir/b.csv") lines"
awk -F, 'NR == 1 { n = NF } NF != n { exit 1 }
    NR > 1 && !($9 >= $10 && $9 <= $11 && $8 >= 6) { exit 1 }' "$dir/b.csv" ||
    fail "a csv line is damaged, or a median is outside its interval"
run --methods lora --tenants 1 --seconds 0.1 --format markdown > "$dir/b.md" || fail "markdown"
grep -q "^| base " "$dir/b.md" || fail "markdown lacks a row"

# Ctrl-C: what was measured is in the file, and the run can be repeated.
# (Not through the function, which would run in a shell of its own.)
"$PEDROBENCH" latency --random 32x64x2x4x2x90 --budget 4k --tenants 1,2 --seconds 40 \
    --out "$dir/c.h5" --quiet > "$dir/c.txt" 2> /dev/null &
pid=$!
for _ in $(seq 300); do
    sleep 0.1
    [ -s "$dir/c.jsonl" ] && [ "$(wc -l < "$dir/c.jsonl")" -gt 1 ] && break
done
kill -INT $pid
wait $pid
[ $? = 130 ] || fail "the exit code of an interrupted run"
status "$dir/c.h5" interrupted || fail "status of an interrupted run"
h5dump -H -d /latency/prefill/base/none/1/samples "$dir/c.h5" > /dev/null ||
    fail "an interrupted run lost its samples"
run --tenants 1,2 --seconds 0.3 --min-samples 2 --out "$dir/c.h5" > /dev/null || fail "run again"
status "$dir/c.h5" complete || fail "status after the repetition"

# Refusals, by name and with exit code 2 for what is wrong on the command line.
refuse() {
    want=$1 code=$2
    shift 2
    "$PEDROBENCH" latency "$@" > /dev/null 2> "$dir/err"
    [ $? = "$code" ] || fail "exit code of $*"
    grep -q -- "$want" "$dir/err" || fail "$*: $(cat "$dir/err")"
}
g="--random 32x64x2x4x2x90 --budget 4k"
refuse "geometry" 2 --random 32x64
refuse "no model at" 1 --model "$dir/nowhere" --budget 4k
refuse "one of --model and --random" 2 $g --model x
refuse "lorra" 2 $g --methods lorra
refuse "must increase" 1 $g --tenants 4,2
refuse "appears twice" 2 $g --methods ia3,ia3
refuse "method lora needs at least" 1 --random 32x64x2x4x2x90 --budget 10
refuse "budget" 2 $g --budget abc
refuse "prompt" 2 $g --prompt x
exit 0
