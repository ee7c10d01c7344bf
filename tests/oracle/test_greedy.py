"""`pedrobench generate` and `logits` on a real llama2.c model against greedy_reference.py."""
import os

import numpy as np

import check
import greedy_reference as greedy

check.program()
folder = check.data("weights", "stories260K")
if not folder:
    check.skip("no data folder with weights/stories260K (PB_DATA)")
path = os.path.join(folder, "checkpoint_legacy.bin")
model, tok = greedy.load(folder)

for prompt, count in (("Once upon a time", 200), ("Tom had a red ball.", 60)):
    start = tok.encode(prompt)
    ids, lead = greedy.generate(model, start, count)
    want = tok.decode(ids)
    print("%r: %d new tokens, smallest lead of the best logit %.3g" % (
        prompt, len(ids) - len(start), lead))
    # The oracle's own margin: float rounding (about 1e-5) must not be able to turn a choice.
    check.ok("the text is decided by more than rounding", lead > 1e-3)
    try:
        got = check.run("generate", "--model", path, "--prompt", prompt, "--max-new", str(count))
        got = got[:-1] if got.endswith("\n") else got
        # With the prompt in front, or the new text alone.
        if not check.ok("text of %r" % prompt, got in (want, want[len(prompt):])):
            print("wanted: %r\ngot:    %r" % (want, got))
    except Exception as e:
        check.ok("generate %r: %s" % (prompt, e), False)

ids, _ = greedy.generate(model, tok.encode("One day"), 60)
want = np.array([model.logits(t, pos) for pos, t in enumerate(ids)])
try:
    got = check.run_json("logits", "--model", path, "--tokens", ",".join(map(str, ids)))
    check.at_most("logits of stories260K", "%d tokens" % len(ids),
                  check.max_error(got["logits"], want), 1e-4)
except Exception as e:
    check.ok("logits of stories260K: %s" % e, False)
check.finish()
