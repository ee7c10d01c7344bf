"""`pedrobench grad` against reference.py: every method on every shape, and the whole backbone."""
import tempfile

import check
import make_model as mk
import reference as ref

check.program()
with tempfile.TemporaryDirectory() as tmp:
    for label, model, adapter, tokens, n in mk.cases(tmp):
        cfg, w = ref.load_model(model)
        ad = ref.Adapter(*ref.load_adapter(adapter)) if adapter else None
        loss, want = ref.gradients(cfg, w, tokens, n, ad)
        args = ["grad", "--model", model, "--tokens", ",".join(map(str, tokens)),
                "--prompt", str(n)] + (["--adapter", adapter] if adapter else ["--full"])
        try:
            got = check.run_json(*args)
            check.at_most("loss", label, abs(got["loss"] - loss), 1e-4)
            for key, err in sorted(check.gradient_errors(got["gradients"], want).items()):
                check.at_most("gradients, relative", label + " " + key, err, 1e-3)
        except Exception as e:
            check.ok("%s: %s" % (label, e), False)
check.finish()
