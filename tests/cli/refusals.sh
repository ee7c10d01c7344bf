#!/usr/bin/env bash
# Models that cannot be used are refused by name before memory is spent: a LLaMA-2 7B folder (its
# weights a hole in a file) with something wrong in it, and no more than 256 MiB of memory to say so.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"
python=${PB_PYTHON:-/usr/bin/python3}

exits 0 "$PEDROBENCH" model new --like llama2-7b --random --out "$tmp/new"

# make PYTHON...: $tmp/model is that model, after changes to the configuration c, and to the tensors
# t, {name: [dtype, shape]}.
make() {
    rm -rf "$tmp/model"
    mkdir "$tmp/model"
    "$python" - "$tmp" "$@" <<'END'
import json, struct, sys
c = json.load(open(sys.argv[1] + "/new/config.json"))
del c["pb_random"]
C, F, V = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
t = {"model.embed_tokens.weight": ["BF16", [V, C]], "lm_head.weight": ["BF16", [V, C]],
     "model.norm.weight": ["BF16", [C]]}
for i in range(c["num_hidden_layers"]):
    p = "model.layers.%d." % i
    for n in "q_proj", "k_proj", "v_proj", "o_proj":
        t[p + "self_attn." + n + ".weight"] = ["BF16", [C, C]]
    for n, shape in ("gate_proj", [F, C]), ("up_proj", [F, C]), ("down_proj", [C, F]):
        t[p + "mlp." + n + ".weight"] = ["BF16", shape]
    for n in "input_layernorm", "post_attention_layernorm":
        t[p + n + ".weight"] = ["BF16", [C]]
for change in sys.argv[2:]:
    exec(change)
size = {"BF16": 2, "F16": 2, "F32": 4, "I8": 1, "F8_E4M3": 1, "U8": 1, "I32": 4, "I64": 8}
at, header = 0, {}
for name, (dtype, shape) in t.items():
    end = at + size[dtype] * shape[0] * (shape[1] if len(shape) > 1 else 1)
    header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
    at = end
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
with open(sys.argv[1] + "/model/model.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text)
    f.truncate(8 + len(text) + at)
json.dump(c, open(sys.argv[1] + "/model/config.json", "w"))
END
}

limit=262144
limited() { # the program, with little memory
    (
        ulimit -d $limit
        exec "$PEDROBENCH" "$@"
    )
}
if ! limited --version >/dev/null 2>&1; then
    echo "not checked: memory, of which a program with sanitizers needs more"
    limit=unlimited
fi

# refused MESSAGE PYTHON...: such a model is refused with this message by every command that loads.
refused() {
    local message=$1 command
    shift
    make "$@"
    for command in logits convert; do
        case $command in
        logits) try limited logits --model "$tmp/model" --tokens 1,2,3 ;;
        convert) try limited convert "$tmp/model" "$tmp/out-model" ;;
        esac
        ok "one line of error: $command, $message" one_error 1 "$command"
        says "$message"
    done
    ok "nothing is left" [ ! -e "$tmp/out-model" ]
}

# What memory is needed for a right one, 13 GB, is not there: the limit is one. A summary needs none.
make
if [[ $limit != unlimited ]]; then
    try limited logits --model "$tmp/model" --tokens 1,2,3
    ok "a whole model does not fit into 256 MiB" one_error 1 logits
    says 'cannot reserve [0-9.]+ MiB'
fi
exits 0 limited inspect "$tmp/model"
prints '^parameters: 6738415616$'
prints '^  model.layers.\*.mlp.up_proj.weight +11008,4096 +BF16 +32 '

refused '"FalconForCausalLM"' 'c["architectures"] = ["FalconForCausalLM"]'
refused '"MixtralForCausalLM"' 'c["architectures"] = ["MixtralForCausalLM"]'
refused '"yarn"' 'c["rope_scaling"] = {"rope_type": "yarn", "factor": 4.0}'
refused '"dynamic"' 'c["rope_scaling"] = {"type": "dynamic", "factor": 2.0}'
refused '"longrope"' 'c["rope_parameters"] = {"rope_type": "longrope", "rope_theta": 1e4}'
refused '"relu"' 'c["hidden_act"] = "relu"'
refused 'quantization_config' 'c["quantization_config"] = {"quant_method": "gptq"}'
refused 'num_key_value_heads 5' 'c["num_key_value_heads"] = 5'
refused '"model.layers.31.mlp.down_proj.weight" is missing' \
    'del t["model.layers.31.mlp.down_proj.weight"]'
refused '"lm_head.weight" is missing' 'del t["lm_head.weight"]'
refused '"model.layers.7.self_attn.q_proj.bias" is no part' \
    't["model.layers.7.self_attn.q_proj.bias"] = ["BF16", [C]]'
refused '"model.layers.32.input_layernorm.weight" is no part' \
    't["model.layers.32.input_layernorm.weight"] = ["BF16", [C]]'
refused '"model.layers.3.self_attn.k_proj.weight" has the shape \(1024,4096\)' \
    't["model.layers.3.self_attn.k_proj.weight"][1] = [1024, C]'
for dtype in I8 F8_E4M3 I32; do
    refused "\"model.layers.9.mlp.up_proj.weight\".*\"?$dtype" \
        "t[\"model.layers.9.mlp.up_proj.weight\"][0] = \"$dtype\""
done
refused '"model.norm.weight".*I64' 't["model.norm.weight"][0] = "I64"'

# Files cut short, and shards that are not there.
make
truncate -s -2 "$tmp/model/model.safetensors"
try limited logits --model "$tmp/model" --tokens 1
ok "a file cut short is refused" one_error 1 logits
says 'model.safetensors'
mv "$tmp/model/model.safetensors" "$tmp/model/model-00001-of-00002.safetensors"
cat >"$tmp/model/model.safetensors.index.json" <<'END'
{"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
END
try limited logits --model "$tmp/model" --tokens 1
ok "a missing shard is refused" one_error 1 logits
says 'model-00002-of-00002.safetensors'
echo '{"weight_map": {"model.norm.weight": "../../x.safetensors"}}' \
    >"$tmp/model/model.safetensors.index.json"
try limited logits --model "$tmp/model" --tokens 1
ok "a shard elsewhere is refused" one_error 1 logits
says '"../../x.safetensors"'

# GGUF: what it announces is not believed.
"$python" - "$tmp" <<'END'
import struct, sys
def text(s): return struct.pack("<Q", len(s)) + s.encode()
def key(k, v): return text(k) + struct.pack("<I", 8) + text(v)
def file(name, *parts): open(sys.argv[1] + "/" + name, "wb").write(b"GGUF" + b"".join(parts))
head = lambda tensors, keys: struct.pack("<IQQ", 3, tensors, keys)
file("arch.gguf", head(0, 1), key("general.architecture", "mamba"))
file("many.gguf", head(1 << 40, 1), key("general.architecture", "llama"))
file("keys.gguf", head(0, 1 << 60), key("general.architecture", "llama"))
file("long.gguf", head(0, 1), struct.pack("<Q", 1 << 62))
file("version.gguf", struct.pack("<IQQ", 2 << 24, 0, 0))
END
for each in 'arch:"mamba"' 'many:announces' 'keys:bytes are needed' 'long:bytes' 'version:version is'; do
    try limited logits --model "$tmp/${each%%:*}.gguf" --tokens 1
    ok "${each%%:*}.gguf is refused" one_error 1 logits
    says "${each#*:}"
done
finish
