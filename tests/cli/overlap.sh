#!/usr/bin/env bash
# Evaluation data in a training text: planted overlap is found, recipes are checked, built-in tasks
# have none in the generated text.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"

# The suite's own text and its own tasks: nothing in common, by n-grams of 13 and 8 words or whole.
for n in 13 8; do
    exits 0 "$PEDROBENCH" overlap --bytes 1M --n "$n" --task-seed 1 --task-seed 2 --fail-above 0
    prints '^sql test +400 +\| +[1-9][0-9]+ +0 +0 +0  \| +[1-9][0-9]+ +0 +0 +0 +0$'
    prints '^yesno valid +200 '
    prints '^restaurant test +400 '
done
says '^reading generated '

# A training text with planted stretches, across line breaks and with other punctuation; one would
# run across documents.
text="$tmp/text.txt" eval="$tmp/eval.jsonl"
cat >"$text" <<'END'
Nothing of it. One two three four five six seven,
EIGHT "nine" ten; eleven -- twelve's.
%%
Thirteen fourteen fifteen. The cat sat (on the mat).
END
cat >"$eval" <<'END'
{"q": "Zero. One, two, three, four, five, six, seven, eight, nine, ten, eleven: twelve s!", "a": "x"}
{"q": "one two three four five six seven eight nine ten eleven twelve thirteen", "a": "the cat"}
{"q": "The cat sat on the mat", "a": "Nine ten eleven twelve s thirteen"}
END
common=(overlap --text "$text" --mark %% --task none --eval "$eval")
exits 0 "$PEDROBENCH" "${common[@]}" -q
prints '/eval.jsonl +3  \| +3 +1 +33.3% +1  \| +2 +1 +50% +1 +2$'
prints '^  item 1, 13 words, 1 time: "One, two, three, four, .*, eleven: twelve s"$'
prints '^  item 3, 6 words, 1 time: "The cat sat on the mat"$'
prints '^training text: text.txt, [0-9]+ bytes, 2 documents, 25 words, SHA-256 [0-9a-f]{16}$'
ok "quiet" [ ! -s "$tmp/err" ]
exits 0 "$PEDROBENCH" "${common[@]}" --json -q
"${PB_PYTHON:-/usr/bin/python3}" - "$tmp/out" <<'END' || code=9
import json, sys
j = json.load(open(sys.argv[1]))
e, = j["evaluation"]
assert (j["n"], j["least"], e["items"], e["short_items"], e["texts_too_short"]) == (13, 4, 3, 1, 2)
assert e["ngrams"] == {"texts": 2, "distinct": 3, "found": 1, "share": 1 / 3, "items_with": 1}, e
assert e["whole_texts"]["found"] == 1 and e["whole_texts"]["share"] == 0.5
assert [x["item"] for x in e["examples"]] == [1, 3]
assert j["training"][0]["documents"] == 2
END
ok "JSON says the same" [ "$code" -eq 0 ]
exits 0 "$PEDROBENCH" "${common[@]}" --fail-above 0.5
exits 1 "$PEDROBENCH" "${common[@]}" --fail-above 0.4
says '50% of .*/eval.jsonl is in the training text, allowed are 40%$'
exits 0 "$PEDROBENCH" "${common[@]}" --n 3 --least 1 --show 0
prints '/eval.jsonl +3  \| +18 +15 +83.3% +3  \| +2 +1 +50% +1 +0$'

# A folder is one set; headers can be passed over.
mkdir "$tmp/set"
printf 'q,a\n"the cat, sat on the mat",1\n' >"$tmp/set/a.csv"
printf 'q\ta\nthe cat sat on the mat\t1\n' >"$tmp/set/b.tsv"
touch "$tmp/set/notes.md"
exits 0 "$PEDROBENCH" "${common[@]}" --eval "$tmp/set" --header -q
prints '/set +2  \| +0 +0 +- +0  \| +1 +1 +100% +2 +2$'

# Real recipes: what the model was trained on, or nothing.
make_recipe() { # SHA-256 of the text
    cat >"$tmp/recipe.json" <<END
{"text": ["$text"], "mark": "%%", "bytes": 2000, "seed": 3, "steps": 10,
 "result": {"sources": [{"name": "text.txt", "bytes": 1, "sha256": "$1"},
  {"name": "generated", "bytes": 1, "sha256": "$2"}]}}
END
}
sha() { sha256sum | cut -d' ' -f1; }
made=$("$PEDROBENCH" tasks --plaintext 2000 --task-seed 3 | sha)
make_recipe "$(sha <"$text")" "$made"
recipe=(overlap --recipe "$tmp/recipe.json" --eval "$eval" -q)
exits 0 "$PEDROBENCH" "${recipe[@]}"
prints '^training text: text.txt, [0-9]+ bytes, 2 documents'
prints "^training text: generated, .* SHA-256 ${made:0:16}$"
prints '/eval.jsonl +3  \| +3 +1 '
make_recipe "${made}" "$made"
refuses 1 "${recipe[@]}"
says 'the recipe.s model was trained on another text: text.txt has the SHA-256'
make_recipe "$(sha <"$text")" "${made/[0-7]/9}"
refuses 1 "${recipe[@]}"
says 'another text: generated'

refuses 1 overlap --text "$tmp/nowhere" -q
refuses 2 overlap --text "$text" --task none
says 'no evaluation data'
refuses 2 overlap --text "$text" --task nonsense
refuses 2 overlap --text "$text" --task e2e
says '^hint: give --data'
refuses 1 overlap --text "$text" --eval "$tmp/nowhere" -q
mkdir "$tmp/empty"
refuses 1 overlap --text "$text" --eval "$tmp/empty" -q
refuses 1 overlap --text /dev/null -q
refuses 2 overlap --bytes 1k --n 0
refuses 2 overlap --bytes 1k --n 100
refuses 2 overlap --bytes 1k --least 14
exits 2 "$PEDROBENCH" overlap --bytes 1k --fail-above 2
exits 2 "$PEDROBENCH" overlap --bytes 1k --least 0
exits 2 "$PEDROBENCH" overlap --bytes x
exits 2 "$PEDROBENCH" overlap extra
printf '{"a": 1}\nno JSON\n' >"$tmp/bad.jsonl"
refuses 1 overlap --bytes 1k --eval "$tmp/bad.jsonl" -q
says 'bad.jsonl, line 2: '

# The two commands beside it that show what is trained on.
exits 0 "$PEDROBENCH" tasks --plaintext 2000 --task-seed 3
ok "whole documents" [ "$(wc -c <"$tmp/out")" -ge 2000 ]
exits 2 "$PEDROBENCH" tasks --plaintext 0
exits 2 "$PEDROBENCH" tasks yesno --plaintext 100
exits 0 "$PEDROBENCH" tokenizer train --vocab 260 --mark %% --out "$tmp/tokenizer.json" -q "$text"
encode=(tokenizer encode --tokenizer "$tmp/tokenizer.json")
"$PEDROBENCH" "${encode[@]}" --mark %% <"$text" >"$tmp/ids"
ok "a line per document" [ "$(wc -l <"$tmp/ids")" -eq 2 ]
"$PEDROBENCH" tokenizer decode --tokenizer "$tmp/tokenizer.json" <"$tmp/ids" >"$tmp/back"
grep -v '^%%$' "$text" | cmp -s - "$tmp/back" || code=9
ok "documents come back, line breaks and all" [ "$code" -eq 0 ]
exits 2 "$PEDROBENCH" tokenizer decode --tokenizer "$tmp/tokenizer.json" --mark x
finish
