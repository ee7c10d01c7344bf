"""Synthetic runs as journals, in the documented format and without the C code.

    python3 synthetic.py FOLDER      then  pedrobench rebuild FOLDER/*.jsonl

5 methods, the backbone alone, 3 tasks, 3 seeds, one diverged run, one latency run. The numbers are
invented; a fixed seed makes them the same every time.
"""
import hashlib
import json
import math
import os
import random
import sys

METHODS = {  # knob, value, trainable, options
    "lora": ("rank", 4, 393216, {"sites": "q,v"}),
    "ia3": (None, None, 55296, {}),
    "prefix": ("length", 16, 393216, {}),
    "pedro": ("bottleneck", 6, 387072, {"pool": "last"}),
    "none": (None, None, 0, {}),
}
QUALITY = {"lora": 0.0, "ia3": -0.05, "prefix": -0.03, "pedro": 0.012, "none": -0.25}
TASKS = {"yesno": "accuracy", "sql": "exact_match", "restaurant": "bleu"}
SEEDS = (1, 2, 3)
ITEMS = 120


def canonical(x):
    """Sorted keys, no spaces, reals with 17 digits: what the suite hashes."""
    if isinstance(x, dict):
        return "{" + ",".join(json.dumps(k) + ":" + canonical(x[k]) for k in sorted(x)) + "}"
    if isinstance(x, (list, tuple)):
        return "[" + ",".join(canonical(v) for v in x) + "]"
    if isinstance(x, float):
        t = "%.17g" % x
        return t if any(c in t for c in ".en") else t + ".0"
    return json.dumps(x)


def bleu(items):
    s = [sum(i[k] for i in items) for k in range(10)]
    if min(s[:4]) <= 0:
        return 0.0
    log_p = sum(math.log(s[k] / s[4 + k]) for k in range(4)) / 4
    return math.exp(log_p + min(0.0, 1 - s[9] / s[8]))


def start(config):
    digest = hashlib.sha256(canonical(config).encode()).hexdigest()
    return {"event": "start", "schema_version": 1, "run_id": digest[:16],
            "created": "2026-01-02T03:04:05Z", "config_sha256": digest, "config": config,
            "seeds": {"init": config["seed"], "order": config["seed"]},
            "env": {"software": "pedrobench", "version": "0.1.0", "commit": "0" * 40,
                    "dirty": "no", "cpu": "synthetic", "threads": 2, "compiler": "none",
                    "os": "none", "blis_kernel": "skx"}}


def end(status="complete"):
    return {"event": "end", "status": status, "finished": "2026-01-02T03:05:05Z", "seconds": 60.0,
            "message": ""}


def bleu_item(r, quality):
    n = r.randint(8, 14)
    matches, totals = [], []
    for k in range(4):
        totals.append(n - k)
        m = sum(r.random() < (0.62 + quality) * 0.93 ** k for _ in range(n - k))
        matches.append(min(m, matches[-1] if matches else m))
    return matches + totals + [n, n + r.randint(-1, 1)]


def train_run(method, task, seed, diverge=False):
    r = random.Random(f"{method} {task} {seed}")
    knob, value, trainable, options = METHODS[method]
    metric = TASKS[task]
    config = {"kind": "train", "model": "tiny", "model_sha256": "ab" * 32,
              "model_params": 15191712, "task": task, "method": method, "options": options,
              "budget": 400000, "seed": seed, "lr": 0.001, "steps": 400, "batch": 8}
    events = [start(config)]
    params = {"event": "params", "method": method, "trainable": trainable, "budget": 400000,
              "saved_bytes": 4 * trainable + 512, "bytes_per_tenant": 4 * trainable,
              "flops_per_token": 2 * trainable,
              "sites": [{"name": "q", "rows": 288, "cols": 4, "count": 12}] if trainable else []}
    if knob:
        params.update(knob=knob, knob_value=value)
    events.append(params)
    quality = QUALITY[method] + r.gauss(0, 0.008)
    for step in range(0, 400, 2):
        floor = 1.1 - 2 * quality
        loss = floor + 2.2 * math.exp(-step / 60) + r.gauss(0, 0.08)
        if diverge and step == 100:
            events.append({"event": "step", "step": step, "loss": None, "lr": 0.001,
                           "grad_norm": None})
            return config, events + [end("diverged")]
        events.append({"event": "step", "step": step, "loss": loss, "lr": 0.001 * (1 - step / 400),
                       "grad_norm": abs(r.gauss(1, 0.2)), "tokens": 1024, "seconds": 0.21})
        if step % 100 == 98:
            events.append({"event": "valid", "step": step, "loss": loss + 0.1})
    if metric == "bleu":
        items = [bleu_item(r, quality) for _ in range(ITEMS)]
        score, name = bleu(items), "bleu_stats"
    else:
        base = 0.78 if metric == "accuracy" else 0.6
        shared = random.Random(task)  # the same item is hard for every method
        items = [int(0.3 * r.random() + 0.7 * shared.random() < base + quality)
                 for _ in range(ITEMS)]
        score, name = sum(items) / ITEMS, "correct"
    losses = [max(0.0, 1.2 - 2 * quality + r.gauss(0, 0.3)) for _ in range(ITEMS)]
    events.append({"event": "eval", "task": task, "split": "test", "headline": metric,
                   "higher_is_better": True,
                   "metrics": {metric: score, "loss": sum(losses) / ITEMS},
                   "per_example": {name: items, "loss": losses},
                   "outputs": ["a <b> & \"c\" \u00e9", "second"]})
    return config, events + [end()]


def latency_run(seed=1):
    r = random.Random(f"latency {seed}")
    config = {"kind": "latency", "model": "tiny", "model_sha256": "ab" * 32,
              "model_params": 15191712, "method": "all", "seed": seed, "prompt": 128, "rows": 16}
    events = [start(config)]
    cost = {"base": 1.0, "none": 1.01, "lora": 1.16, "ia3": 1.03, "prefix": 1.07, "pedro": 1.045}
    memory = {"lora": 1572864, "ia3": 221184, "prefix": 1572864, "pedro": 1548288}
    for phase, rows_list in (("decode", (1, 2, 4, 8, 16)), ("prefill", (1, 4))):
        for method, c in cost.items():
            adapter = method in memory
            for sharing in (("same", "different") if adapter else ("none",)):
                for rows in rows_list:
                    tokens = rows * (128 if phase == "prefill" else 1)
                    step_ms = (3.0 + 0.15 * tokens) * c
                    if sharing == "different":
                        step_ms += 0.05 * rows * (3 if method == "lora" else 1)
                    samples = [int(1e6 * step_ms * (1 + abs(r.gauss(0, 0.02))))
                               for _ in range(1200 if phase == "decode" else 60)]
                    attrs = {"method": method, "phase": phase, "sharing": sharing,
                             "tenants": rows if sharing == "different" else int(adapter),
                             "rows": rows, "prompt": 128, "tokens_per_sample": tokens,
                             "flops_per_token": 3.0e7 * c, "bytes_per_token": 6.1e7 * c / rows,
                             "regions_per_token": 85.0 / rows}
                    if adapter:
                        attrs["resident_bytes_per_tenant"] = memory[method]
                    events.append({"event": "latency",
                                   "scenario": f"{phase}/{method}/{sharing}/{rows}",
                                   "attrs": attrs, "samples_ns": samples})
    return config, events + [end()]


def runs():
    for method in METHODS:
        for task in TASKS:
            for seed in SEEDS:
                yield f"{task}-{method}-{seed}", *train_run(method, task, seed)
    yield "sql-prefix-4", *train_run("prefix", "sql", 4, diverge=True)
    yield "latency-1", *latency_run()


def write(folder):
    os.makedirs(folder, exist_ok=True)
    for name, _, events in runs():
        with open(os.path.join(folder, name + ".jsonl"), "w", encoding="utf-8") as f:
            for e in events:
                f.write(json.dumps(e, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write(sys.argv[1])
