"""`pedrobench logits` against architectures.py: every family, bare and with every adapter, all
positions at once and one by one from the cache. Prints the largest error of each family.

Arguments, if any, are the adapters to try instead of all; "none" is the bare model."""
import os
import subprocess
import sys
import tempfile

import numpy as np

import check

try:
    import torch
except ImportError:
    check.skip("no PyTorch (Debian: python3-torch)")
import architectures as arch
import make_model as mk
import make_models as mm
import reference as ref

TOLERANCE = 1e-4
LENGTH, PROMPT, GREEDY = 140, 70, 20  # longer than every window and than blocks of 32 and 64


def ids(tokens):
    return ",".join(map(str, tokens))


def compare(family, label, model, reference, folder, adapter, tokens, n_prompt, greedy=0):
    args = ["logits", "--model", folder, "--tokens", ids(tokens), "--prompt", str(n_prompt)]
    args += ["--adapter", adapter] if adapter else []
    try:
        got = check.run_json(*args, *(["--greedy", str(greedy)] if greedy else []))
        check.ok(label + ": the tokens given are in front", got["tokens"][:len(tokens)] == tokens)
        check.ok(label + ": number of tokens", len(got["tokens"]) == len(tokens) + greedy)
        want = model.forward(got["tokens"], reference, n_prompt).detach().numpy()
        check.at_most(family, label, check.max_error(got["logits"], want), TOLERANCE)
        for t in range(len(tokens), len(got["tokens"])):  # which may only differ where it is a tie
            lead = want[t - 1].max() - want[t - 1][got["tokens"][t]]
            check.at_most("likeliest token, behind by", "%s, position %d" % (label, t), lead,
                          TOLERANCE)
        return got["tokens"]
    except Exception as e:
        check.ok("%s: %s" % (label, e), False)


def check_family(tmp, n, name):
    folder = mm.make_model(os.path.join(tmp, name), name, seed=n)
    model = arch.Model(folder)
    for k, adapter in enumerate([None, *mm.ADAPTERS]):
        if sys.argv[1:] and (adapter or "none") not in sys.argv[1:]:
            continue
        path = reference = None
        if adapter:
            path = mm.make_adapter(folder + "." + adapter, folder, adapter, seed=100 * n + k)
            reference = arch.load_adapter(path)
        tokens = mk.make_tokens(1000 * n + k, model.c.vocab_size, LENGTH)
        label = "%s/%s" % (name, adapter)
        compare(name, label, model, reference, folder, path, tokens, PROMPT)
        if reference:
            check.ok(label + ": every tensor is used", reference.used == set(reference.p))
        compare(name, label + " greedy", model, reference, folder, path,
                tokens[:PROMPT - 7 * k], PROMPT - 7 * k, GREEDY)


def check_ends(tmp):
    """Each of several ids that end a sequence ends generation."""
    name = "llama3"
    conf, w = mm.config(name), None
    folder = mm.make_model(os.path.join(tmp, "ends"), name)
    model, prompt = arch.Model(folder), "A prompt."
    tokens = [256] + list(prompt.encode())
    while len(tokens) < 30:
        tokens.append(int(model.forward(tokens)[-1].argmax()))
    new = tokens[1 + len(prompt):]
    at = next(i for i in range(8, len(new)) if new[i] not in new[:i] and new[i] < 256)
    for ends in ([257, new[at]], [new[at], 257], new[at]):
        mm.write_model(folder, dict(conf, eos_token_id=ends), {
            k: v.numpy() for k, v in model.w.items()}, "BF16", 3)
        p = subprocess.run([check.program(), "generate", "--model", folder, "--prompt", prompt,
                            "--max-new", "40"], stdout=subprocess.PIPE, timeout=60)
        want = prompt.encode() + bytes(t for t in new[:at] if t < 256)
        check.ok("generate stops at one of %s: %r" % (ends, p.stdout), p.stdout[:-1] == want)


def check_reference(tmp):
    """The two references agree where both apply."""
    methods = {k: mk.METHODS[k] for k in ("lora_all_rs", "ia3_all", "prefix", "pedro")}
    for label, folder, adapter, tokens, n in mk.cases(tmp, methods):
        cfg, w = ref.load_model(folder)
        ad = ref.Adapter(*ref.load_adapter(adapter)) if adapter else None
        got = arch.Model(folder).forward(tokens, arch.load_adapter(adapter) if adapter else None, n)
        check.at_most("architectures.py and reference.py", label, check.max_error(
            got.detach().numpy(), ref.forward(cfg, w, tokens, n, ad).v), 1e-10)


check.versions(torch, np)
check.program()
with tempfile.TemporaryDirectory() as tmp:
    check_reference(tmp)
    for n, name in enumerate(mm.MODELS):
        check_family(tmp, n, name)
    check_ends(tmp)
check.finish()
