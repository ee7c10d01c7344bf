"""An independent safetensors writer and reader (NumPy alone) against the suite's.

A file written here is read and written again by `unit_tensors --copy`; what comes back must be the
same numbers under the same names, laid out as the format demands.
"""
import json
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}


def write(path, tensors, metadata):
    header, data = {"__metadata__": metadata}, b""
    for name, (dtype, array) in tensors.items():
        raw = np.ascontiguousarray(array).astype(DTYPES[dtype]).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def read(path):
    with open(path, "rb") as f:
        raw = f.read()
    (n,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + n])
    assert (8 + n) % 8 == 0, "data does not start at a multiple of 8"
    metadata = header.pop("__metadata__", {})
    area, covered, tensors = raw[8 + n:], 0, {}
    for name, e in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = e["data_offsets"]
        assert begin == covered, f"{name} starts at {begin}, not {covered}"
        covered = end
        array = np.frombuffer(area[begin:end], DTYPES[e["dtype"]]).reshape(e["shape"])
        tensors[name] = (e["dtype"], array)
    assert covered == len(area), f"{len(area) - covered} bytes belong to no tensor"
    return tensors, metadata


def main():
    program = os.path.join(os.path.dirname(os.environ.get("PEDROBENCH", "")), "tests",
                           "unit_tensors")
    if not os.access(program, os.X_OK):
        print(f"skipped: no {program}")
        return 77
    rng = np.random.default_rng(1)
    halves = np.arange(65536, dtype=np.uint16)
    with np.errstate(over="ignore"):
        tensors = {
            "model.a": ("F32", rng.standard_normal((37, 5)).astype(np.float32)),
            "model.half": ("F16", halves.view(np.float16)),
            "model.brain": ("BF16", halves[(halves & 0x7fff) <= 0x7f80].reshape(2, -1)),
            "model.wide": ("F64", rng.standard_normal((3, 2, 4)) * 1e30),
            "model.count": ("I64", rng.integers(-2**63, 2**63 - 1, 9)),
            "model.scalar": ("F32", np.array(2.5, np.float32)),
            "model.empty": ("F32", np.zeros((0, 3), np.float32)),
            "n\u00e4me \"quoted\"": ("F32", np.array([np.inf, -np.inf, -0.0], np.float32)),
        }
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "in"), os.path.join(folder, "out")
        write(source, tensors, {"format": "pt"})
        subprocess.run([program, "--copy", source, target], check=True)
        got, metadata = read(target)
    assert metadata == {"format": "pt"}, metadata
    assert got.keys() == tensors.keys(), got.keys() ^ tensors.keys()
    for name, (dtype, array) in tensors.items():
        got_dtype, back = got[name]
        if dtype == "F16":
            dtype, array = "F32", array.astype(np.float32)
        elif dtype == "F64":  # the suite computes in float
            array = array.astype(np.float32).astype(np.float64)
        assert got_dtype == dtype, (name, got_dtype)
        assert back.shape == array.shape, (name, back.shape)
        if dtype in ("F32", "F64"):
            same = (back == array) & (np.signbit(back) == np.signbit(array))
            assert np.all(same | (np.isnan(back) & np.isnan(array))), name
        else:
            assert np.array_equal(back, array), name
    return 0


if __name__ == "__main__":
    sys.exit(main())
