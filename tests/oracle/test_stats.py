"""The statistics (unit_stats --ask) against NumPy and against numerical integration."""
import math
import os
import random
import subprocess

import numpy as np

import check

binary = os.path.join(os.environ.get("PB_TEST_BIN", ""), "unit_stats")
if not os.path.exists(binary):
    check.skip("PB_TEST_BIN, the folder of the test programs, is not set or has no unit_stats")

questions, checks = [], []


def ask(name, numbers, compare):
    questions.append(" ".join([name] + ["%.17g" % x for x in numbers]))
    checks.append(compare)


def near(want, tol=1e-10):
    def compare(got):
        want_ = np.atleast_1d(np.asarray(want, float))
        got = np.asarray(got)
        assert got.shape == want_.shape, (got, want_)
        same_nan = np.isnan(got) == np.isnan(want_)
        err = np.abs(got - want_) / np.maximum(1, np.abs(want_))
        assert same_nan.all() and not (np.nan_to_num(err) > tol).any(), (got, want_)
    return compare


def student_p(t, df):
    """Two-sided p by Simpson's rule, after t = tan(u) has made the tail finite."""
    log_c = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    u = np.linspace(math.atan(abs(t)), math.pi / 2, 20001)[:-1]
    x = np.tan(u)
    f = np.exp(log_c - (df + 1) / 2 * np.log1p(x * x / df)) * (1 + x * x)
    last = math.exp(log_c) * df if df == 1 else 0.0  # the limit at pi/2
    f = np.append(f, last)
    w = np.ones(20001)
    w[1:-1:2], w[2:-1:2] = 4, 2
    h = (math.pi / 2 - math.atan(abs(t))) / 20000
    return 2 * float((w * f).sum()) * h / 3


def binomial_interval(n, q, level):
    """Ranks whose order statistics enclose the q-quantile, by exact summation."""
    pmf = [math.comb(n, k) * q ** k * (1 - q) ** (n - k) for k in range(n + 1)]
    below = np.concatenate([[0.0], np.cumsum(pmf)])  # below[r] = P(K < r)
    alpha = (1 - level) / 2
    lo = [r for r in range(1, n + 1) if below[r] <= alpha]
    hi = [r for r in range(1, n + 1) if 1 - below[r] <= alpha]
    return (lo[-1], hi[0]) if lo and hi else (math.nan, math.nan)


def holm(p):
    order = sorted(range(len(p)), key=lambda i: p[i])
    out, largest = [0.0] * len(p), 0.0
    for k, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - k) * p[i]))
        out[i] = largest
    return out


def bleu(s):
    if min(s[:4]) <= 0:
        return 0.0
    return math.exp(sum(math.log(s[k] / s[4 + k]) for k in range(4)) / 4 + min(0, 1 - s[9] / s[8]))


r = random.Random(1)
g = np.random.default_rng(1)
for n in (1, 2, 3, 10, 101):
    x = [r.gauss(0, 3) for _ in range(n)]
    ask("centre", x, near([np.mean(x), np.std(x, ddof=1) if n > 1 else math.nan, np.median(x)]))
    for q in (0.5, 0.9, 0.025, 0.99):
        lo, hi = binomial_interval(n, q, 0.95)
        s = sorted(x)
        pick = [s[v - 1] if not math.isnan(v) else math.nan for v in (lo, hi)]
        ask("percentile", [q] + x, near([np.percentile(x, 100 * q)] + pick))
for t in (0.1, 0.7, 1.5, 2.8, 6.0, 25.0):
    for df in (1, 2, 3, 4, 9, 29, 300):
        ask("student", [t, df], near(student_p(t, df), 1e-9))
ask("beta", [2, 3, 0.4], near(0.5248))  # the polynomial 1 - (1-x)^4 (1 + 4x)
ask("beta", [0.5, 0.5, 0.25], near(1 / 3))  # 2/pi asin(sqrt x)
ask("beta", [5, 1, 0.9], near(0.9 ** 5))
for n in (2, 3, 5, 20):
    a, b = [r.gauss(1, 1) for _ in range(n)], [r.gauss(0, 1) for _ in range(n)]
    d = np.subtract(a, b)
    t = d.mean() / (d.std(ddof=1) / math.sqrt(n))
    ask("paired", a + b, near([t, student_p(t, n - 1)], 1e-8))


def simulated_power(effect, n, alpha, repeats=400000):
    """How often paired t tests of simulated differences find the effect."""
    lo, hi = 0.0, 1e4  # the critical value, by bisection
    for _ in range(60):
        t = (lo + hi) / 2
        lo, hi = (t, hi) if student_p(t, n - 1) > alpha else (lo, t)
    d = g.normal(effect, 1, (repeats, n))
    t = d.mean(1) / (d.std(1, ddof=1) / math.sqrt(n))
    return float((np.abs(t) > hi).mean())


def rejects_80_percent(sd, n):
    def compare(got):
        power = simulated_power(got[0] / sd, n, 0.05)
        assert abs(power - 0.8) < 0.004, (got, power)  # 6 standard errors
    return compare


for n, effect, alpha in ((2, 8, 0.05), (3, 2, 0.05), (5, 1, 0.05), (5, 3, 0.01), (20, 0.5, 0.05)):
    ask("power", [effect, n, alpha], near(simulated_power(effect, n, alpha), 0.004))
for n, sd in ((2, 1.0), (3, 2.5), (5, 0.1), (10, 7.0)):
    ask("detectable", [sd, n], rejects_80_percent(sd, n))
for n in (1, 2, 7):
    p = [r.random() ** 2 for _ in range(n)]
    ask("holm", p, near(holm(p)))

x = [r.gauss(10, 2) for _ in range(8)]
reps = g.choice(x, (200000, 8)).mean(1)
ask("boot", x, near(np.percentile(reps, [2.5, 97.5]), 0.01))

seeds, items = 4, 50
v = g.normal(0, 1, (seeds, items)) + g.normal(0, 0.4, (seeds, 1))
def two_level(score, n):
    out = []
    for _ in range(n):
        out.append(np.mean([score(s, g.integers(0, items, items))
                            for s in g.integers(0, seeds, seeds)]))
    return np.percentile(out, [2.5, 97.5])
ask("two_level", [seeds, 1] + list(v.ravel()),
    near(two_level(lambda s, i: v[s, i].mean(), 20000), 0.03))
stats = np.empty((seeds, items, 10))
for s in range(seeds):
    for i in range(items):
        n = r.randint(8, 14)
        match = []
        for k in range(4):
            m = sum(r.random() < (0.5 + 0.05 * s) * 0.95 ** k for _ in range(n - k))
            match.append(min(m, match[-1] if match else m))
        stats[s, i] = match + [n - k for k in range(4)] + [n, n + r.randint(-1, 1)]
ask("two_level", [seeds, 10] + list(stats.ravel()),
    near(two_level(lambda s, i: bleu(stats[s, i].sum(0)), 6000), 0.01))

p = subprocess.run([binary, "--ask"], input="\n".join(questions) + "\n", stdout=subprocess.PIPE,
                   universal_newlines=True, check=True, timeout=300)
answers = p.stdout.splitlines()
assert len(answers) == len(questions), (len(answers), len(questions))
for question, got, compare in zip(questions, answers, checks):
    try:
        compare([float(w) for w in got.split()])
    except AssertionError as e:
        raise SystemExit("failed: %s\n%s" % (question[:200], e))
print("%d answers agree" % len(answers))
