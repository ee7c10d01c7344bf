#!/usr/bin/env bash
# Outside the tree: what new-method and new-task write is compiled against an installed prefix, by
# CMake and by pkg-config, checked, trained and served; what cannot be loaded is refused.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"
build=${PB_TEST_BIN:?is the folder of the test programs}/..
model=$PB_SOURCE/paper/backbone-bytes
few=(--model "$model" --steps 3 --train-examples 60 --valid-examples 10 --test-examples 10 --quiet)
command -v cmake >/dev/null && command -v pkg-config >/dev/null || skip "cmake or pkg-config is missing"
unset PB_PLUGINS
export -n PEDROBENCH
exits 0 cmake --install "$build" --prefix "$tmp/prefix"
PKG_CONFIG_PATH=$(find "$tmp/prefix" -name pedrobench.pc -printf '%h')
export PKG_CONFIG_PATH
PEDROBENCH=$tmp/prefix/bin/pedrobench
cd "$tmp" || exit 1
flags() { # SOURCE OBJECT [FLAG...]: compiles with pkg-config's flags, all warnings being errors
    local source=$1 object=$2
    shift 2
    # shellcheck disable=SC2046
    exits 0 cc "$@" $(pkg-config --cflags --libs pedrobench) -Wall -Wextra -Werror "$source" -o "$object"
}

# A sanitized program needs sanitized plugins.
extra=()
if grep -q 'PB_SANITIZE:BOOL=ON' "$build/CMakeCache.txt"; then
    extra=(-fsanitize=address -fsanitize=undefined)
fi

# A method, by CMake.
exits 0 "$PEDROBENCH" new-method mine --out-of-tree
exits 0 cmake -S mine -B mine/build -DCMAKE_PREFIX_PATH="$tmp/prefix" -DCMAKE_C_FLAGS="${extra[*]}"
exits 0 cmake --build mine/build
exits 0 "$PEDROBENCH" conformance mine --plugin mine/build/mine.so
prints 'mine: [0-9]+ checks passed, 0 failed'
exits 0 "$PEDROBENCH" --plugin=mine/build/mine.so methods show mine --model "$model"
prints 'acts at +Q, V$'
exits 0 "$PEDROBENCH" train --plugin mine/build/mine.so --task yesno --method mine+prefix \
    --budget 2% "${few[@]}" --out mine.h5
exits 0 env PB_PLUGINS=mine/build/mine.so "$PEDROBENCH" generate --model "$model" \
    --adapter mine.adapter --prompt a --max-new 2
refuses 1 generate --model "$model" --adapter mine.adapter --prompt a
says '"peft_type" is "mine"'
refuses 2 methods --plugin mine/build/mine.so --plugin mine/build/mine.so
says 'there is a method "mine" already'

# In the tree: the same text.
mkdir -p tree/methods
touch tree/methods/method.h
cd tree || exit 1
exits 0 "$PEDROBENCH" new-method mine
cd "$tmp" || exit 1
ok "the same file in the tree" cmp mine/mine.c tree/methods/mine.c
refuses 2 new-method other
says 'there is no methods/method.h here'
refuses 2 new-method lora --out-of-tree
refuses 2 new-method Mine --out-of-tree
refuses 1 new-method mine --out-of-tree
says 'not empty'

# By pkg-config; and what is wrong.
flags mine/mine.c one.so "${extra[@]}"
exits 0 "$PEDROBENCH" conformance mine --plugin one.so --only table
sed 's/(size_t)o->rank, in,/(size_t)o->rank, in - 1,/' mine/mine.c >wrong.c
flags wrong.c wrong.so "${extra[@]}"
exits 1 "$PEDROBENCH" conformance mine --plugin wrong.so
prints '"self_attn.q_proj.mine_A" is \(8,19\), which does not fit the 20 columns of x'
mkdir -p older/core
sed 's/PB_ABI = 1/PB_ABI = 9/' "$tmp/prefix/include/pedrobench/core/plugin.h" >older/core/plugin.h
flags mine/mine.c older.so -Iolder "${extra[@]}"
refuses 1 methods --plugin older.so
says 'speaks version 9 of the contract'
flags mine/mine.c double.so -DPB_DOUBLE "${extra[@]}"
refuses 1 methods --plugin double.so
says 'compiled with other headers'
echo 'int nothing;' >nothing.c
flags nothing.c nothing.so
refuses 1 methods --plugin nothing.so
says 'but no plugin'
refuses 1 methods --plugin mine/mine.c
refuses 1 methods --plugin nowhere.so
says 'No such file'
exits 0 "$PEDROBENCH" new-method lora2 --out-of-tree
sed -i 's/"lora2"/"lora"/' lora2/lora2.c
flags lora2/lora2.c lora2.so "${extra[@]}"
refuses 2 methods --plugin lora2.so
says 'there is a method "lora" already'

# A task.
exits 0 "$PEDROBENCH" new-task larger --out-of-tree
flags larger/larger.c larger.so "${extra[@]}"
exits 0 "$PEDROBENCH" tasks larger --plugin larger.so --count 1
prints 'larger than'
exits 0 "$PEDROBENCH" train --plugin larger.so --plugin one.so --task larger --method mine \
    "${few[@]}" --out larger.h5
refuses 2 tasks larger
finish
