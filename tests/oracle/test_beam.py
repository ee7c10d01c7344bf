"""`pedrobench generate --beam` against a beam search written here, on logits that the program prints
for one whole sequence at a time (`logits --json`)."""
import math
import os

import check

model = os.path.join(check.source(), "paper", "backbone-bytes")  # a token is a byte; then BOS, EOS
BOS, EOS, NEW = 256, 257, 12
known = {}


def log_probabilities(ids):
    key = tuple(ids)
    if key not in known:
        x = check.run_json("logits", "--model", model, "--tokens", ",".join(map(str, ids)),
                           "--last")["logits"][0]
        most = max(x)
        total = most + math.log(math.fsum(math.exp(v - most) for v in x))
        known[key] = [v - total for v in x]
    return known[key]


def repeats(tokens, size):
    grams = [tuple(tokens[i:i + size]) for i in range(len(tokens) - size + 1)]
    return size > 0 and len(set(grams)) < len(grams)


def search(prompt, beams, penalty, no_repeat):
    """(tokens, score) of the best hypothesis, and by how much it leads the second."""
    opened, finished = [(0.0, [])], []
    for step in range(1, NEW + 1):
        options = sorted(((s + p, t + [v]) for s, t in opened
                          for v, p in enumerate(log_probabilities(prompt + t))
                          if not repeats(t + [v], no_repeat)), key=lambda o: -o[0])
        finished += [(s / step ** penalty, t[:-1]) for s, t in options[:beams]
                     if t[-1] in (BOS, EOS)]
        finished = sorted(finished, key=lambda h: -h[0])[:beams]
        opened = [(s, t) for s, t in options if t[-1] not in (BOS, EOS)][:beams]
        if len(finished) == beams and finished[-1][0] >= options[0][0] / step ** penalty:
            break
    else:
        finished += [(s / NEW ** penalty, t) for s, t in opened]
    finished.sort(key=lambda h: -h[0])
    lead = finished[0][0] - finished[1][0] if len(finished) > 1 else 1.0
    return finished[0][1], lead


for text, beams, penalty, no_repeat in (
        ("The old man looked at ", 3, 1.0, 0), ("The old man looked at ", 3, 0.8, 4),
        ("She said that the ", 5, 2.0, 2), ("name: The Mill; food: ", 3, -1.0, 0)):
    label = "%d beams, penalty %g, %d-grams, %r" % (beams, penalty, no_repeat, text)
    want, lead = search([BOS] + list(text.encode()), beams, penalty, no_repeat)
    # Float rounding (about 1e-6) must not be able to turn the choice.
    check.ok(label + ": decided by more than rounding", lead > 1e-4)
    got = check.run("generate", "--model", model, "--prompt", text, "--max-new", str(NEW), "--beam",
                    str(beams), "--length-penalty", str(penalty), "--no-repeat-ngram",
                    str(no_repeat))[:-1]
    print("%s -> %r" % (label, got[len(text):]))
    check.ok("%s: %r instead of %r" % (label, got[len(text):], bytes(want).decode()),
             got == text + bytes(want).decode("utf-8", "replace"))
greedy = check.run("generate", "--model", model, "--prompt", "A", "--max-new", "20")
check.ok("one beam is greedy", greedy == check.run(
    "generate", "--model", model, "--prompt", "A", "--max-new", "20", "--beam", "1"))
check.finish()
