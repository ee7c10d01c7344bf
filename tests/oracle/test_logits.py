"""`pedrobench logits` against reference.py: every method on every shape."""
import tempfile

import check
import make_model as mk
import reference as ref

check.program()
with tempfile.TemporaryDirectory() as tmp:
    for label, model, adapter, tokens, n in mk.cases(tmp):
        cfg, w = ref.load_model(model)
        ad = ref.Adapter(*ref.load_adapter(adapter)) if adapter else None
        want = ref.forward(cfg, w, tokens, n, ad).v
        args = ["logits", "--model", model, "--tokens", ",".join(map(str, tokens)),
                "--prompt", str(n)] + (["--adapter", adapter] if adapter else [])
        try:
            got = check.run_json(*args)
            check.ok(label + ": vocab", got["vocab"] == cfg.vocab)
            check.at_most("logits", label, check.max_error(got["logits"], want), 1e-4)
        except Exception as e:
            check.ok("%s: %s" % (label, e), False)
check.finish()
