#!/usr/bin/env bash
# `pedrobench tasks`: the list, what is found, examples with the loss mask; and a task of one's own,
# the example of tasks/README.md, from its description to a result file.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"
unset PB_DATA

exits 0 "$PEDROBENCH" tasks
for task in alpaca arc_challenge arc_easy bbh boolq boolq_closed cb copa e2e gsm8k mmlu openbookqa \
    rte squad sst2 viggo wikisql; do
    prints "^$task +[a-z_0-9]+ +needed "
done
for task in restaurant sql yesno; do
    prints "^$task +[a-z_]+ +- "
done
mkdir -p "$tmp/data/copa" "$tmp/data/rte"
cat >"$tmp/data/copa/train.jsonl" <<'END'
{"premise": "It rained.", "choice1": "Clouds came.", "choice2": "He slept.", "question": "cause", "label": 0}
END
cat >"$tmp/data/copa/dev.jsonl" <<'END'
{"premise": "It froze.", "choice1": "It snowed.", "choice2": "The lake became ice.", "question": "effect", "label": 1}
END
exits 0 env PB_DATA="$tmp/data" "$PEDROBENCH" tasks
prints '^copa +[a-z_]+ +found '
prints '^rte +[a-z_]+ +missing '
prints '^yesno +[a-z_]+ +- '
exits 0 "$PEDROBENCH" tasks show copa --data "$tmp/data" --split test
prints '^source: https://super'
prints '^licence: BSD-2-Clause'
prints '^version [0-9]+, content [0-9a-f]{16}, NOT what the suite knows'
prints '^test +1 '
prints '^\[The lake became ice.<end>\]$'
prints '^  candidate: "It snowed."$'
exits 0 "$PEDROBENCH" tasks yesno --count 1
prints '^\[ (yes|no)<end>\]$|\?\[ (yes|no)<end>\]$'
ok "one example" [ "$(grep -c '<end>' "$tmp/out")" -eq 1 ]
refuses 1 tasks show copa --data "$tmp"
says 'no train.jsonl in '
says '^hint: .*https://super'
refuses 2 tasks show copa
says 'no data folder is given'
refuses 2 tasks copy
says 'unknown task "copy"'
says 'hint: known tasks: alpaca, .*yesno'
exits 2 "$PEDROBENCH" tasks show copa --split dev
refuses 1 tasks show "$tmp/nowhere.json"
says 'nowhere.json'

# The example of the documentation.
sed -n '/^```json$/,/^```$/p' "$PB_SOURCE/tasks/README.md" | sed '1d;$d' >"$tmp/reviews.json"
{
    echo stars,text
    for i in {1..200}; do
        printf '%d,"Book %d, it was %s."\n' $((i % 2 ? 1 : 5)) "$i" "$( ((i % 2)) && echo awful || echo great)"
    done
} >"$tmp/reviews.csv"
exits 0 "$PEDROBENCH" tasks show "$tmp/reviews.json" --count 200
prints '^reviews: is a review good or bad\?$'
prints '^This review is\[ (bad|good)<end>\]$'
ok "the examples are split by their share" [ "$(grep -c '<end>' "$tmp/out")" -gt 130 ]
ok "every example once" [ "$(awk '/^(train|valid|test) +[0-9]+ /{n += $2} END{print n}' "$tmp/out")" -eq 200 ]
ok "labels" [ "$(grep -A1 great "$tmp/out" | grep -c ' bad<')" -eq 0 ]

exits 0 "$PEDROBENCH" pretrain --out "$tmp/backbone" --steps 5 --bytes 20k --quiet
exits 0 "$PEDROBENCH" tasks show "$tmp/reviews.json" --model "$tmp/backbone" --count 0
prints '^split +examples +prompt, tokens +response, tokens +too long$'
exits 0 "$PEDROBENCH" train --model "$tmp/backbone" --task "$tmp/reviews.json" --method lora \
    --set rank=1 --steps 4 --batch 4 --out "$tmp/run.h5"
exits 0 "$PEDROBENCH" inspect "$tmp/run.h5"
prints '^task: reviews$'
prints '^    accuracy: '
"$PEDROBENCH" train --model "$tmp/backbone" --task "$tmp/reviews.json" --method lora \
    --set rank=1 --steps 4 --batch 4 --out "$tmp/run.h5" >"$tmp/out" 2>"$tmp/err"
ok "the same run is there already" grep -q 'nothing to do\|already\|complete' "$tmp/out" "$tmp/err"
# Another description is another run.
sed -i 's/"collected by hand"/"bought"/' "$tmp/reviews.json"
exits 0 "$PEDROBENCH" train --model "$tmp/backbone" --task "$tmp/reviews.json" --method lora \
    --set rank=1 --steps 4 --batch 4 --out "$tmp/run.h5" --quiet
prints '; written to '

# Evaluation only: long prompts lose their beginnings, for every candidate alike.
cat >"$tmp/only.json" <<'END'
{"doc": "d", "source": "s", "licence": "l", "version": "1", "kind": "rank", "metric": "accuracy",
 "test": "only.jsonl", "prompt": "{p}", "candidates": [" yes", " no"], "label": "{l}"}
END
long=$(printf 'x%.0s' {1..600})
printf '{"p": "%s A?", "l": 0}\n{"p": "B?", "l": 1}\n' "$long" >"$tmp/only.jsonl"
only=(--model "$tmp/backbone" --task "$tmp/only.json")
refuses 1 train "${only[@]}" --method lora --steps 2 --out "$tmp/trained.h5" --quiet
says 'no examples to train on'
says '^hint: .*--steps 0'
exits 0 "$PEDROBENCH" train "${only[@]}" --adapter "$tmp/run.adapter" --steps 0 --out "$tmp/evaluated.h5"
says '1 of 2 test examples were cut to fit into 256 tokens'
printf '{"p": "B?", "l": 1}\n{"p": "B?", "l": 2}\n' >"$tmp/only.jsonl"
refuses 1 train "${only[@]}" --adapter "$tmp/run.adapter" --steps 0 --out "$tmp/evaluated.h5" --quiet
says 'only.jsonl, line 2: the label "2" is unknown'
sed -i 's/"accuracy"/"bleu"/' "$tmp/only.json"
refuses 1 tasks show "$tmp/only.json"
says 'the metric "bleu" does not fit'
says '^hint: one of: .*accuracy_norm'
finish
