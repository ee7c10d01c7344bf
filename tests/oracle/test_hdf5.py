"""Result files built by the program from synthetic journals, read with h5py (and h5dump)."""
import hashlib
import json
import os
import shutil
import subprocess
import tempfile

import h5py
import numpy as np

import check
import synthetic

program = check.program()


def attributes_match(group, want):
    for key, value in want.items():
        if isinstance(value, dict):
            attributes_match(group[key], value)
        elif value is not None and value != []:
            assert group.attrs[key] == value, (group.name, key, group.attrs[key], value)


def same(got, want):
    want = np.array([np.nan if x is None else x for x in want], float)
    assert np.array_equal(got[...], want, equal_nan=True), (got.name, got[...][:5], want[:5])


def compare(f, config, events):
    by = {}
    for e in events:
        by.setdefault(e["event"], []).append(e)
    head, tail = by["start"][0], by["end"][0]
    assert f.attrs["schema"] == "pedrobench-run" and f.attrs["schema_version"] == 1
    for key in ("run_id", "config_sha256", "created"):
        assert f.attrs[key] == head[key]
    assert f.attrs["status"] == tail["status"] and f.attrs["seconds"] == tail["seconds"]
    text = f["config"].attrs["json"]
    assert json.loads(text) == config
    assert hashlib.sha256(text.encode()).hexdigest() == head["config_sha256"]
    attributes_match(f["config"], config)
    attributes_match(f["env"], head["env"])
    attributes_match(f["seeds"], head["seeds"])
    for e in by.get("params", []):
        attributes_match(f["params"], {k: v for k, v in e.items() if k not in ("event", "sites")})
        sites = f["params/sites"][...]
        assert [dict(zip(sites.dtype.names, s)) for s in sites.tolist()] == [
            {**s, "name": s["name"].encode()} for s in e["sites"]]
    steps = by.get("step", [])
    if steps:
        same(f["train/step"], [e["step"] for e in steps])
        for name in ("loss", "lr", "grad_norm", "tokens", "seconds"):
            same(f["train"][name], [e.get(name) for e in steps])
        assert f["train/loss"].dims[0][0] == f["train/step"]
        assert f["train/step"].attrs["CLASS"] == b"DIMENSION_SCALE"
    for e in by.get("eval", []):
        g = f["eval"][e["task"]]
        assert g.attrs["headline"] == e["headline"] and bool(g.attrs["higher_is_better"])
        attributes_match(g["metrics"], e["metrics"])
        for name, values in e["per_example"].items():
            assert np.array_equal(g["per_example"][name][...], np.array(values, float)), name
        assert list(g["outputs"].asstr()[...]) == e["outputs"]
    for e in by.get("latency", []):
        g = f["latency"][e["scenario"]]
        attributes_match(g, e["attrs"])
        assert g["samples"].dtype == np.int64 and list(g["samples"][...]) == e["samples_ns"]
        assert g["samples"].attrs["units"] == "ns"
    missing = []
    f.visititems(lambda n, o: missing.append(n)
                 if isinstance(o, h5py.Dataset) and "units" not in o.attrs else None)
    assert not missing, missing


with tempfile.TemporaryDirectory() as folder:
    runs = os.path.join(folder, "runs")
    synthetic.write(runs)
    names = list(synthetic.runs())
    subprocess.run([program, "rebuild"] + [os.path.join(runs, n + ".jsonl") for n, _, _ in names],
                   check=True, stderr=subprocess.DEVNULL)
    for name, config, events in names:
        path = os.path.join(runs, name + ".h5")
        with h5py.File(path, "r") as f:
            compare(f, config, events)
        if shutil.which("h5dump"):
            subprocess.run(["h5dump", "-A", path], check=True, stdout=subprocess.DEVNULL)
    merged = os.path.join(folder, "views", "all.h5")
    subprocess.run([program, "collect", runs, "--out", merged], check=True,
                   stderr=subprocess.DEVNULL)
    moved = os.path.join(folder, "elsewhere")
    os.mkdir(moved)
    for part in ("runs", "views"):
        os.rename(os.path.join(folder, part), os.path.join(moved, part))
    with h5py.File(os.path.join(moved, "views", "all.h5"), "r") as f:
        assert len(f["runs"]) == len(names) == f.attrs["runs"]
        for name, config, _ in names:
            run = [r for r in f["runs"].values() if r["config"].attrs["json"] ==
                   synthetic.canonical(config)]
            assert len(run) == 1, name
print("%d files agree with their journals" % len(names))
