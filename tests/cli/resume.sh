#!/usr/bin/env bash
# Killed and interrupted runs: what continues gives the same file content as what was never stopped.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"

"$PEDROBENCH" pretrain --out "$tmp/model" --steps 20 --quiet \
    --geometry width=32,ffn=64,layers=2,heads=4,kv_heads=2,head_dim=8 2>"$tmp/err" ||
    ok "pretrain" false

train=("$PEDROBENCH" train --model "$tmp/model" --task yesno --method pedro --set theta_every=3
    --budget 5% --steps 400 --batch 8 --eval-every 50 --patience 0 --train-examples 200
    --valid-examples 20 --test-examples 20 --quiet --out)

losses() { # FILE: every step's loss, every validation, the test loss
    "$PB_PYTHON" - "$1" <<'PY'
import sys, h5py
with h5py.File(sys.argv[1], "r") as f:
    t = f["train"]
    print(f.attrs["status"], list(t["step"][:]), [x.hex() for x in t["loss"][:].tolist()],
          [x.hex() for x in t["valid/loss"][:].tolist()],
          float(f["eval/yesno/metrics"].attrs["loss"]).hex())
PY
}

# stopped SIGNAL OUT: starts a run, waits until it has a checkpoint, sends the signal.
stopped() {
    "${train[@]}" "$2" >/dev/null 2>&1 &
    local pid=$! i=0
    while [ ! -e "$2.checkpoint" ] && [ $((i++)) -lt 600 ]; do sleep 0.05; done
    kill -s "$1" "$pid"
    wait "$pid"
    echo $?
}

exits 0 "${train[@]}" "$tmp/whole.h5"
whole=$(losses "$tmp/whole.h5")
ok "all steps are there" grep -q "400\]" <<<"$whole"

status=$(stopped KILL "$tmp/killed.h5" 2>/dev/null)
ok "killed in the middle" [ "$status" -eq 137 ]
ok "no result yet" [ ! -e "$tmp/killed.h5" ]
ok "a journal is there" [ -s "$tmp/killed.jsonl" ]
printf '{"event":"step","st' >>"$tmp/killed.jsonl" # a torn last line
exits 0 "${train[@]}" "$tmp/killed.h5"
ok "kill -9 and resume: bitwise the same" [ "$(losses "$tmp/killed.h5")" = "$whole" ]
ok "nothing is left over" [ -z "$(ls "$tmp"/killed.h5.* "$tmp"/killed.jsonl 2>/dev/null)" ]

status=$(stopped INT "$tmp/interrupted.h5" 2>/dev/null)
ok "Ctrl-C exits 130" [ "$status" -eq 130 ]
exits 0 "${train[@]}" "$tmp/interrupted.h5" --recompute
ok "Ctrl-C and resume, with recomputation: bitwise the same" [ "$(losses "$tmp/interrupted.h5")" = "$whole" ]

exits 0 "${train[@]}" "$tmp/whole.h5"
prints "complete already"
exits 1 "$PEDROBENCH" train --model "$tmp/model" --task yesno --method full --lr 100 --clip 0 \
    --train-examples 100 --valid-examples 10 --test-examples 10 --quiet --out "$tmp/diverged.h5"
ok "divergence is a status" grep -q '"diverged"' <(h5dump -a /status "$tmp/diverged.h5")
says "is .* at step"
exits 0 "$PEDROBENCH" train --model "$tmp/model" --task yesno --method lora --set dropout=0.1 --steps 2 \
    --train-examples 50 --valid-examples 4 --test-examples 4 --out "$tmp/told.h5"
says "^activations: [0-9.]+ MB a step \([0-9.]+ MB with --recompute\)$"
ok "recomputation takes less" awk '/^activations/ { exit !(substr($6, 2) < 0.8 * $2) }' "$tmp/err"
exits 1 "${train[@]}" "$tmp/budget.h5" --budget 10
says "needs at least"
finish
