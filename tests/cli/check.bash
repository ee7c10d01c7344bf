# shellcheck shell=bash
# What the command-line tests share: a scratch folder, and counting checks. A test sources this,
# checks, and ends with `finish`.
set -uo pipefail
: "${PEDROBENCH:?is the path of the program}"
: "${PB_SOURCE:=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0 code=0

skip() {
    echo "skipped: $1"
    exit 77
}

# ok LABEL COMMAND...: the command succeeds.
ok() {
    local label=$1
    shift
    if "$@"; then
        ((++passed))
    else
        ((++failed))
        printf 'FAIL %s\n' "$label"
        printf '  exit code %d\n' "$code"
        sed 's/^/  stdout: /' "$tmp/out" 2>/dev/null | head -n 5
        sed 's/^/  stderr: /' "$tmp/err" 2>/dev/null | head -n 20
    fi
}

# try COMMAND...: runs it; $code, $tmp/out and $tmp/err are what came of it.
try() {
    code=0
    "$@" >"$tmp/out" 2>"$tmp/err" </dev/null || code=$?
}

# exits WANTED COMMAND...: runs it and checks the exit code.
exits() {
    local wanted=$1
    shift
    try "$@"
    ok "exit code $wanted: ${*##*/}" [ "$code" -eq "$wanted" ]
}

says() { # PATTERN: on standard error
    ok "stderr says \"$1\"" grep -qE -e "$1" "$tmp/err"
}

prints() { # PATTERN: on standard output
    ok "stdout says \"$1\"" grep -qE -e "$1" "$tmp/out"
}

one_error() {
    [[ $code -eq $1 && ! -s $tmp/out ]] && awk -v name="pedrobench $2: " '
        NR == 1 && index($0, name) == 1 { error = 1 }
        NR == 2 && !/^hint: ./ || NR > 2 { error = 0 }
        END { exit !error }' "$tmp/err"
}
# refuses WANTED COMMAND ARGUMENT...: the exit code, nothing printed, one line of error and at most
# one of hint.
refuses() {
    local wanted=$1
    shift
    try "$PEDROBENCH" "$@"
    ok "one line of error: $*" one_error "$wanted" "$1"
}

make_model() { # ARGUMENT...: of tests/oracle/make_model.py, into $tmp
    "${PB_PYTHON:-/usr/bin/python3}" "$PB_SOURCE/tests/oracle/make_model.py" "$tmp" "$@" ||
        skip "make_model.py needs python3-numpy"
}

finish() {
    echo "$passed passed, $failed failed"
    ((failed == 0 && passed > 0))
    exit
}
