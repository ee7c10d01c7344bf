#!/usr/bin/env bash
# `model`, `convert` and `inspect`: models come in from every format and go out again, bit for bit.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"
python=${PB_PYTHON:-/usr/bin/python3}
oracle=$PB_SOURCE/tests/oracle

# same_tensors A B: two folders hold the same tensors of the same types, bit for bit.
same_tensors() {
    "$python" - "$@" <<'END'
import glob, json, struct, sys

def read(folder):
    out = {}
    for path in glob.glob(folder + "/*.safetensors"):
        raw = open(path, "rb").read()
        n = struct.unpack("<Q", raw[:8])[0]
        for name, e in json.loads(raw[8:8 + n]).items():
            if name != "__metadata__":
                assert name not in out, name
                b, end = e["data_offsets"]
                out[name] = (e["dtype"], e["shape"], raw[8 + n + b:8 + n + end])
    return out

a, b = (read(f) for f in sys.argv[1:3])
different = [k for k in a.keys() | b.keys() if a.get(k) != b.get(k)]
sys.exit(f"different: {different[:5]}" if different or not a else 0)
END
}

logits() { "$PEDROBENCH" logits --model "$1" --tokens 1,5,7,2,9 --json; }
same_logits() { diff <(logits "$1") <(logits "$2") >/dev/null && [[ -n $(logits "$1") ]]; }
weights_of() { # the lines of a summary that speak of weights
    "$PEDROBENCH" inspect "$1" | sed -n '/^parameters:/,$p'
}

# ---- model list, model new
exits 0 "$PEDROBENCH" model list
# The parameters of the published models.
while read -r name parameters; do
    prints "^$name +$parameters "
done <<'END'
llama2-7b 6738415616
llama2-13b 13015864320
llama3-8b 8030261248
llama3.2-1b 1235814400
mistral-7b 7241732096
gemma-2b 2506172416
gemma2-2b 2614341888
qwen2-0.5b 494032768
qwen3-0.6b 596049920
tinyllama 1100048384
smollm-135m 134515008
stories15m 15191712
stories110m 109529856
END
prints '^llama2-7b +6738415616 +13\.48 '
ok "every preset is listed" [ "$(wc -l <"$tmp/out")" -eq 14 ]
new=("$PEDROBENCH" model new --like smollm-135m --random --layers 2 --set vocab_size=300)
exits 0 "${new[@]}" --seed 3 --out "$tmp/seed"
ok "no weights are written" [ ! -e "$tmp/seed/model.safetensors" ]
exits 0 "${new[@]}" --seed 3 --write --out "$tmp/written"
exits 0 "${new[@]}" --seed 3 --write --dtype f32 --out "$tmp/wide"
exits 0 "${new[@]}" --seed 4 --out "$tmp/other"
ok "the seed alone gives the written weights" same_logits "$tmp/seed" "$tmp/written"
ok "another seed gives others" eval '! same_logits "$tmp/seed" "$tmp/other"'
ok "f32 differs from bf16" eval '! same_logits "$tmp/wide" "$tmp/written"'
exits 0 "$PEDROBENCH" model new --like "$tmp/written" --random --out "$tmp/alike"
ok "a model to take after" [ "$(weights_of "$tmp/alike")" = "$(weights_of "$tmp/seed")" ]
refuses 2 model new --like nothing --random --out "$tmp/x"
says 'smollm-135m'
refuses 2 model new --like smollm-135m --out "$tmp/x"
says '^hint: add --random'
refuses 2 model new --like smollm-135m --random --set x=1 --out "$tmp/x"
says 'hidden_size'
refuses 1 model new --like smollm-135m --random --set hidden_size=7 --set head_dim=null --out "$tmp/x"
refuses 1 model new --like smollm-135m --random --set hidden_act=relu --out "$tmp/x"
says 'relu'
refuses 1 model new --like smollm-135m --random --out "$tmp/seed"
says 'not empty'
ok "a refused model leaves nothing" [ ! -e "$tmp/x" ]
cp "$tmp/written/model.safetensors" "$tmp/other/"
refuses 1 logits --model "$tmp/other" --tokens 1
says 'random weights, but .*model.safetensors exists'

# ---- a folder, sharded and back
exits 0 "$PEDROBENCH" convert "$tmp/written" "$tmp/shards" --shard-size 1M
ok "shards have an index" [ -e "$tmp/shards/model.safetensors.index.json" ]
ok "there are several" [ "$(ls "$tmp/shards"/model-0*.safetensors | wc -l)" -gt 3 ]
ok "shards hold the same tensors" same_tensors "$tmp/written" "$tmp/shards"
ok "and give the same logits" same_logits "$tmp/written" "$tmp/shards"
exits 0 "$PEDROBENCH" convert "$tmp/shards" "$tmp/one"
ok "one file again" cmp "$tmp/written/model.safetensors" "$tmp/one/model.safetensors"
exits 0 "$PEDROBENCH" convert "$tmp/seed" "$tmp/fromseed"
ok "weights out of a seed" cmp "$tmp/written/model.safetensors" "$tmp/fromseed/model.safetensors"
exits 0 "$PEDROBENCH" convert "$tmp/written" "$tmp/f32" --dtype f32
exits 0 "$PEDROBENCH" convert "$tmp/f32" "$tmp/bf16" --dtype bf16
ok "bf16 to f32 and back" same_tensors "$tmp/written" "$tmp/bf16"
ok "f32 copies are exact" same_logits "$tmp/written" "$tmp/f32"
ok "config.json says the type" grep -q '"torch_dtype": "float32"' "$tmp/f32/config.json"
for dtype in f16 bf16 f32; do # in shards, to f32 and back: nothing is lost, and nothing changes
    exits 0 "$PEDROBENCH" convert "$tmp/written" "$tmp/$dtype-shards" --dtype "$dtype" --shard-size 2M
    ok "$dtype: several shards" [ "$(ls "$tmp/$dtype-shards"/model-0*.safetensors | wc -l)" -gt 2 ]
    exits 0 "$PEDROBENCH" convert "$tmp/$dtype-shards" "$tmp/$dtype-wide" --dtype f32
    exits 0 "$PEDROBENCH" convert "$tmp/$dtype-wide" "$tmp/$dtype-again" --dtype "$dtype"
    ok "$dtype: the same logits in f32" same_logits "$tmp/$dtype-shards" "$tmp/$dtype-wide"
    ok "$dtype: the same tensors again" same_tensors "$tmp/$dtype-shards" "$tmp/$dtype-again"
    rm -r "$tmp/$dtype-wide" "$tmp/$dtype-again"
done
rm "$tmp/shards/model-00002-of-"*
refuses 1 logits --model "$tmp/shards" --tokens 1
says 'model-00002-of'
refuses 1 convert "$tmp/written" "$tmp/f32"
says 'not empty'
refuses 2 convert "$tmp/written" "$tmp/y" --dtype int4
refuses 2 convert "$tmp/written" "$tmp/y" --to onnx
refuses 1 convert "$tmp/nowhere" "$tmp/y"
ok "a refused conversion leaves nothing" [ ! -e "$tmp/y" ]

# A tensor too many, one too few, one of another shape, by name; what follows from the
# configuration may be there.
edit() { # FROM TO PYTHON: changes the header (h) and data (d) of a safetensors file
    rm -rf "$2" && cp -r "$1" "$2" && "$python" - "$2/model.safetensors" "$3" <<'END'
import json, struct, sys
raw = open(sys.argv[1], "rb").read()
n = struct.unpack("<Q", raw[:8])[0]
h, d = json.loads(raw[8:8 + n]), raw[8 + n:]
exec(sys.argv[2])
text = json.dumps(h).encode()
open(sys.argv[1], "wb").write(struct.pack("<Q", len(text)) + text + d)
END
}
add='def add(name, n): global d; h[name] = {"dtype": "F32", "shape": [n], "data_offsets": [len(d), len(d) + 4 * n]}; d += bytes(4 * n)'
edit "$tmp/f32" "$tmp/bad" "$add
add('model.layers.0.self_attn.rotary_emb.inv_freq', 32); add('lm_head.weight', 3)"
ok "known extra tensors are passed over" same_logits "$tmp/f32" "$tmp/bad"
edit "$tmp/f32" "$tmp/bad" "$add
add('model.layers.2.mlp.up_proj.weight', 3)"
refuses 1 logits --model "$tmp/bad" --tokens 1
says '"model.layers.2.mlp.up_proj.weight" is no part'
edit "$tmp/f32" "$tmp/bad" "h['model.layers.1.mlp.up.weight'] = h.pop('model.layers.1.mlp.up_proj.weight')"
refuses 1 logits --model "$tmp/bad" --tokens 1
says '"model.layers.1.mlp.up_proj.weight" is missing'
edit "$tmp/f32" "$tmp/bad" "h['model.layers.1.mlp.up_proj.weight']['shape'].reverse()"
refuses 1 convert "$tmp/bad" "$tmp/y"
says '"model.layers.1.mlp.up_proj.weight" has the shape \(576,1536\), not \(1536,576\)'
edit "$tmp/f32" "$tmp/bad" "h['model.norm.weight']['dtype'] = 'I32'"
refuses 1 inspect "$tmp/bad"
says '"model.norm.weight".*"I32"'

# ---- llama2.c and back
exits 0 "$PEDROBENCH" model new --like stories15m --random --layers 2 --set vocab_size=300 \
    --set num_key_value_heads=3 --dtype f32 --write --out "$tmp/plain"
exits 0 "$PEDROBENCH" convert "$tmp/plain" "$tmp/plain.bin" --to llama2c
exits 0 "$PEDROBENCH" convert "$tmp/plain.bin" "$tmp/again"
ok "folder, llama2.c, folder: bit for bit" same_tensors "$tmp/plain" "$tmp/again"
ok "llama2.c gives the same logits" same_logits "$tmp/plain" "$tmp/plain.bin"
exits 0 "$PEDROBENCH" convert "$tmp/again" "$tmp/again.bin" --to llama2c
ok "llama2.c, folder, llama2.c" cmp "$tmp/plain.bin" "$tmp/again.bin"
refuses 1 convert "$tmp/plain" "$tmp/plain.bin" --to llama2c
says 'exists already'
# Version 0, which has the unused tables of RoPE at its end, to a folder and to version 1.
for tied in 0 1; do
    "$python" - "$tmp/v0.bin" $tied <<'END'
import random, struct, sys
C, F, L, H, KV, V, T = 32, 40, 2, 4, 2, 50, 16
tied, rng = int(sys.argv[2]), random.Random(1)
n = V * C + L * (2 * C + 2 * C * C + 2 * C * KV * (C // H) + 3 * C * F) + C
w = [rng.gauss(0, 0.2) for _ in range(n)] + [9.0] * (T * C // H)
w += [] if tied else [rng.gauss(0, 0.2) for _ in range(V * C)]
with open(sys.argv[1], "wb") as f:
    f.write(struct.pack("<7i%df" % len(w), C, F, L, H, KV, V if tied else -V, T, *w))
END
    rm -rf "$tmp/v0" "$tmp/v1" "$tmp/v1.bin"
    exits 0 "$PEDROBENCH" convert "$tmp/v0.bin" "$tmp/v0"
    exits 0 "$PEDROBENCH" convert "$tmp/v0" "$tmp/v1.bin" --to llama2c
    exits 0 "$PEDROBENCH" convert "$tmp/v1.bin" "$tmp/v1"
    ok "v0 (tied: $tied) and its folder" same_logits "$tmp/v0.bin" "$tmp/v0"
    ok "v0 (tied: $tied) and v1" same_logits "$tmp/v0.bin" "$tmp/v1.bin"
    ok "v0, folder, v1, folder (tied: $tied)" same_tensors "$tmp/v0" "$tmp/v1"
    exits 0 "$PEDROBENCH" inspect "$tmp/v0.bin"
    prints "^  tie_word_embeddings: $([[ $tied == 1 ]] && echo yes || echo no)\$"
done
exits 0 "$PEDROBENCH" model new --like qwen2-0.5b --random --layers 1 --set vocab_size=300 \
    --set bos_token_id=1 --set eos_token_id=2 --write --out "$tmp/qwen"
refuses 1 convert "$tmp/qwen" "$tmp/z.bin" --to llama2c
says 'the family'

# ---- GGUF
if "$python" -c 'import numpy, torch' 2>/dev/null; then
    "$python" - "$oracle" "$tmp" <<'END'
import os, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import architectures as arch
import make_gguf as gguf
import make_models as mm
import test_safetensors as st

shape = dict(vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, head_dim=24, bos_token_id=1,
             eos_token_id=2, pb_tokenizer=mm.NO)
for name in ("llama3", "qwen3", "gemma2"):
    more = {"query_pre_attn_scalar": 24} if name == "gemma2" else {}
    conf = mm.config(name, **{**shape, **more})
    w = mm.weights(arch.settings(conf), np.random.default_rng(5))
    w = {k: np.asarray(v, np.float32) for k, v in w.items()}
    for kind in ("F32", "Q8_0"):
        base = os.path.join(sys.argv[2], "%s-%s" % (name, kind))
        gguf.to_gguf(base + ".gguf", conf, w, kind)
        os.makedirs(base + "-want")
        held = {}
        for k, v in w.items():
            if v.ndim == 2 and kind == "Q8_0":
                v = gguf.quantised(v)[2]
            elif name == "gemma2" and k.endswith("norm.weight"):
                v = np.float32(np.float32(v + np.float32(1)) - np.float32(1))
            held[k] = ("F32", np.asarray(v, np.float32))
        st.write(os.path.join(base + "-want", "model.safetensors"), held, {})
    if name == "gemma2":
        continue
    c, rng = arch.settings(conf), np.random.default_rng(6)
    keys = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 6.0,
            "general.architecture": gguf.ARCHS[mm.MODELS[name][0]]}
    want, tensors = {}, {}
    for i in range(c.num_hidden_layers):
        for t, linear in mm.ref.LINEARS.items():
            a = rng.standard_normal((4, c.inp[t])).astype(np.float32)
            b = rng.standard_normal((c.out[t], 4)).astype(np.float32)
            key = "base_model.model.model.layers.%d.%s.lora_" % (i, linear)
            want[key + "A.weight"], want[key + "B.weight"] = ("F32", a), ("F32", b)
            if name == "llama3" and t in "qk":
                b = gguf.interleaved(b, {"q": c.num_attention_heads, "k": c.kv_heads}[t])
            key = "blk.%d.%s.weight.lora_" % (i, gguf.NAMES[linear])
            tensors[key + "a"], tensors[key + "b"] = (a, "F32"), (b, "F32")
    base = os.path.join(sys.argv[2], name + "-lora")
    gguf.write_gguf(base + ".gguf", keys, tensors)
    os.makedirs(base + "-want")
    st.write(os.path.join(base + "-want", "adapter_model.safetensors"), want, {})
END
    for model in llama3-F32 llama3-Q8_0 qwen3-F32 qwen3-Q8_0 gemma2-F32 gemma2-Q8_0; do
        exits 0 "$PEDROBENCH" convert "$tmp/$model.gguf" "$tmp/$model"
        ok "$model: every tensor, bit for bit" same_tensors "$tmp/$model-want" "$tmp/$model"
        ok "$model: the same logits" same_logits "$tmp/$model.gguf" "$tmp/$model"
        ok "$model: its tokenizer comes along" [ -s "$tmp/$model/tokenizer.model" ]
        exits 0 "$PEDROBENCH" inspect "$tmp/$model.gguf"
        prints '^format: GGUF file'
        prints '^  tokenizer.ggml.tokens: 300 values'
    done
    text() { "$PEDROBENCH" generate --model "$1" --prompt "a test" --max-new 12; }
    ok "text from a GGUF file is that of its folder" \
        [ "$(text "$tmp/llama3-F32.gguf")" = "$(text "$tmp/llama3-F32")" ]
    for model in llama3 qwen3; do
        exits 0 "$PEDROBENCH" convert "$tmp/$model-lora.gguf" "$tmp/$model-lora" \
            --base "$tmp/$model-F32.gguf"
        ok "$model: a LoRA adapter, bit for bit" same_tensors "$tmp/$model-lora-want" "$tmp/$model-lora"
        ok "its scale" grep -q '"lora_alpha": 6' "$tmp/$model-lora/adapter_config.json"
        exits 0 "$PEDROBENCH" logits --model "$tmp/$model-F32" --adapter "$tmp/$model-lora" --tokens 1,2
        exits 0 "$PEDROBENCH" inspect "$tmp/$model-lora.gguf"
        prints '^kind: adapter$'
    done
    refuses 2 convert "$tmp/llama3-lora.gguf" "$tmp/y"
    says '^hint: name the model with --base'
    refuses 1 logits --model "$tmp/llama3-lora.gguf" --tokens 1
    says 'general.type is "adapter"'
    exits 0 "$PEDROBENCH" convert "$tmp/qwen3-lora.gguf" "$tmp/needs-no-base"
    head -c 5000 "$tmp/llama3-F32.gguf" >"$tmp/cut.gguf"
    refuses 1 inspect "$tmp/cut.gguf"
    says 'cut.gguf.*bytes'
    says 'truncated'
else
    echo "not checked: GGUF, which needs python3-torch"
fi

# ---- inspect
exits 0 "$PEDROBENCH" inspect "$tmp/written"
prints '^kind: model$'
prints '^parameters: [0-9]+$'
prints '^  model.layers.\*.mlp.up_proj.weight +1536,576 +BF16 +2 +1769472 +3538944$'
ok "no line ends with a space" eval '! grep -q " $" "$tmp/out"'
exits 0 "$PEDROBENCH" inspect "$tmp/written" --json
ok "its JSON is JSON" "$python" -c 'import json, sys; json.load(open(sys.argv[1]))' "$tmp/out"
exits 0 "$PEDROBENCH" inspect "$tmp/plain.bin"
prints '^format: llama2.c checkpoint$'
exits 0 "$PEDROBENCH" inspect "$tmp/written/model.safetensors"
prints '^kind: safetensors file$'
echo "a rose is a rose is a rose" >"$tmp/text"
exits 0 "$PEDROBENCH" tokenizer train --vocab 270 --out "$tmp/tokenizer.json" --quiet "$tmp/text"
exits 0 "$PEDROBENCH" inspect "$tmp/tokenizer.json"
prints '^kind: tokenizer$'
prints '^  vocabulary: 2[67][0-9]$'
for kind in seed shards; do
    [[ $kind == seed ]] || cp "$tmp/bf16-shards/"*.json "$tmp/bf16-shards/"*.safetensors "$tmp/shards"
    exits 0 "$PEDROBENCH" inspect "$tmp/$kind"
    prints '^kind: model$'
done
make_model --shape tiny --adapter lora
exits 0 "$PEDROBENCH" inspect "$tmp/lora"
prints '^kind: adapter$'
prints '^method: LORA$'
exits 0 "$PEDROBENCH" train --model "$tmp/seed" --task yesno --method ia3 --steps 2 \
    --train-examples 20 --valid-examples 10 --test-examples 10 --out "$tmp/run.h5" --quiet
exits 0 "$PEDROBENCH" inspect "$tmp/run.h5"
prints '^kind: result of a run$'
prints '^status: complete$'
prints '^    accuracy: '
timeout -s INT 2 "$PEDROBENCH" train --model "$tmp/seed" --task yesno --method ia3 --steps 1000000 \
    --train-examples 20 --valid-examples 10 --test-examples 10 --out "$tmp/cut.h5" --quiet \
    >/dev/null 2>&1
exits 0 "$PEDROBENCH" inspect "$tmp/cut.jsonl"
prints '^kind: journal of a run$'
prints '^status: not ended$'
refuses 1 inspect "$tmp/nowhere"
refuses 1 inspect "$tmp"
says 'config.json'
echo '{}' >"$tmp/x.json"
refuses 1 inspect "$tmp/x.json"
finish
