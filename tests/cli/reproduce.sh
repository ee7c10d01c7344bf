#!/usr/bin/env bash
# paper/reproduce itself: arguments, missing packages, interruption, failure. Packages, build and
# program are stand-ins, so that nothing is installed and the checks take a second.
# shellcheck source=tests/cli/check.bash
. "$(dirname "${BASH_SOURCE[0]}")/check.bash"

copy=$tmp/a\ copy
mkdir -p "$tmp/bin" "$copy/paper"
cp "$PB_SOURCE/paper/reproduce" "$PB_SOURCE/paper/lib.sh" "$PB_SOURCE/paper/latency.sh" "$copy/paper"
printf '{\n "tasks": {},\n "latency": {}\n}\n' >"$copy/paper/quick.json"
export PATH=$tmp/bin:$PATH STAND_IN=$tmp/bin MISSING='' SWEEP=0
cat >"$tmp/bin/dpkg-query" <<'END'
#!/bin/sh
for package; do :; done
[ "$package" = "$MISSING" ] && exit 1
printf installed
END
cat >"$tmp/bin/cmake" <<'END'
#!/bin/sh
[ "$1" != --build ] || cp "$STAND_IN/pedrobench" "$2"
END
cat >"$tmp/bin/pedrobench" <<'END'
#!/bin/bash
trap 'exit 130' INT
echo "running $*" >&2
case $1 in
sweep)
    if [ "$SWEEP" = wait ]; then
        touch "$STAND_IN/waiting"
        for _ in {1..100}; do sleep 0.1; done
    fi
    exit "$SWEEP" ;;
table) echo "a table" ;;
esac
END
cp "$tmp/bin/dpkg-query" "$tmp/bin/apt-get"
chmod +x "$tmp"/bin/*
cd /

exits 0 "$copy/paper/reproduce" --help
prints '^Examples:'
prints '^Tables: quick$'
for arguments in --nonsense "--data $tmp latency" nowhere ../paper/quick "quick quick" --data "--model $tmp/no"; do
    # shellcheck disable=SC2086
    exits 2 "$copy/paper/reproduce" $arguments
    says '^hint: '
done
ok "misuse leaves nothing behind" [ ! -e "$copy/runs" ]

MISSING=libhdf5-dev exits 1 "$copy/paper/reproduce" --no-install
says 'missing packages: libhdf5-dev$'
says '^hint: (sudo )?apt-get update && .*apt-get install -y --no-install-recommends libhdf5-dev$'

exits 0 "$copy/paper/reproduce"
says 'running sweep paper/quick.json --out runs/quick --jobs [0-9]+$'
says 'running report runs/quick --out runs/quick/report.html$'
prints "^Report +$copy/runs/quick/report.html"
exits 0 "$copy/paper/reproduce" latency
says 'running latency --model paper/backbone-bytes .* --out runs/latency/batch.h5$'
says 'running serve --model paper/backbone-bytes .* --out runs/latency/closed/mixed.h5$'
says 'running report runs/latency --out runs/latency/report.html'
prints "^Results \(HDF5\)  $copy/runs/latency$"
exits 0 "$copy/paper/reproduce" --quiet quick
ok "--quiet shows no progress" test "$(grep -c running "$tmp/err")" = 0
cd "$tmp/bin" || exit
exits 0 "$copy/paper/reproduce" --data . --model ./cmake
says "running sweep .* --data $tmp/bin --model $tmp/bin/cmake$"
cd /
SWEEP=1 exits 1 "$copy/paper/reproduce" --quiet
says 'running sweep'
ok "without results there are no tables" [ ! -s "$tmp/out" ]
touch "$copy/runs/quick/a.h5"
SWEEP=1 exits 1 "$copy/paper/reproduce"
prints '^a table'
says 'not all runs completed'

printf '{\n "doc": "Large. Needs --data. Hours.",\n "tasks": {}\n}\n' >"$copy/paper/large.json"
printf '#!/bin/sh\nexit 1\n' >"$tmp/bin/pdflatex"
chmod +x "$tmp/bin/pdflatex"
mkdir "$copy/paper/article"
exits 0 "$copy/paper/reproduce" --list
prints '^ +Large. Needs --data'
ok "all tables are listed" test "$(grep -c "^[a-z]" "$tmp/out")" = 4
exits 1 "$copy/paper/reproduce" --all --quiet
says '^large is left out'
says 'these failed: article$'
prints '^Tables +.*/runs/quick/tables$'
ok "a table that lacks its data is not begun" [ ! -e "$copy/runs/large" ]
sed -i 's/exit 1/exit 0/' "$tmp/bin/pdflatex"
exits 0 "$copy/paper/reproduce" --all --data "$tmp"
says "sweep paper/large.json --out runs/large --jobs [0-9]+ --data $tmp$"
prints '^Article +.*/runs/article/article.pdf$'
exits 2 "$copy/paper/reproduce" --all quick
MISSING=texlive-latex-base exits 1 "$copy/paper/reproduce" --no-install article
says 'missing packages: texlive-latex-base$'
rm "$copy/paper/large.json"

SWEEP=130 exits 130 "$copy/paper/reproduce"
says '^Interrupted; run paper/reproduce again to continue.$'
set -m # a process group of its own, as from a terminal
SWEEP='wait' "$copy/paper/reproduce" --no-install >"$tmp/out" 2>"$tmp/err" &
for _ in {1..100}; do
    [[ -e $tmp/bin/waiting ]] && break
    sleep 0.1
done
kill -INT -- "-$!"
wait $!
code=$?
ok "Ctrl-C" [ "$code" -eq 130 ]
says '^Interrupted; run paper/reproduce --no-install again to continue.$'
finish
