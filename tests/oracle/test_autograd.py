"""`pedrobench grad` against PyTorch's autograd over architectures.py: families that reference.py
does not cover, with adapters and in full. Arguments, if any, are the adapters to try instead of
all; "none" is the backbone in full."""
import os
import sys
import tempfile

import check

try:
    import torch
except ImportError:
    check.skip("no PyTorch (Debian: python3-torch)")
import architectures as arch
import make_model as mk
import make_models as mm

TOLERANCE = 1e-4  # float sums of thousands of products: measured, 1.2e-5 at most
MODELS = ["llama-linear", "mistral-short", "qwen3", "gemma", "gemma2", "gemma2-short"]
ADAPTERS = ["lora", "lora-all", "lora-patterns", "ia3-all", "prefix", "pedro", "dora", "dora-all", "vera",
            "vera-seed", "adalora", "adalora-pruned"]


def compare(family, label, folder, adapter, tokens, n_prompt):
    ad = arch.load_adapter(adapter) if adapter else None
    loss, want = arch.gradients(arch.Model(folder), tokens, n_prompt, ad)
    try:
        got = check.run_json("grad", "--model", folder, "--tokens", ",".join(map(str, tokens)),
                             "--prompt", str(n_prompt),
                             *(["--adapter", adapter] if adapter else ["--full"]))
        check.at_most("loss", label, abs(got["loss"] - loss), 1e-5)
        for key, err in sorted(check.gradient_errors(got["gradients"], want).items()):
            check.at_most(family, label + " " + key, err, TOLERANCE)
    except Exception as e:
        check.ok("%s: %s" % (label, e), False)


check.versions(torch)
check.program()
with tempfile.TemporaryDirectory() as tmp:
    for n, name in enumerate(MODELS):
        folder = mm.make_model(os.path.join(tmp, name), name, seed=n)
        for k, adapter in enumerate([None, *ADAPTERS]):
            if sys.argv[1:] and (adapter or "none") not in sys.argv[1:]:
                continue
            path = adapter and mm.make_adapter(folder + "." + adapter, folder, adapter, seed=k)
            tokens = mk.make_tokens(100 * n + k, mm.SHAPE["vocab_size"], 50 + k)
            n_prompt = 3 if adapter == "prefix" else 20 + 3 * k  # short windows reach the prefix
            compare(name, "%s/%s" % (name, adapter or "full"), folder, path, tokens, n_prompt)
check.finish()
