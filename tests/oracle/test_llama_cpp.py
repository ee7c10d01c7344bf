"""llama.cpp does the same work as we do: logits of the files that the peer of `pedrobench bench` makes
(F32, BF16, Q8_0; bare, with one LoRA adapter and with another) as its library and ours compute
them. Skipped unless PB_LLAMA_CPP names a build.
"""
import os
import sys
import tempfile

import numpy as np

import check

sys.path.append(check.source() + "/paper/peers")
import llama_cpp as peer
from peer import Absent

GEOMETRY = {"width": 64, "ffn": 96, "layers": 2, "heads": 4, "kv_heads": 2, "vocab": 200}
# llama.cpp rounds keys and values to F16, and what is multiplied with BF16 or Q8_0 likewise.
TOLERANCE = {"F32": 2e-3, "BF16": 2e-2, "Q8_0": 2e-2}
SCALE = 0.15  # of the weights: positions and adapters change the logits by more than that

if not os.environ.get("PB_LLAMA_CPP"):
    check.skip("PB_LLAMA_CPP names no build of llama.cpp")
check.versions(np)
try:
    library = peer.Library(os.environ["PB_LLAMA_CPP"])
except Absent as e:
    check.skip(str(e))
tokens = np.random.default_rng(5).integers(GEOMETRY["vocab"], size=(1, 40))


def ours(model, adapter):
    extra = ["--adapter", adapter] if adapter else []
    out = check.run_json("logits", "--model", model, *extra, "--last", "--tokens",
                         ",".join(map(str, tokens[0])))
    return np.array(out["logits"][-1])


def error(got, want):
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


with tempfile.TemporaryDirectory() as tmp:
    adapters = [os.path.join(tmp, "lora%d.gguf" % i) for i in range(2)]
    for i, path in enumerate(adapters):
        peer.write_adapter(path, GEOMETRY, i, SCALE)
    for kind, tolerance in TOLERANCE.items():
        model = os.path.join(tmp, kind + ".gguf")
        peer.write_model(model, GEOMETRY, kind, SCALE)
        s = peer.Session(library, model, 1, 64, 64, 2)
        for path in adapters:
            s.add_adapter(path)
        batch, last = s.batch(tokens, 0), None
        for which, adapter in enumerate([None] + adapters):
            if adapter:
                s.switch(which - 1)
            s.decode(batch)
            folder = adapter and "%s-%s" % (adapter, kind)
            if adapter:
                check.run("convert", adapter, folder, "--base", model)
            got, want = s.logits(tokens.size - 1, GEOMETRY["vocab"]), ours(model, folder)
            label = "adapter %d" % which if adapter else "bare"
            check.at_most(kind, label, error(got, want), tolerance)
            if last is not None:
                check.ok("%s: %s changes the logits" % (kind, label), error(last, want) > 0.1)
            last = want
            s.forget(0, 0)
check.finish()
