#!/usr/bin/env bash
# Exit codes and messages of the command line: 0 done, 1 error, 2 usage.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"

exits 2 "$PEDROBENCH"
says '^Usage: pedrobench COMMAND'
ok "usage is no output" [ ! -s "$tmp/out" ]
exits 2 "$PEDROBENCH" nonsense
says 'unknown command "nonsense"'
says '^hint: '
exits 2 "$PEDROBENCH" --nonsense
exits 0 "$PEDROBENCH" --version
prints '^pedrobench [0-9]+\.[0-9]+\.[0-9]+$'
exits 0 "$PEDROBENCH" --help
prints '^Examples:'

"$PEDROBENCH" model list >"$tmp/presets"
commands=$(sed -n '/^Commands:/,/^$/s/^  \([a-z0-9-]*\) .*/\1/p' "$tmp/out")
ok "the overview names commands" [ "$(wc -w <<<"$commands")" -ge 4 ]
for command in $commands; do
    exits 0 "$PEDROBENCH" "$command" --help
    prints '^Examples?:'
    prints "^ +pedrobench $command "
    ok "help of $command is no error" [ ! -s "$tmp/err" ]
    for preset in $(grep -oE -- '--(random|like) [a-z][a-z0-9.-]+' "$tmp/out" | cut -d ' ' -f 2); do
        ok "the preset $preset in help of $command exists" grep -q "^$preset " "$tmp/presets"
    done
    exits 2 "$PEDROBENCH" "$command" --no-such-option
    says 'no-such-option'
    ok "$command prints nothing on a usage error" [ ! -s "$tmp/out" ]
done

make_model --shape tiny --adapter lora
model=$tmp/model
exits 0 "$PEDROBENCH" logits --model "$model" --tokens 1,2,3
prints '^position 2: '
exits 0 "$PEDROBENCH" logits --model "$model" --adapter "$tmp/lora" --tokens 1,2,3 --json

refuses 1 logits --model "$tmp/nowhere" --tokens 1
says "$tmp/nowhere"
says '^hint: '
refuses 1 logits --model "$model" --adapter "$tmp/nowhere" --tokens 1
says "$tmp/nowhere"
for tokens in "" "," "1," ",1" "1,,2" "1,x" 1.5 1e1 "1 2" -1 11 99999999999999999999; do
    refuses 2 logits --model "$model" --tokens="$tokens"
done
refuses 2 logits --model "$model" --tokens 1,2 --prompt 0
refuses 2 logits --model "$model" --tokens 1,2 --prompt 3
refuses 2 logits --model "$model" --tokens 1,2 --prompt x
refuses 2 logits --model "$model" --tokens 11
says '"11" is not a token id below 11'
exits 2 "$PEDROBENCH" logits --model "$model" --tokens 1 --text x
exits 2 "$PEDROBENCH" logits --model "$model" --tokens 1 --greedy x
exits 2 "$PEDROBENCH" logits --model "$model" --tokens 1 --top -1
refuses 1 logits --model "$model" --text x
says 'has no tokenizer'
exits 0 "$PEDROBENCH" logits --model "$model" --tokens 1,2,3 --greedy 2 --last --top 2
ok "one position, two tokens" [ "$(wc -lw <"$tmp/out" | tr -s ' ')" = " 1 8" ]
prints '^position 4: [0-9]+ ->  [0-9]+ \([-0-9.]+\)  [0-9]+ \([-0-9.]+\)$'
exits 2 "$PEDROBENCH" logits --model "$model"
exits 2 "$PEDROBENCH" logits --model "$model" --tokens 1 extra
if [[ -w /dev/full ]]; then
    "$PEDROBENCH" logits --model "$model" --tokens 1,2 >/dev/full 2>"$tmp/err" && code=0 || code=$?
    ok "a full disk is an error" [ "$code" -eq 1 ]
    says 'cannot write'
fi
finish
