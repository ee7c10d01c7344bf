"""Where adapters start, against NumPy: PiSSA from the largest singular vectors of each weight."""
import os
import tempfile

import numpy as np

import check
import make_models as mm
import reference as ref

STEPS = ["--steps", "1", "--lr", "1e-30", "--batch", "2", "--train-examples", "4",
         "--valid-examples", "2", "--test-examples", "2", "--eval-every", "0", "--quiet"]


def start(tmp, model, method, *options):
    """The tensors of an adapter whose training moved nothing."""
    out = os.path.join(tmp, "run.h5")
    more = [x for o in options for x in ("--set", o)]
    check.run("train", "--model", model, "--task", "yesno", "--method", method, *more, *STEPS,
              "--out", out)
    w = ref.read_safetensors(os.path.join(tmp, "run.adapter", "adapter_model.safetensors"))
    os.remove(out)
    return w


def pissa(tmp, name, seed):
    model = mm.make_model(os.path.join(tmp, name), name, seed=seed, max_position_embeddings=2048)
    w, r, s = {}, 4, 16 / 4
    for f in os.listdir(model):
        if f.endswith(".safetensors"):
            w.update(ref.read_safetensors(os.path.join(model, f)))
    got = start(tmp, model, "pissa", "rank=%d" % r)
    for key in [k for k in got if k.endswith(".lora_A.weight")]:
        A, B = got[key], got[key.replace("lora_A", "lora_B")]
        U, S, Vt = np.linalg.svd(w[key[len("base_model.model."):-len("lora_A.weight")] + "weight"])
        check.at_most("PiSSA, s B A", key, check.max_error(
            s * B[:, :r] @ A[:r], (U[:, :r] * S[:r]) @ Vt[:r]), 1e-4)
        check.at_most("PiSSA, rows of A", key, check.max_error(
            (A[:r] ** 2).sum(1), S[:r] / s), 1e-4)
        check.at_most("PiSSA, columns of B", key, check.max_error(
            (B[:, :r] ** 2).sum(0), S[:r] / s), 1e-4)
        check.at_most("PiSSA, nothing at the start", key, check.max_error(B @ A, 0 * B @ A), 1e-5)


check.program()
with tempfile.TemporaryDirectory() as folder:
    pissa(folder, "llama2", 1)
    pissa(folder, "qwen2-window", 2)
check.finish()
