"""Writes GGUF files, version 3, tensor by tensor: a file may be larger than memory.

    "GGUF", u32 version, u64 tensors, u64 keys; keys: string, u32 type, value; tensors: string,
    u32 dimensions, u64 each (innermost first), u32 type, u64 offset; data, aligned.
    Q8_0: blocks of 32 values, f16 scale and 32 signed bytes.

Source: ggml's gguf specification.
"""
import struct

import numpy as np

TYPES = {"F32": 0, "F16": 1, "Q8_0": 8, "BF16": 30}


def quantised(a):
    """(scales f16, bytes), a block of 32 per row, and the values they stand for."""
    x = np.asarray(a, np.float32).reshape(-1, 32)
    d = (np.abs(x).max(1, keepdims=True) / 127).astype(np.float16)
    q = np.clip(np.rint(x / np.maximum(d.astype(np.float32), 1e-12)), -127, 127).astype(np.int8)
    return d, q, (d.astype(np.float64) * q).reshape(np.shape(a))


def _bytes(a, kind):
    if kind == "Q8_0":
        d, q, _ = quantised(a)
        return np.concatenate([d.view(np.int8), q], 1).tobytes()
    a = np.ascontiguousarray(a, "<f2" if kind == "F16" else "<f4")
    # BF16 is cut off, so values are rounded before where that matters.
    return ((a.view("<u4") >> 16).astype("<u2") if kind == "BF16" else a).tobytes()


def _size(shape, kind):
    n = int(np.prod(shape))
    return {"F32": 4 * n, "F16": 2 * n, "BF16": 2 * n, "Q8_0": n // 32 * 34}[kind]


def _string(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def _value(v):
    """(type, bytes): the type follows from Python's; bool before int, which it is."""
    if isinstance(v, bool):
        return 7, struct.pack("<?", v)
    if isinstance(v, int):
        return 4, struct.pack("<I", v)
    if isinstance(v, float):
        return 6, struct.pack("<f", v)
    if isinstance(v, str):
        return 8, _string(v)
    kinds = [_value(x) for x in v]
    return 9, struct.pack("<IQ", kinds[0][0], len(v)) + b"".join(b for _, b in kinds)


def write(path, keys, tensors, alignment=32):
    """keys {name: value}; tensors {name: (shape, type, function that gives the array)}."""
    if alignment != 32:
        keys = dict(keys, **{"general.alignment": alignment})
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for k, v in keys.items():
        kind, raw = _value(v)
        head += _string(k) + struct.pack("<I", kind) + raw
    at = 0
    for name, (shape, kind, _) in tensors.items():
        head += _string(name) + struct.pack("<I%dQ" % len(shape), len(shape), *shape[::-1])
        head += struct.pack("<IQ", TYPES[kind], at)
        at += _size(shape, kind)
        at += -at % alignment
    with open(path, "wb") as f:
        f.write(head + b"\0" * (-len(head) % alignment))
        for shape, kind, array in tensors.values():
            raw = _bytes(array(), kind)
            assert len(raw) == _size(shape, kind)
            f.write(raw + b"\0" * (-len(raw) % alignment))
    return path
