#!/usr/bin/env bash
# Processes started by mpirun: the same bits as one, whatever their number; one message when one of
# them fails; refused where nothing is shared.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"

# What mpirun tells its processes.
as() { # RANK COMMAND...
    env OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK="$1" "${@:2}"
}
exits 2 as 0 "$PEDROBENCH" methods
says 'OMPI_COMM_WORLD_SIZE is 2'
exits 2 as 1 "$PEDROBENCH" methods
ok "the others are silent" [ ! -s "$tmp/err" -a ! -s "$tmp/out" ]
if ! "$PEDROBENCH" --version | grep -q '^with '; then
    exits 2 as 0 "$PEDROBENCH" train --task yesno --method lora --out "$tmp/x.h5"
    says 'this build has no MPI'
    ((failed)) && finish
    skip "the rest: built without PB_MPI"
fi
command -v mpirun >/dev/null || skip "there is no mpirun"

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PB_THREADS=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none
cd "$tmp" || exit 1
geometry=width=32,ffn=64,layers=2,heads=4,kv_heads=2,head_dim=8
exits 0 "$PEDROBENCH" pretrain --out model --steps 5 --quiet --geometry $geometry
exits 0 "$PEDROBENCH" pretrain --out other --steps 5 --seed 2 --quiet --geometry $geometry
train=("$PEDROBENCH" train --model model --task yesno --steps 12 --batch 4 --accumulate 3
    --eval-every 5 --train-examples 100 --valid-examples 9 --test-examples 8 --quiet)

result() { # RUN: steps, losses, gradient norms, validations, test loss, the saved weights
    "$PB_PYTHON" - "$1.h5" <<'PY'
import sys, h5py
with h5py.File(sys.argv[1], "r") as f:
    t = f["train"]
    print(list(t["step"][:]), *([x.hex() for x in t[k][:].tolist()]
          for k in ("loss", "grad_norm", "valid/loss")),
          float(f["eval/yesno/metrics"].attrs["loss"]).hex())
PY
    cat "$1".adapter/*.safetensors "$1".model/*.safetensors 2>/dev/null | sha256sum
}

for method in "lora --set dropout=0.1" "pedro --set theta_every=3" full; do
    read -ra what <<<"$method"
    exits 0 "${train[@]}" --method "${what[@]}" --out "one-${what[0]}.h5"
    for n in 2 3; do
        exits 0 mpirun -n $n "${train[@]}" --method "${what[@]}" --out "$n-${what[0]}.h5"
        ok "${what[0]}: $n processes, the same bits" \
            [ "$(result "$n-${what[0]}")" = "$(result "one-${what[0]}")" ]
    done
done
ok "only rank 0 tells" [ "$(grep -c 'written to' out)" -eq 1 ]
exits 0 mpirun -n 2 "${train[@]}" --method full --out 2-full.h5
prints 'complete already'

# Of n values in M = 3 batches on N processes a process sends n (1 - 1/N) (ceil(M/N) + 1).
ok "bytes a step" "$PB_PYTHON" - <<'PY'
import sys, h5py
for N, rounds in ((1, 3), (2, 2), (3, 1)):
    with h5py.File(f"{N if N > 1 else 'one'}-lora.h5", "r") as f:
        notes, n = f["notes"].attrs, int(f["params"].attrs["trainable"])
        want = 4 * n * (N - 1) / N * (rounds + 1)
        if notes["processes"] != N or abs(notes["sent_bytes_per_step"] - want) > 4 * N * (rounds + 1):
            sys.exit(f"{N}: {dict(notes)}, {want}")
PY

says_once() { # PATTERN: among what mpirun says itself
    ok "one message: $1" [ "$(grep -c -e '^pedrobench\|: pedrobench ' err)" -eq 1 ]
    says "$1"
}
exits 2 mpirun -n 2 "${train[@]}" --method lora --accumulate 1 --out no.h5
says_once '2 processes for 1 batch a step'
exits 2 mpirun -n 2 "${train[@]}" --method lora --task nothing --out no.h5
says_once 'nothing'
exits 1 mpirun -n 1 "${train[@]}" --method lora --out c.h5 : -n 1 "${train[@]}" --method lora --model nowhere --out c.h5
says_once 'process 1 of 2, on .*nowhere'
exits 1 mpirun -n 1 "${train[@]}" --method lora --out a.h5 : -n 1 "${train[@]}" --method lora --model other --out a.h5
says_once 'process 1, on .* has other weights than process 0'
exits 1 mpirun -n 1 "${train[@]}" --method lora --out b.h5 : -n 1 "${train[@]}" --method lora --seed 2 --out b.h5
says_once 'has other data or options'

# Stopped, and gone on with by one process.
long=("${train[@]}" --method lora --steps 1500 --batch 1 --eval-every 500 --patience 0)
exits 0 "${long[@]}" --out whole.h5
mpirun -n 2 "${long[@]}" --out part.h5 >/dev/null 2>&1 &
for ((i = 0; i < 6000; i++)); do
    grep -q '"step": *5,' part.jsonl 2>/dev/null && break
    sleep 0.01
done
# As Ctrl-C does, which reaches the processes themselves; mpirun alone would kill them after a while.
read -ra ranks <"/proc/$!/task/$!/children"
kill -s INT "${ranks[@]}"
wait $! 2>/dev/null
ok "exit code of an interrupted run" [ $? -eq 130 ]
ok "stopped in the middle" [ -e part.h5.checkpoint -a ! -e part.h5 ]
exits 0 "${long[@]}" --out part.h5
ok "resume: the same bits" [ "$(result part)" = "$(result whole)" ]
finish
