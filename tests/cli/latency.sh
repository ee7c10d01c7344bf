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
        "^ia3 *unsorted" "^Noise floor" "^Decode: median ms" "^Prefill: median ms" "^Memory" \
        "regions/sample" "^The machine in the same rounds.* GFLOP/s .* GB/s"; do
    grep -q "$word" "$dir/a.txt" || fail "the table lacks $word"
done
[ -e "$dir/a.jsonl" ] && fail "the journal of a complete run stays"
status() { h5dump -a /status "$1" | grep -q "\"$2\""; }
status "$dir/a.h5" complete || fail "status"
for group in prefill/base/none/1 decode/none/none/4 decode/merged/merged/2 decode/mixed/mixed/4 \
        decode/prefix/loop/2 prefill/ia3/same/4 decode/lora/unsorted/4 decode/reading/limit/4 \
        prefill/multiply-adds/limit/1; do
    h5dump -H -d "/latency/$group/samples" "$dir/a.h5" | grep -q "H5T_STD_I64" || fail "no $group"
done
for attr in tokens_per_sample resident_bytes_per_tenant kv_bytes_per_sequence flops_per_token \
        bytes_per_token regions_per_token trainable knob_value of_limit backbone_time_share \
        attention_time_share adapter_time_share head_time_share; do
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

# The shares of the time add up to all of it, every arm has its share of the limit, and a limit is no
# arm of the table.
"$PEDROBENCH" table "$dir/a.h5" --latency --format csv | awk -F, '
    NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
    $at["method"] ~ /multiply|reading/ { print "a limit is an arm"; exit 1 }
    {
        sum = $at["backbone_time_share"] + $at["attention_time_share"]
        sum += $at["adapter_time_share"] + $at["head_time_share"]
    }
    !(sum > 0.999 && sum < 1.001) || !($at["of_limit"] > 0) { print; exit 1 }
    { n++ }
    END { if (!n) exit 1 }' || fail "shares of the time or of the limit"

# Whole generations, greedy and by beams: tokens per second, memory, the same texts in all arms.
run --phases generate --beams 1,3 --tenants 1,3 --seconds 0.5 --min-samples 2 --out "$dir/g.h5" \
    > "$dir/g.txt" || fail "generations"
for word in "^Generation, beam 1" "^Generation, beam 3" "^lora *different" "^pedro *loop" \
        "^Why (generate, 3 requests, beam 3)" "generate 3 beam 3: "; do
    grep -q "$word" "$dir/g.txt" || fail "the table of generations lacks $word"
done
grep -q "^Decode\|^ia3 *same" "$dir/g.txt" && fail "a phase or an arm that was not asked for"
"$PEDROBENCH" table "$dir/g.h5" --latency > "$dir/g.table" || fail "the table of efficiency"
for word in "^Efficiency" "generate, 3 sequences per batch, beam 3, prompt of 6 tokens, 5 new" \
        "none could be read by us"; do
    grep -q "$word" "$dir/g.table" || fail "the table of efficiency lacks $word"
done
"$PEDROBENCH" table "$dir/a.h5" "$dir/g.h5" --out "$dir/tables" 2> /dev/null ||
    fail "tables as files"
for name in latency efficiency; do
    for end in txt md csv tex; do [ -s "$dir/tables/$name.$end" ] || fail "no $name.$end"; done
done
[ "$(wc -l < "$dir/tables/efficiency.csv")" = 43 ] || # 2 (4 + 4 + 4 + 4 + 4 + 1) arms
    fail "efficiency.csv has $(wc -l < "$dir/tables/efficiency.csv") lines"

# A geometry by its name; what does not fit into memory is refused before it is spent.
"$PEDROBENCH" latency --random nosuch --quiet > /dev/null 2> "$dir/err" && fail "an unknown preset"
grep -q "no preset \"nosuch\"" "$dir/err" || fail "$(cat "$dir/err")"
run --tenants 4096 --prompt 60000 --phases generate > /dev/null 2> "$dir/err" && fail "too large"
grep -q "GB are free" "$dir/err" || fail "$(cat "$dir/err")"

# Several runs make a curve: prompts and budgets of their own, which no table mixes.
for n in 6 12; do
    run --tenants 2 --prompt $n --seconds 0.2 --min-samples 2 --out "$dir/grid/prompt-$n.h5" \
        > /dev/null || fail "a prompt of $n"
done
"$PEDROBENCH" latency --random 32x64x2x4x2x90 --budget 8k --tenants 2 --prompt 6 --new 5 --quiet \
    --seconds 0.2 --min-samples 2 --out "$dir/grid/budget.h5" > /dev/null || fail "another budget"
[ "$("$PEDROBENCH" table "$dir/grid" --latency | grep -c "^decode, 2 sequences per batch")" = 3 ] ||
    fail "runs of other conditions are in one block"
if command -v gnuplot > /dev/null; then
    "$PEDROBENCH" plot "$dir/grid" --out "$dir/figures" 2> /dev/null || fail "figures"
    for f in time-budget time-prompt time-context token-time; do
        [ -s "$dir/figures/$f.svg" ] || fail "no figure $f"
    done
    # base, none, merged, mixed and four methods, two points each
    [ "$(grep -vc "^#\|^$" "$dir/figures/time-prompt.dat")" = 16 ] ||
        fail "the points of time-prompt"
fi

# An experiment file with a list of them.
one='"model": "random:32x64x2x4x2x90", "budget": 4000, "prompt": 6, "new": 3'
one+=', "seconds": 0.1, "min_samples": 1'
cat > "$dir/list.json" <<END
{"latency": [{"name": "steps", "tenants": [2], "methods": ["lora"], $one},
             {"name": "whole", "tenants": [1], "phases": ["generate"], "beams": [2], $one}]}
END
"$PEDROBENCH" sweep "$dir/list.json" --out "$dir/list" --jobs 2 --quiet > /dev/null ||
    fail "a list of experiments"
# One after the other, whatever the jobs.
grep -o '"event":"[a-z]*"' "$dir/list/sweep.jsonl" | grep "start\|finish" | tr '\n' ' ' |
    grep -q '"start" "event":"finish" "event":"start" "event":"finish"' || fail "side by side"
"$PEDROBENCH" sweep "$dir/list.json" --out "$dir/list" --emit make |
    grep -q "^latency/whole: latency/steps$" || fail "make: side by side"
status "$dir/list/latency/steps.h5" complete && status "$dir/list/latency/whole.h5" complete ||
    fail "the results of a list"
sed -i 's/"name": "whole"/"name": "steps"/' "$dir/list.json"
"$PEDROBENCH" sweep "$dir/list.json" --out "$dir/list" 2> "$dir/err" && fail "a name twice"
grep -q "two runs would be written to latency/steps.h5" "$dir/err" || fail "$(cat "$dir/err")"

# CSV: a head and one line per arm; two methods, one batch size: 2 (4 + 2 2 + 2 + 1) arms.
run --methods lora,pedro --tenants 2 --seconds 0.2 --min-samples 6 --format csv > "$dir/b.csv" ||
    fail "csv"
[ "$(wc -l < "$dir/b.csv")" = 23 ] || fail "csv has $(wc -l < "$dir/b.csv") lines"
awk -F, 'NR == 1 { n = NF } NF != n { exit 1 }
    NR > 1 && !($10 >= $11 && $10 <= $12 && $9 >= 6) { exit 1 }' "$dir/b.csv" ||
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
refuse "unknown phase \"decoding\"" 2 $g --phases decoding
refuse "\"beams\" must increase" 1 $g --beams 3,1
exit 0
