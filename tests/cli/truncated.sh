#!/usr/bin/env bash
# Files cut short: exit code 1 and one line that names the file, never a crash.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"

make_model --shape tiny --adapter lora ia3 prefix pedro
"${PB_PYTHON:-/usr/bin/python3}" - "$tmp" <<'END'
import struct, sys
import numpy as np
C, F, L, H, KV, V, T = shape = 8, 10, 2, 4, 2, 11, 6
n = V * C + L * (2 * C + 2 * C * C + 2 * C * KV * (C // H) + 3 * C * F) + C
w = np.random.default_rng(1).normal(0, 0.3, n).astype("<f4").tobytes()
with open(sys.argv[1] + "/v0.bin", "wb") as f:  # a tied head and the two unused blocks
    f.write(struct.pack("<7i", *shape) + w + bytes(4 * T * (C // H)))
with open(sys.argv[1] + "/v1.bin", "wb") as f:
    f.write((struct.pack("<Ii7iB", 0x616B3432, 1, *shape, 1)).ljust(256, b"\0") + w)
END

# cut FILE BYTES ARGUMENT...: with the file cut to so many bytes, `logits` refuses.
cut() {
    local file=$1 bytes=$2
    shift 2
    cp "$file" "$tmp/whole"
    truncate -s "$bytes" "$file"
    refuses 1 logits --tokens 1,2,3 "$@"
    ok "the message names $(basename "$file"), $bytes bytes long" \
        grep -qF "$(basename "$file")" "$tmp/err"
    cp "$tmp/whole" "$file"
}

# cut_all FILE ARGUMENT...: whole it is read; cut at the borders of its header and data it is not.
cut_all() {
    local file=$1 size bytes places=(0 1 4 7 8 9 27 28 29 36 37 255 256 257)
    shift
    exits 0 "$PEDROBENCH" logits --tokens 1,2,3 "$@"
    size=$(stat -c %s "$file")
    [[ $file != *.safetensors ]] || bytes=$((8 + $(od -An -td8 -N8 "$file")))
    places+=($((size / 4)) $((size / 2)) $((size - 5)) $((size - 4)) $((size - 1))
        "${bytes:-2}" $((${bytes:-2} - 1)) $((${bytes:-2} + 1)))
    for bytes in $(printf '%d\n' "${places[@]}" | sort -nu); do
        ((bytes >= size)) || cut "$file" "$bytes" "$@"
    done
}

for file in config.json model.safetensors; do
    cut_all "$tmp/model/$file" --model "$tmp/model"
done
for file in v0.bin v1.bin; do
    cut_all "$tmp/$file" --model "$tmp/$file"
done
for adapter in lora ia3 prefix pedro; do
    for file in adapter_config.json adapter_model.safetensors; do
        cut_all "$tmp/$adapter/$file" --model "$tmp/model" --adapter "$tmp/$adapter"
    done
done
finish
