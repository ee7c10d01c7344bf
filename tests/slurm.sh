#!/usr/bin/env bash
# `pedrobench sweep --emit slurm` on a real Slurm of one node: this machine. Not among CTest's tests,
# since it needs root and starts daemons. It installs Debian's slurmctld, slurmd, slurm-client and
# munge, and runs them with a configuration, keys, ports and state of its own, which it removes; a
# Slurm that is at work here already is not touched. The program is build/pedrobench, or PEDROBENCH.
#
#   tests/slurm.sh
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
# shellcheck source=paper/lib.sh
. paper/lib.sh
export PEDROBENCH=${PEDROBENCH:-$PWD/build/pedrobench}
((EUID == 0)) || die "the daemons want root"
[[ -x $PEDROBENCH ]] || die "there is no $PEDROBENCH" "cmake -B build && cmake --build build -j2"
need yes slurmctld slurmd slurm-client munge
# shellcheck source=tests/cli/check.bash
. tests/cli/check.bash
cd "$tmp" || exit
PB_PYTHON=${PB_PYTHON:-/usr/bin/python3}

pids=()
stop() {
    ((${#pids[@]})) && kill "${pids[@]}" 2>/dev/null
    wait
    rm -rf "$tmp"
}
trap stop EXIT
chmod 755 "$tmp"
mkdir munge state spool

daemon() { # COMMAND...
    "$@" >>"$tmp/${1##*/}.log" 2>&1 </dev/null &
    pids+=($!)
}

dd if=/dev/urandom of=munge/key bs=1k count=1 status=none
chmod 700 munge && chmod 600 munge/key
# The socket's folder must be one that others can enter.
daemon munged --foreground --force --key-file="$tmp/munge/key" --socket="$tmp/munge.socket" \
    --pid-file="$tmp/munge/pid" --log-file="$tmp/munge/log" --seed-file="$tmp/munge/seed"

export SLURM_CONF=$tmp/slurm.conf
port=$((20000 + RANDOM % 10000))
cat >"$SLURM_CONF" <<END
ClusterName=test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$tmp/munge.socket
CredType=cred/munge
SlurmctldPort=$port
SlurmdPort=$((port + 1))
StateSaveLocation=$tmp/state
SlurmdSpoolDir=$tmp/spool
SlurmctldPidFile=$tmp/slurmctld.pid
SlurmdPidFile=$tmp/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
KillWait=30
NodeName=$(hostname -s) NodeAddr=127.0.0.1 $(slurmd -C | head -n 1 | grep -o 'CPUs=.*')
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
daemon slurmctld -D
daemon slurmd -D
for _ in {1..60}; do
    sinfo -h -o %t 2>/dev/null | grep -q idle && break
    sleep 1
done
if ! sinfo -h -o %t | grep -q idle; then
    tail -n 20 ./*.log
    die "Slurm did not start"
fi

"$PEDROBENCH" pretrain --out model --steps 2 --quiet \
    --geometry width=32,ffn=64,layers=1,heads=4,kv_heads=2,head_dim=8
cat >sweep.json <<'END'
{"model": "model", "tasks": {"yesno": {}}, "methods": {"lora": {}, "small": {"method": "lora", "budget": 3}},
 "seeds": [1, 2], "tuning": {"seeds": [101], "lr": {"lora": [0.001, 0.1], "small": [0.001, 0.1]}},
 "defaults": {"budget": "5%", "steps": 4, "batch": 2, "eval_every": 2,
              "limit": {"train": 8, "valid": 2, "test": 2}},
 "latency": {"methods": ["lora"], "budget": "5%", "tenants": [1], "prompt": 4, "new": 4, "seconds": 1}}
END
exits 0 "$PEDROBENCH" sweep sweep.json --out "the results" --emit slurm --to jobs.sh
exits 0 bash jobs.sh
prints '^[0-9]+$'
for _ in {1..120}; do
    [[ -z $(squeue -h) ]] && break
    sleep 1
done
ok "the queue is empty" [ -z "$(squeue -h)" ]
exits 1 "$PEDROBENCH" sweep sweep.json --out "the results" --status
prints '^tuning +yesno +lora +2 '
prints '^test +yesno +lora +2 '
prints '^test +yesno +small +\. +\. +2 '
prints '^latency +1 '
ok "trials ended before the runs that wait for them began" "$PB_PYTHON" - <<'PY'
import json
events = [json.loads(x) for x in open("the results/sweep.jsonl")]
at = lambda what, event: [i for i, e in enumerate(events) if e["event"] in event and what in e["run"]]
assert max(at("tuning/", ("finish", "fail"))) < min(i for i in at("yesno/", ("start",)) if "tuning" not in events[i]["run"])
assert at("latency", ("start",))[0] > max(at("yesno/", ("finish", "fail")))
PY
finish
