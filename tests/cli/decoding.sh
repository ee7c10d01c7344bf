# Beam search, its options and refusals, metrics and forgetting, as a user calls them.
set -u
: "${PEDROBENCH:?}" "${PB_SOURCE:?}"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1
bad=0
model=$PB_SOURCE/paper/backbone-bytes

fail() {
    echo "FAILED: $*"
    bad=1
}

# refuse CODE WORDS COMMAND...
refuse() {
    local code=$1 words=$2 got
    shift 2
    "$PEDROBENCH" "$@" >out 2>err
    got=$?
    [ "$got" = "$code" ] || fail "$*: exit code $got, not $code: $(head -c 300 err)"
    grep -qF -- "$words" err || fail "$*: does not say \"$words\": $(head -c 300 err)"
}

refuse 2 "--beam" generate --model "$model" --prompt a --beam 0
refuse 2 "not 1 to 64" generate --model "$model" --prompt a --beam 65
refuse 2 "length-penalty" generate --model "$model" --prompt a --length-penalty x
refuse 1 "beam" train --model "$model" --task yesno --method ia3 --steps 1 --beam 100 --out a.h5
refuse 1 "nowhere.txt" train --model "$model" --task yesno --method ia3 --steps 1 \
    --general-text nowhere.txt --out a.h5

printf 'The old man walked home.\n\nIt rained all day, and nobody came.\n' >general.txt
run() {
    "$PEDROBENCH" train --model "$model" --task restaurant --steps 4 --lr 0.01 --train-examples 64 \
        --valid-examples 8 --test-examples 4 --general-text general.txt --quiet "$@" >/dev/null ||
        fail "train $*"
}
run --method none --out none.h5
run --method lora --set rank=2 --beam 3 --length-penalty 0.8 --no-repeat-ngram 4 --out lora.h5
for m in bleu nist rouge_l cider exact_match perplexity bits_per_byte general_loss forgetting; do
    "$PEDROBENCH" table none.h5 lora.h5 --metric $m >out || fail "table --metric $m"
    grep -q "restaurant: $m" out || fail "no table of $m: $(head -c 200 out)"
done
"$PEDROBENCH" table none.h5 --metric forgetting | grep -q " 0.0000" || fail "no adapter, and it forgets"
"$PEDROBENCH" table lora.h5 --metric forgetting | grep -q " 0.0000 " && fail "it forgets nothing at all"
# The decoding is part of a run's identity: another one is another run.
run --method lora --set rank=2 --beam 3 --length-penalty 0.8 --no-repeat-ngram 4 --out lora.h5
h5dump -a /config/length_penalty lora.h5 | grep -q "0.8" || fail "the file does not say how it was decoded"
exit $bad
