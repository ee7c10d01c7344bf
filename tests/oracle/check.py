"""What the oracle tests share: counting checks, running the C program, finding the data folder.
A test ends with "N passed, N failed" and the exit code says the same; 77 means skipped, by name.
"""
import json
import os
import shutil
import subprocess
import sys

import numpy as np

_passed = _failed = 0
_worst = {}  # kind of check: (error, label)


def ok(label, condition):
    global _passed, _failed
    if condition:
        _passed += 1
    else:
        _failed += 1
        print("FAIL", label)
    return bool(condition)


def at_most(kind, label, err, tol):
    """Counts err <= tol, which NaN is not, and remembers the largest error of each kind."""
    if kind not in _worst or not (err <= _worst[kind][0]):
        _worst[kind] = (err, label)
    return ok("%s, %s: error %.3g, allowed %.3g" % (kind, label, err, tol), err <= tol)


def max_error(got, want):
    """max |got - want|; infinite when the shapes differ, NaN when a value is."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    return float(np.abs(got - want).max()) if got.shape == want.shape else np.inf


def gradient_errors(got, want):
    """{key: |got - want| / |want|}, Euclidean norms, so a wrong sign is an error of 2. A tensor
    whose gradient is tiny beside all others is measured against 1e-4 of their norm: there float
    rounds. Missing, extra and wrongly sized tensors are infinitely wrong; where every gradient
    is zero nothing was compared, which is an error too."""
    total = np.sqrt(sum((w ** 2).sum() for w in want.values()))
    if not total > 0:
        return {k: np.inf for k in want}
    floor = 1e-4 * total
    out = {k: np.inf for k in set(got) ^ set(want)}
    for k in set(got) & set(want):
        g, w = np.asarray(got[k], np.float64), want[k].ravel()
        out[k] = (float(np.linalg.norm(g - w) / max(np.linalg.norm(w), floor))
                  if g.shape == w.shape else np.inf)
    return out


def versions(*modules):
    """Prints which versions the checks rest on, as the modules and as Debian name them."""
    said = []
    for m in modules:
        package = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}",
                                  "python3-" + m.__name__], stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL) if shutil.which("dpkg-query") else None
        debian = package.stdout.decode() if package and not package.returncode else "not Debian's"
        said.append("%s %s (%s)" % (m.__name__, m.__version__, debian))
    print(", ".join(said))


def skip(reason):
    print("skipped:", reason)
    sys.exit(77)


def program():
    path = os.environ.get("PEDROBENCH")
    if not path:
        skip("PEDROBENCH, the path of the program, is not set")
    return path


def run(*args):
    """The program's standard output; a failure raises with its last words."""
    p = subprocess.run([program(), *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       timeout=120)
    if p.returncode:
        raise RuntimeError("exit code %d: %s" % (
            p.returncode, p.stderr.decode("utf-8", "replace").strip()[-300:].replace("\n", "; ")))
    return p.stdout.decode("utf-8", "replace")


def run_json(*args):
    return json.loads(run(*args, "--json"))


def source():
    here = os.path.dirname(os.path.abspath(__file__))
    return os.environ.get("PB_SOURCE") or os.path.dirname(os.path.dirname(here))


def data(*parts):
    """A path in the data folder, or None."""
    path = os.path.join(os.environ.get("PB_DATA") or os.path.join(source(), "..", "shared", "data"),
                        *parts)
    return path if os.path.exists(path) else None


def finish():
    for kind, (err, label) in _worst.items():
        print("%s: largest error %.3g (%s)" % (kind, err, label))
    print("%d passed, %d failed" % (_passed, _failed))
    sys.exit(1 if _failed or not _passed else 0)
