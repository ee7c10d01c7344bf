#!/usr/bin/env bash
# Commands on methods: the list, one method, the checks, and compositions from budget to files.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"
model=$PB_SOURCE/paper/backbone-bytes
run=(train --model "$model" --task yesno --steps 3 --train-examples 60 --valid-examples 10
    --test-examples 10 --quiet)

exits 0 "$PEDROBENCH" methods
prints '^lora '
exits 0 "$PEDROBENCH" methods show pedro --model "$model" --set r=4
prints 'acts at +Q, V, UP$'
prints 'trainable +1996 in each of 4 layers, 0 shared, 7984 in total'
prints 'prefill in chunks +no'
prints 'eprint = \{2409.17834\}'
exits 0 "$PEDROBENCH" methods show ia3 --model "$model" --budget 3.2%
prints 'rank=10'
prints 'trainable +3550 in each of 4 layers'
for method in $("$PEDROBENCH" methods | sed -n '1!s/ .*//p'); do
    exits 0 "$PEDROBENCH" methods show "$method" --model "$model"
    prints '^formula'
    [[ $method == none || $method == full ]] || prints 'eprint = '
done
refuses 2 methods show nothing
refuses 2 methods show lora --set depth=3

# Compositions.
exits 0 "$PEDROBENCH" methods show lora+prefix --model "$model"
prints 'lora.rank=8'
exits 0 "$PEDROBENCH" params --model "$model" --method prefix+lora --budget 3.2%
prints 'prefix.length=18 lora.rank=1 +13824'
exits 0 "$PEDROBENCH" "${run[@]}" --method pedro+lora --set r=3 --set pedro.targets=q,v \
    --set lora.rank=2 --out "$tmp/two.h5"
for part in lora pedro; do # each opens alone
    exits 0 "$PEDROBENCH" generate --model "$model" --adapter "$tmp/two.adapter/$part" --prompt a \
        --max-new 1
done
exits 0 "$PEDROBENCH" inspect "$tmp/two.adapter"
prints 'kind: composition of adapters'
exits 0 "$PEDROBENCH" "${run[@]}" --adapter "$tmp/two.adapter" --out "$tmp/more.h5"
exits 0 "$PEDROBENCH" table "$tmp/two.h5"
prints 'pedro.r=3 lora.rank=2'
refuses 2 params --model "$model" --method lora+lora
says 'stands twice'
refuses 2 params --model "$model" --method lora+nothing
refuses 2 params --model "$model" --method lora+full
says 'has no adapter'
exits 2 "$PEDROBENCH" params --model "$model" --method lora+prefix --set targets
exits 0 "$PEDROBENCH" "${run[@]}" --method lora+ia3 --set lora.targets=q --set ia3.targets=q,down \
    --set inputs=down --out "$tmp/merged.h5"
exits 0 "$PEDROBENCH" merge "$model" "$tmp/merged.adapter" "$tmp/merged"
refuses 1 merge "$model" "$tmp/two.adapter" "$tmp/not-merged"
says 'pedro.lora cannot be merged'
printf '{"peft_type": "COMPOSITION", "parts": ["lora", "../pedro"]}' >"$tmp/two.adapter/adapter_config.json"
refuses 1 generate --model "$model" --adapter "$tmp/two.adapter" --prompt a
says 'names of folders'

# Checks.
exits 0 "$PEDROBENCH" conformance --list
prints '^cached decoding == full forward'
exits 0 "$PEDROBENCH" conformance ia3+lora --set 'ia3.rank=2 lora.rank=3' --only gradient
prints 'ia3.lora: [0-9]+ checks passed, 0 failed'
exits 0 "$PEDROBENCH" conformance none --here
refuses 2 conformance nothing
refuses 2 conformance lora --set depth=1
finish
