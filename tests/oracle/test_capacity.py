"""The fit of `pedrobench capacity`, made again: features from the file's columns, as
harness/serve/cost_model.h describes them, and least squares without negative coefficients by
trying every subset of the columns, which finds the best without any algorithm to trust. Parts of
the form `sum` are compared by their sums of squares; the errors of whole steps, held-out ones
among them, by prediction from the coefficients.
"""
import itertools
import os
import subprocess
import tempfile

import h5py
import numpy as np

import check

PARTS = ("backbone", "attention", "adapter", "head", "rest")
TERMS = {  # name: (resource, own of a method)
    "backbone": {"step": "l", "weights": "b", "rows": "c"},
    "attention": {"step": "l", "sequences": "c", "keys, values": "b", "query-key pairs": "c",
                  "rows with prefixes": "c"},
    "adapter": {"step": "l", "different ones": "c", "bytes of them": "b", "rows": "c"},
    "head": {"step": "l", "weights": "b", "logits": "c"},
    "rest": {"scheduling": "l", "choice of tokens": "c"},
}
OWN = {("attention", "rows with prefixes")} | {("adapter", t) for t in TERMS["adapter"]}


def sizes_of(s):
    out = s["outputs"].sum()
    return {"weights": s["backbone_read_bytes"].min(),
            "head": s["head_read_bytes"].sum() / (s["outputs"] > 0).sum(),
            "position": s["attention_read_bytes"].sum() / s["keys"].sum(),
            "row": s["backbone_flops"].sum() / s["rows"].sum(),
            "logits": s["head_flops"].sum() / out,
            "pair": s["attention_flops"].sum() / s["pairs"].sum()}


def features(s, z):
    adapted = s["tenants"] > 0
    per_tenant = np.where(adapted, s["adapter_bytes"] / np.maximum(s["tenants"], 1), 0)
    work = s["rows"] * 2 * per_tenant / 4
    one = np.ones(len(s["rows"]))
    return {
        "backbone": {"step": one, "weights": one * z["weights"], "rows": z["row"] * s["rows"]},
        "attention": {"step": one, "sequences": s["segments"],
                      "keys, values": z["position"] * s["keys"],
                      "query-key pairs": z["pair"] * s["pairs"], "rows with prefixes": work},
        "adapter": {"step": adapted * one, "different ones": s["tenants"],
                    "bytes of them": s["adapter_bytes"], "rows": work},
        "head": {"step": (s["outputs"] > 0) * one, "weights": z["head"] * (s["outputs"] > 0),
                 "logits": z["logits"] * s["outputs"]},
        "rest": {"scheduling": one, "choice of tokens": z["logits"] * s["outputs"]},
    }


def best_sum_of_squares(A, b):
    """min |A x - b|^2, x >= 0: the smallest over all subsets whose solution is not negative."""
    scale = np.sqrt((A * A).sum(0))
    keep = scale > 0
    A = A[:, keep] / scale[keep]
    n, best = A.shape[1], float(b @ b)
    for r in range(1, n + 1):
        for cols in itertools.combinations(range(n), r):
            x, _, rank, _ = np.linalg.lstsq(A[:, cols], b, rcond=1e-10)
            if rank == r and (x >= 0).all():
                best = min(best, float(((A[:, cols] @ x - b) ** 2).sum()))
    return best


def main():
    with tempfile.TemporaryDirectory() as tmp:
        files = {}
        for method in ("lora", "prefix"):
            files[method] = os.path.join(tmp, method + ".h5")
            subprocess.run([check.program(), "serve", "--random", "32x64x2x4x2x90", "--budget",
                            "4k", "--methods", method, "--tenants", "12", "--prompt", "4-40",
                            "--output", "2-9", "--clients", "6", "--requests", "250", "--out",
                            files[method], "--quiet"], check=True, stdout=subprocess.DEVNULL)
        out = os.path.join(tmp, "fit.json")
        check.run("capacity", *files.values(), "--out", out)
        fit = check.json.load(open(out))["fit"]

        data, z = {}, None
        for method, path in files.items():
            with h5py.File(path, "r") as f:
                s = {k: v[()].astype(float) for k, v in f["serve/steps"].items()}
                counted = f["serve"].attrs["counted_ns"]
            mine = sizes_of(s)
            z = mine if z is None else {k: min(z[k], mine[k]) for k in z}
            data[method] = {k: v[s["begin"] >= counted] for k, v in s.items()}
        for k in z:
            check.at_most("sizes", k, abs(fit["sizes"][k] / z[k] - 1), 1e-9)

        X = {m: features(s, z) for m, s in data.items()}
        total = np.concatenate([s["duration"] for s in data.values()]) * 1e-9
        n = len(total)
        held = np.arange(n) // 20 % 5 == 4
        check.ok("number of steps", fit["steps"] == n and fit["held_out"]["steps"] == held.sum())
        predicted = np.zeros(n)
        for part in PARTS:
            y = np.concatenate([s[part + "_ns"] if part != "rest" else
                                s["duration"] - sum(s[p + "_ns"] for p in PARTS[:4])
                                for s in data.values()]) * 1e-9
            columns, coefficients, kinds = [], [], []
            for term, of in TERMS[part].items():
                for own in (list(data) if (part, term) in OWN else [None]):
                    columns.append(np.concatenate([
                        X[m][part][term] * (own in (None, m)) for m in data]))
                    c = fit["terms"][own or "lora"][part][term]
                    coefficients.append(c["seconds_per_unit"] / fit["factor"])
                    check.ok("%s, %s is of %s" % (part, term, of), c["of"][0] == of)
                    kinds.append(of)
            A, c, kinds = np.stack(columns, 1), np.array(coefficients), np.array(kinds)
            side = {k: (A * c)[:, kinds == k].sum(1) for k in "lbc"}
            if fit["parts"][part]["form"] == "max":
                p = side["l"] + np.maximum(side["b"], side["c"])
            else:
                p = side["l"] + side["b"] + side["c"]
                w = 1 / total[~held]
                got = (((p[~held] - y[~held]) * w) ** 2).sum()
                best = best_sum_of_squares(A[~held] * w[:, None], y[~held] * w)
                check.at_most("sum of squares", part, got / best - 1, 1e-4)
            form = "error_of_" + fit["parts"][part]["form"]
            err = (np.abs(p - y) / total)[held].mean()
            check.at_most("held-out error", part, abs(fit["parts"][part][form] / err - 1), 1e-6)
            predicted += p
        ratio = np.sort((total / predicted)[~held])
        ratio = ratio[:len(ratio) - len(ratio) // 100]
        check.at_most("factor", "mean of measured / predicted",
                      abs(fit["factor"] / ratio.mean() - 1), 1e-9)
        predicted *= fit["factor"]
        for name, which in ("fitted", ~held), ("held_out", held):
            e = np.sort(np.abs(predicted / total - 1)[which])
            check.at_most("errors", name + ", mean", abs(fit[name]["mean"] / e.mean() - 1), 1e-6)
            check.at_most("errors", name + ", median",
                          abs(fit[name]["median"] / e[len(e) // 2] - 1), 1e-6)
    check.finish()


check.versions(np, h5py)
main()
