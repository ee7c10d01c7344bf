#!/usr/bin/env bash
# Adapters as a user has them: trained, served, trained further, converted, merged, inspected; and
# what is refused.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"
python=${PB_PYTHON:-/usr/bin/python3}
model=$tmp/model
few=(--task yesno --batch 4 --steps 3 --train-examples 20 --valid-examples 10 --test-examples 10 --quiet)

logits() { "$PEDROBENCH" logits --json --tokens 1,5,7,2,9 "$@"; }
config() { # FOLDER PYTHON: edits adapter_config.json (c)
    "$python" - "$1/adapter_config.json" "$2" <<'END'
import json, sys
c = json.load(open(sys.argv[1]))
exec(sys.argv[2])
json.dump(c, open(sys.argv[1], "w"))
END
}
changed() { # FOLDER PYTHON: a copy that is changed, in $tmp/changed
    rm -rf "$tmp/changed" && cp -r "$1" "$tmp/changed" && config "$tmp/changed" "$2"
}

exits 0 "$PEDROBENCH" model new --like smollm-135m --random --dtype f32 --layers 2 --set hidden_size=48 \
    --set intermediate_size=80 --set num_attention_heads=6 --set num_key_value_heads=2 \
    --set head_dim=8 --set vocab_size=300 --set max_position_embeddings=256 --write --out "$model"
exits 0 "$PEDROBENCH" model new --like "$model" --random --dtype f32 --seed 9 --out "$tmp/other"
exits 0 "$PEDROBENCH" model new --like "$model" --random --dtype f32 --set intermediate_size=88 \
    --out "$tmp/wider"

declare -A options=([lora]="--set targets=q,v@1,down --set ranks=q:3,down@0:5 --set alphas=q:2"
    [ia3]="--set targets=k,v@0,gate,down --set inputs=gate,down --set rank=4"
    [prefix]="--set length=5" [pedro]="--set r=3" [bitfit]="--set rank=3" [houlsby]="--set where=ffn"
    [parallel]="--set scale=2" [prompt]="--set length=5" [iapt]="--set r=3")
for m in lora ia3 prefix pedro bitfit houlsby parallel prompt iapt; do
    # shellcheck disable=SC2086
    exits 0 "$PEDROBENCH" train --model "$model" --method $m ${options[$m]} --seed 1 "${few[@]}" \
        --out "$tmp/$m.h5"
    a=$tmp/$m.adapter
    ok "$m: a PEFT folder" [ -s "$a/adapter_model.safetensors" -a -s "$a/adapter_config.json" ]
    exits 0 "$PEDROBENCH" inspect "$a"
    prints '^kind: adapter$'
    prints '^  pedrobench:$'
    ok "$m changes the logits" eval '! diff <(logits --model "$model") <(logits --model "$model" --adapter "$a") >/dev/null'
    # Written again it is the same file.
    exits 0 "$PEDROBENCH" convert "$a" "$tmp/$m-again" --base "$model"
    ok "$m: the same weights" cmp "$a/adapter_model.safetensors" "$tmp/$m-again/adapter_model.safetensors"
    ok "$m: the same configuration" cmp "$a/adapter_config.json" "$tmp/$m-again/adapter_config.json"
    # Zero steps leave it as it is, more do not; the result says what it started from.
    exits 0 "$PEDROBENCH" train --model "$model" --adapter "$a" "${few[@]}" --steps 0 --out "$tmp/$m-0.h5"
    ok "$m: nothing is lost on the way" cmp "$a/adapter_model.safetensors" "$tmp/$m-0.adapter/adapter_model.safetensors"
    exits 0 "$PEDROBENCH" train --model "$model" --adapter "$a" --method $m "${few[@]}" --out "$tmp/$m-further.h5"
    ok "$m: trained further" eval '! cmp -s "$a/adapter_model.safetensors" "$tmp/$m-further.adapter/adapter_model.safetensors"'
    ok "$m: of the same sizes" cmp "$a/adapter_config.json" "$tmp/$m-further.adapter/adapter_config.json"
    # Another backbone is refused: by its sizes, or by its weights.
    refuses 1 logits --model "$tmp/wider" --adapter "$a" --tokens 1
    says "intermediate_size is 88"
    refuses 1 logits --model "$tmp/other" --adapter "$a" --tokens 1
    says 'other weights'
    changed "$a" 'del c["pedrobench"]["backbone"]["sha256"]'
    exits 0 "$PEDROBENCH" logits --model "$tmp/other" --adapter "$tmp/changed" --tokens 1
    # Nothing of ours is needed to read it, but for some training options.
    [[ $m == pedro || $m == iapt ]] && continue
    changed "$a" 'del c["pedrobench"]'
    ok "$m: without our key" diff <(logits --model "$model" --adapter "$a") \
        <(logits --model "$model" --adapter "$tmp/changed")
done

# ---- merge
for m in lora ia3; do
    exits 0 "$PEDROBENCH" merge "$model" "$tmp/$m.adapter" "$tmp/$m-merged"
    ok "$m: merged is like served" "$python" - <(logits --model "$model" --adapter "$tmp/$m.adapter") \
        <(logits --model "$tmp/$m-merged") <(logits --model "$model") <<'END'
import json, sys
a, b, c = (sum(json.load(open(p))["logits"], []) for p in sys.argv[1:])
def far(x, y): return max(abs(i - j) for i, j in zip(x, y))
sys.exit(not (far(a, b) < 1e-5 < far(a, c) / 2))
END
done
exits 0 "$PEDROBENCH" merge "$model" "$tmp/lora.adapter" "$tmp/bf16" --dtype bf16
ok "merged in bf16" grep -q '"torch_dtype": "bfloat16"' "$tmp/bf16/config.json"
for m in prefix pedro bitfit houlsby prompt iapt; do # this backbone has no biases for BitFit
    refuses 1 merge "$model" "$tmp/$m.adapter" "$tmp/no"
    says "method $m cannot be merged"
done
refuses 1 merge "$tmp/wider" "$tmp/lora.adapter" "$tmp/no"
refuses 1 merge "$model" "$tmp/lora.adapter" "$tmp/bf16"
says 'not empty'
refuses 2 merge "$model" "$tmp/lora.adapter" "$tmp/no" --dtype q4
exits 2 "$PEDROBENCH" merge "$model"
ok "a refused merge leaves nothing" [ ! -e "$tmp/no" ]

# ---- what is refused, and what is only said
a=$tmp/lora.adapter
served=("$PEDROBENCH" logits --model "$model" --adapter "$tmp/changed" --tokens 1)
for key in use_qalora lora_bias fan_in_fan_out; do
    changed "$a" "c['$key'] = True"
    refuses 1 "${served[@]:1}"
    says "\"$key\" is true"
done
# DoRA by its key alone lacks its lengths.
changed "$a" "c['use_dora'] = True"
refuses 1 "${served[@]:1}"
says lora_magnitude_vector
changed "$a" 'c["init_lora_weights"] = "pissa"'
refuses 1 "${served[@]:1}"
says '"init_lora_weights" is "pissa"'
changed "$a" 'c["peft_type"] = "LOHA"'
refuses 1 "${served[@]:1}"
says 'LOHA.*'
says '^hint: known are .*LORA'
changed "$a" 'c["target_modules"] = ["q_proj"]'
refuses 1 "${served[@]:1}"
says 'tensor "base_model.model.model.layers.[0-9].mlp.down_proj.lora_A.weight" is no part'
changed "$a" 'c["target_modules"].append("o_proj")'
refuses 1 "${served[@]:1}"
says '"base_model.model.model.layers.0.self_attn.o_proj.lora_A.weight" is missing'
changed "$a" 'c["r"] = 9'
refuses 1 "${served[@]:1}"
says 'has the shape'
changed "$a" 'c["some_new_key"] = 3'
exits 0 "${served[@]}"
says '^warning: .*some_new_key'
changed "$a" 'c["lora_alpha"] = 1000'
ok "alpha is the file's" eval '! diff <(logits --model "$model" --adapter "$a") <(logits --model "$model" --adapter "$tmp/changed") >/dev/null'
changed "$a" ''
mv "$tmp/changed/adapter_model.safetensors" "$tmp/changed/adapter_model.bin"
refuses 1 "${served[@]:1}"
says 'adapter_model.bin is a Python pickle'
refuses 1 inspect "$tmp/changed"
refuses 1 train --model "$model" --adapter "$a" --method ia3 "${few[@]}" --out "$tmp/x.h5"
says 'is of method lora, not ia3'
refuses 1 train --model "$model" --adapter "$a" --budget 1% "${few[@]}" --out "$tmp/x.h5"
says 'has its size'
refuses 2 train --model "$model" --adapter "$a" --set rank=3 "${few[@]}" --out "$tmp/x.h5"
says 'change the parameters'
refuses 2 convert "$a" "$tmp/no"
says '^hint: name the model with --base'
finish
