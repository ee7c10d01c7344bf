#!/usr/bin/env bash
# From text to a backbone: a tokenizer, pretraining that survives kill -9 bit by bit, going on from a
# model, and what a folder says of itself.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"

# Text with repetitions, documents of unequal length, some bytes above 127.
"$PB_PYTHON" - "$tmp" <<'PY'
import random, sys
r = random.Random(5)
words = "the a red blue old young café house garden river walks sees finds 12 1984 likes, and then".split()
def document():
    return " ".join(r.choice(words) for _ in range(r.randrange(5, 300))) + "."
for name, n in (("text", 150), ("held", 12)):
    with open(f"{sys.argv[1]}/{name}.txt", "w") as f:
        f.write("\n<|doc|>\n".join(document() for _ in range(n)) + "\n")
PY
cd "$tmp" || exit 1

exits 0 "$PEDROBENCH" tokenizer train --vocab 300 --mark '<|doc|>' --out tok/tokenizer.json text.txt
prints "^tok/tokenizer.json: 300 tokens$"
exits 0 "$PEDROBENCH" tokenizer train --vocab 300 --mark '<|doc|>' --out again/tokenizer.json text.txt --quiet
ok "the same text gives the same tokenizer" cmp -s tok/tokenizer.json again/tokenizer.json
exits 0 "$PEDROBENCH" tokenizer train --vocab 5000 --out most/tokenizer.json text.txt
says "not 5000: no other pair occurs twice"
"$PEDROBENCH" tokenizer encode --tokenizer tok <held.txt >ids.txt
"$PEDROBENCH" tokenizer decode --tokenizer tok <ids.txt >back.txt
ok "decoding inverts encoding" cmp -s held.txt back.txt
ok "fewer ids than bytes" [ "$(wc -w <ids.txt)" -lt $(($(wc -c <held.txt) / 2)) ]
ok "encode --bos" grep -q '^0 ' <("$PEDROBENCH" tokenizer encode --bos --tokenizer tok <held.txt)
refuses 2 tokenizer train --vocab 100 --out x/t.json text.txt --quiet
printf 'ok\n\xff' >latin.txt
refuses 1 tokenizer train --out x/t.json latin.txt --quiet
says "byte 3 of the text is not UTF-8"
exits 1 bash -c 'echo "5 300" | "$0" tokenizer decode --tokenizer tok' "$PEDROBENCH"
says '"300" is no id below 300'
exits 2 "$PEDROBENCH" tokenizer grow

pretrain=("$PEDROBENCH" pretrain --tokenizer tok/tokenizer.json --text text.txt --valid held.txt
    --mark '<|doc|>' --geometry "width=32,ffn=64,layers=2,heads=4,kv_heads=2,head_dim=8,context=64"
    --batch-tokens 128 --steps 800 --untied --dtype bf16 --quiet --out)
exits 0 "${pretrain[@]}" whole
ok "the folder is complete" [ -s whole/model.safetensors -a -s whole/tokenizer.json -a -s whole/tokenizer_config.json ]
ok "nothing is left over" [ ! -e whole/pretrain.checkpoint ]
ok "the curve has every tenth step and the validations" [ "$(wc -l <whole/loss.csv)" -ge 90 ]

"${pretrain[@]}" killed >/dev/null 2>&1 &
pid=$!
for ((i = 0; i < 600; i++)); do
    [[ -e killed/pretrain.checkpoint ]] && break
    sleep 0.05
done
kill -KILL "$pid"
wait "$pid" 2>/dev/null
ok "killed in the middle" [ -e killed/pretrain.checkpoint -a ! -e killed/config.json ]
exits 0 "${pretrain[@]}" killed --recompute
ok "kill -9 and resume, with recomputation: the same weights" cmp -s whole/model.safetensors killed/model.safetensors
ok "kill -9 and resume: the same curve" cmp -s whole/loss.csv killed/loss.csv
before=$(stat -c %Y whole/config.json)
exits 0 "${pretrain[@]}" whole
ok "a complete folder is left alone" [ "$(stat -c %Y whole/config.json)" = "$before" ]
exits 1 "${pretrain[@]}" whole --seed 2
says "backbone of another recipe"

# The figures of recipe.json against the program's own scores of the same text.
ok "bits per byte follow from nats per token" "$PB_PYTHON" - <<'PY'
import json, math, sys
r = json.load(open("whole/recipe.json"))["result"]
bits = r["valid_nats_per_token"] / r["valid_bytes_per_token"] / math.log(2)
text = open("held.txt", "rb").read()
size = sum(len(d.strip()) for d in text.split(b"<|doc|>"))
sys.exit(not (abs(bits - r["valid_bits_per_byte"]) < 1e-9 and r["valid_bytes"] == size
              and 0.3 < bits < 2.5 and r["tokens"] <= 800 * 128))
PY
exits 0 "$PEDROBENCH" generate --model whole --prompt "the red" --max-new 20
exits 0 "$PEDROBENCH" inspect whole

# Going on from it: the first loss is where the old model ended, not that of guessing.
exits 0 "$PEDROBENCH" pretrain --from whole --text text.txt --valid held.txt --mark '<|doc|>' \
    --batch-tokens 128 --steps 30 --lr 1e-4 --quiet --out more
ok "its tokenizer's files come along" cmp -s whole/tokenizer_config.json more/tokenizer_config.json
exits 0 "$PEDROBENCH" convert whole converted
ok "convert takes them along too" cmp -s whole/tokenizer_config.json converted/tokenizer_config.json
ok "going on, not starting over" "$PB_PYTHON" - <<'PY'
import json, sys
old, new = (json.load(open(f"{d}/recipe.json")) for d in ("whole", "more"))
a, b = old["result"], new["result"]
rows = [line.split(",") for line in open("more/loss.csv").read().split("\n")[1:-1]]
first = next(float(row[2]) for row in rows if row[2])
sys.exit(not (abs(first - a["valid_nats_per_token"]) < 0.5
              and abs(b["valid_nats_per_token"] - a["valid_nats_per_token"]) < 0.2
              and b["total_tokens"] == a["tokens"] + b["tokens"] and new["before"] == old
              and new["width"] == 32 and new["tied"] is False))
PY
refuses 1 pretrain --from whole --geometry width=64 --text text.txt --mark '<|doc|>' --quiet --out no
says '"width" is given, but whole has another'
refuses 1 pretrain --text text.txt --mark '<|doc|>' --geometry kv_heads=4 --quiet --out no
exits 2 "$PEDROBENCH" pretrain --text text.txt --mark '<|doc|>' --batch-tokens 10 --quiet --out no
finish
