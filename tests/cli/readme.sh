#!/usr/bin/env bash
# Runs the commands of README.md, methods/README.md and paper/latency.md in a scratch copy of the project: every `sh`
# block that follows a line `<!-- test -->`, in order, as one script that stops at the first failure. The copy finds the
# program in build/.
set -euo pipefail
: "${PEDROBENCH:?is the path of the program}"
source=${PB_SOURCE:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
skip() {
    echo "skipped: $1"
    exit 77
}
[[ -f $source/README.md ]] || skip "there is no README.md"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
awk '/^<!-- test -->/ { wanted = 1; next }
     /^```/ { inside = wanted && !inside && /^```sh$/; wanted = 0; next }
     inside { print }
     /[^[:space:]]/ && !inside { wanted = 0 }' "$source/README.md" "$source/methods/README.md" \
         "$source/paper/latency.md" >"$tmp/commands"
[[ -s $tmp/commands ]] || skip "README.md marks no commands with <!-- test -->"
mkdir -p "$tmp/copy/build"
ln -s "$PEDROBENCH" "$tmp/copy/build/pedrobench"
tar -C "$source" --exclude='./build*' --exclude=./runs --exclude=./.git -cf - . |
    tar -C "$tmp/copy" -xf -
cd "$tmp/copy"
unset PEDROBENCH PB_SOURCE PB_TEST_BIN PYTHONPATH
bash -euxo pipefail "$tmp/commands" </dev/null
echo "$(grep -c . "$tmp/commands") lines of README.md passed"
