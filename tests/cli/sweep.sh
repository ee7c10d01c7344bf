#!/usr/bin/env bash
# A sweep: its grid, what it refuses, failures, time limits, kill -9, a second process beside it.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"
cd "$tmp" || exit

"$PEDROBENCH" pretrain --out model --steps 2 --quiet \
    --geometry width=32,ffn=64,layers=1,heads=4,kv_heads=2,head_dim=8 2>err || ok "pretrain" false

# experiment FILE METHODS [MORE [STEPS]]: on "yesno", with runs as small as they can be.
experiment() {
    cat >"$1" <<END
{"model": "model", "tasks": {"yesno": {}}, "methods": $2, ${3-"\"seeds\": [1]"},
 "defaults": {"steps": ${4-4}, "batch": 2, "eval_every": 0,
              "limit": {"train": 8, "valid": 2, "test": 2}}}
END
}

sweep() { # FILE ARGUMENT...: in the background, as a process to be waited for or killed
    exec "$PEDROBENCH" sweep "$@" >/dev/null 2>&1 </dev/null
}

events() { # DIR EVENT RUN: how many of them the journal has
    grep -c "\"event\":\"$2\",\"run\":\"$3\"" "$1/sweep.jsonl"
}

wait_for() { # COMMAND...: until it succeeds, a minute at most
    local i=0
    until "$@" 2>/dev/null; do
        ((i++ < 600)) || return 1
        sleep 0.1
    done
}

job_of() { # DIR RUN: the process that makes it
    sed -n "s|.*\"event\":\"start\",\"run\":\"$2\".*\"pid\":\([0-9]*\).*|\1|p" "$1/sweep.jsonl" | tail -n 1
}

# ---- the grid

experiment grid.json '{"none": {}, "lora": {}, "half": {"method": "ia3", "lr": [0.01, 0.03], "budget": 300}}' \
    '"budgets": ["5%", 2000], "seeds": [1, 2]'
exits 0 "$PEDROBENCH" sweep grid.json --out g --dry-run
cut -d ' ' -f 1 out | sort -u >states
awk '{print $2}' out | sort >ids
ok "all is missing" [ "$(cat states)" = missing ]
ok "the grid" cmp -s ids <(sort <<'END'
yesno/none-seed1
yesno/lora-5pct-seed1
yesno/lora-5pct-seed2
yesno/lora-2000-seed1
yesno/lora-2000-seed2
yesno/half-lr0.01-seed1
yesno/half-lr0.01-seed2
yesno/half-lr0.03-seed1
yesno/half-lr0.03-seed2
END
)
ok "a dry run makes nothing" [ ! -e g ]

# ---- what is refused, before anything is made

refused() { # PATTERN METHODS [MORE]
    experiment bad.json "$2" "${@:3}"
    refuses 1 sweep bad.json --out bad
    says "$1"
    says '^hint: .'
}
refused 'unknown key "seed"' '{"lora": {}}' '"seed": 1'
refused 'unknown key "learning_rate"' '{"lora": {"learning_rate": 1}}'
refused '"seeds": number 2 is no seed' '{"lora": {}}' '"seeds": [1, "2"]'
refused 'has 3 twice' '{"lora": {}}' '"seeds": [3, 3]'
refused 'part of a file name' '{"lo/ra": {}}'
refused 'number 2 is out of place' '{"lora": {"lr": [0.1, 0.1]}}'
refused 'has the key "seed"' '{"lora": {"seed": 3}}'
refused 'there is no method "lora2"' '{"lora2": {}}'
refused 'two runs would be written to yesno/lora-5pct-seed1.h5' '{"lora-5pct": {"method": "lora", "budget": 9}, "lora": {}}' \
    '"seeds": [1], "budgets": ["5%"]'
tune='"seeds": [1], "tuning": {"seeds": [101]'
refused 'seed 1 is both a tuning and a test seed' '{"lora": {}}' '"seeds": [1], "tuning": {"seeds": [101, 1]}'
refused 'lora is to be tuned over 5 rates, ia3 over 2' '{"ia3": {}, "lora": {}}' "$tune, \"lr\": {\"ia3\": [0.01, 0.1]}}"
refused 'over 5 rates, "trials" says all over 4' '{"lora": {}}' "$tune, \"trials\": 4}"
refused 'both given and to be tuned' '{"lora": {"lr": 0.1}}' "$tune}"
refused 'no method to tune' '{"lora": {}}' "$tune, \"lr\": {\"none\": [0.1]}}"
refused 'rates per task need trials on every task' '{"lora": {}}' "$tune, \"tasks\": [\"yesno\"]}"
refused '"rate_per" is "seed"' '{"lora": {}}' "$tune, \"rate_per\": \"seed\"}"
ok "nothing was made" [ ! -e bad ]
refuses 2 sweep grid.json --out g --only yesno/lora-seed3
says 'no run "yesno/lora-seed3"'
refuses 2 sweep grid.json --out g --emit cron
says 'unknown list of jobs'
exits 2 "$PEDROBENCH" sweep grid.json --out g --shard 3/2
exits 2 "$PEDROBENCH" sweep grid.json --out g --timeout 3x
exits 2 "$PEDROBENCH" sweep grid.json --out g --status --dry-run

# ---- a run that fails does not end the sweep

experiment fail.json '{"small": {"method": "lora", "budget": 3}, "far": {"method": "lora", "lr": 99, "options": {"alpha": 1e6}}, "ia3": {}}'
exits 1 "$PEDROBENCH" sweep fail.json --out f --quiet
says 'yesno/small-seed1: failed: .*the budget is 3'
says '^pedrobench sweep: [12] of 3 runs did not complete'
ok "the others were made" [ -s f/yesno/ia3-seed1.h5 ]
ok "its result says why" grep -q 'failed' <(h5dump -a /status f/yesno/small-seed1.h5)
exits 1 "$PEDROBENCH" sweep fail.json --out f --status
prints 'test +yesno +small +\. +\. +1'
prints 'test +yesno +ia3 +1'
prints 'failed: yesno/small-seed1: .*the budget is 3'
prints '^time left: about 0 s'
exits 1 "$PEDROBENCH" sweep fail.json --out f
ok "it is not tried again" [ "$(events f start yesno/small-seed1)" = 1 ]
ok "nor is what is complete" [ "$(events f start yesno/ia3-seed1)" = 1 ]
exits 1 "$PEDROBENCH" sweep fail.json --out f --retry --quiet
ok "--retry tries it again" [ "$(events f start yesno/small-seed1)" = 2 ]
exits 0 "$PEDROBENCH" table f
prints 'lora.* 1( |$)'

# ---- a result counts when it is undamaged and of this configuration

exits 0 "$PEDROBENCH" sweep grid.json --out g --only yesno/half-lr0.03-seed2 --quiet
exits 1 "$PEDROBENCH" sweep grid.json --out g --status
prints '^all +1 +\. +\. +\. +\. +\. +8$'
sed 's/"eval_every": 0/"eval_every": 2/' grid.json >other.json
exits 1 "$PEDROBENCH" sweep other.json --out g --status
prints '^all +\. +\. +\. +\. +\. +\. +9$'
printf x | dd of=g/yesno/half-lr0.03-seed2.h5 bs=1 seek=2500 conv=notrunc status=none
exits 1 "$PEDROBENCH" sweep grid.json --out g --status
prints '^all +\. +\. +\. +\. +\. +\. +9$'

# ---- a time limit

experiment long.json '{"lora": {}, "ia3": {"steps": 3}}' '"seeds": [1]' 10000000
exits 1 "$PEDROBENCH" sweep long.json --out t --timeout 2
says 'yesno/lora-seed1: stopped after 2 s'
ok "the next run had its turn" [ "$(events t start yesno/ia3-seed1)" = 1 ]
ok "it can go on" [ -s t/yesno/lora-seed1.h5.checkpoint ]
exits 1 "$PEDROBENCH" sweep long.json --out t --status
prints 'unfinished: yesno/lora-seed1: interrupted'
exits 1 "$PEDROBENCH" sweep long.json --out t --timeout 2 --quiet
ok "it went on" grep -q '"event":"resume","step":[1-9]' t/yesno/lora-seed1.jsonl

# ---- a job that is killed, a sweep that is killed, a torn journal

exits 0 "$PEDROBENCH" sweep long.json --out t --only yesno/ia3-seed1 --quiet
sweep long.json --out t &
pid=$!
started() { [ "$(events t start yesno/lora-seed1)" -ge "$1" ]; }
ok "started" wait_for started 3
exits 1 "$PEDROBENCH" sweep long.json --out t --status
prints '^all +1 +\. +\. +1 +\. +\. +\.$'
kill -KILL "$(job_of t yesno/lora-seed1)"
wait $pid
ok "the sweep goes on without it" [ $? -eq 1 ]
ok "and says so" grep -q '"status":"crashed"' t/sweep.jsonl

sweep long.json --out t &
pid=$!
ok "started again" wait_for started 4
kill -KILL $pid
wait $pid 2>/dev/null
unlocked() { [ ! -e t/yesno/lora-seed1.lock ] || flock -n t/yesno/lora-seed1.lock true; }
ok "its job ends too" wait_for unlocked
printf '{"event":"finish","run":"yesno/l' >>t/sweep.jsonl
experiment long.json '{"lora": {}, "ia3": {"steps": 3}}' # other steps: another configuration
rm t/yesno/lora-seed1.*
before=$(stat -c %y t/yesno/ia3-seed1.h5)
sed -i 's/"ia3": {"steps": 3}/"ia3": {"steps": 3}, "full": {}/' long.json
exits 0 "$PEDROBENCH" sweep long.json --out t --quiet
exits 0 "$PEDROBENCH" sweep long.json --out t --status
prints '^all +3 '
ok "what was complete was kept" [ "$before" = "$(stat -c %y t/yesno/ia3-seed1.h5)" ]
ok "the torn line ends" [ "$(grep -c '^{"event":"finish","run":"yesno/l$' t/sweep.jsonl)" = 1 ]

# ---- Ctrl-C

experiment long.json '{"lora": {}}' '"seeds": [1]' 10000000
rm -r t
sweep long.json --out t &
pid=$!
ok "started" wait_for started 1
kill -TERM $pid
wait $pid
ok "interrupted: exit code 130" [ $? -eq 130 ]
ok "the job said so" grep -q '"status":"interrupted"' t/sweep.jsonl

# ---- two at once

experiment two.json '{"lora": {}, "ia3": {}, "prefix": {}, "pedro": {}}'
sweep two.json --out two &
pid=$!
exits 0 "$PEDROBENCH" sweep two.json --out two --quiet
wait $pid
ok "both succeed" [ $? -eq 0 ]
ok "each run was made once" [ "$(grep -c '"event":"start"' two/sweep.jsonl)" = 4 ]
exits 0 "$PEDROBENCH" sweep two.json --out two --status
ok "no lock is left" [ -z "$(find two -name '*.lock')" ]

# ---- side by side

exits 0 "$PEDROBENCH" sweep two.json --out three --jobs 3 --quiet
exits 0 "$PEDROBENCH" sweep two.json --out three --status
ok "three run at once" [ "$(head -n 3 three/sweep.jsonl | grep -c '"event":"start"')" = 3 ]
ok "each run was made once" [ "$(grep -c '"event":"start"' three/sweep.jsonl)" = 4 ]
losses() { h5dump -d /train/loss -y "$1" | tail -n +2; }
for method in lora ia3 prefix pedro; do
    losses "two/yesno/$method-seed1.h5" >serial
    losses "three/yesno/$method-seed1.h5" >parallel
    ok "the same losses" cmp -s serial parallel
done
exits 2 "$PEDROBENCH" sweep two.json --out three --jobs 0
says 'jobs is 0'

experiment long.json '{"lora": {}, "ia3": {}}' '"seeds": [1]' 10000000
rm -r t
sweep long.json --out t --jobs 2 &
pid=$!
both() { started 1 && [ "$(events t start yesno/ia3-seed1)" = 1 ]; }
ok "both started" wait_for both
kill -TERM $pid
wait $pid
ok "interrupted: exit code 130" [ $? -eq 130 ]
ok "both jobs said so" [ "$(grep -c '"status":"interrupted"' t/sweep.jsonl)" = 2 ]
ok "no lock is left" [ -z "$(find t -name '*.lock')" ]
finish
