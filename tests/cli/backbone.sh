#!/usr/bin/env bash
# What stands beside a backbone: the figure of its loss curve, and the baselines of its text.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"
command -v gnuplot >/dev/null || skip "there is no gnuplot"
cd "$PB_SOURCE" || exit 1

exits 0 "$PEDROBENCH" pretrain --out "$tmp/model" --bytes 100k --steps 40 --batch-tokens 512 -q \
    --geometry width=8,ffn=8,layers=1,heads=1,kv_heads=1,head_dim=8,context=32
per_token=$(sed -n 's/.*"valid_bytes_per_token": \([0-9.]*\).*/\1/p' "$tmp/model/recipe.json")
draw() { # TERMINAL VARIABLES
    exits 0 gnuplot -e "term='$1'; output='$tmp/loss.$1'; input='$tmp/model/loss.csv'; $2" \
        paper/backbone/loss.gp
    ok "gnuplot has nothing to complain about" [ ! -s "$tmp/err" ]
}
draw svg ""
ok "a plain figure" grep -q 'validation' "$tmp/loss.svg"
ok "without an axis in bits" [ "$(grep -c 'bit per byte' "$tmp/loss.svg")" -eq 0 ]
draw svg "bytes_per_token=$per_token; references='xz 2.33'; bins=5"
ok "an axis in bits" grep -q 'bit per byte' "$tmp/loss.svg"
ok "a reference" grep -q 'xz 2.33' "$tmp/loss.svg"
draw png ""
ok "a PNG" [ "$(head -c 4 "$tmp/loss.png" | tail -c 3)" = PNG ]
finish
