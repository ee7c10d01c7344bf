"""The reference itself: gradients against central differences, cached decoding against the full
forward, identities every method must obey, a real model, and that the comparison can fail."""
import tempfile

import numpy as np

import check
import greedy_reference as greedy
import make_model as mk
import reference as ref
from tape import const, param

SMALL = mk.SHAPES["tiny"]


def build(folder, kind=None, seed=5, shape=SMALL, **opt):
    """(Config, weights, Adapter or None) that went through files."""
    model = mk.make_model(folder + "/model", seed, **shape)
    cfg, w = ref.load_model(model)
    if not kind:
        return cfg, w, None
    folder = mk.make_adapter(folder + "/adapter", model, seed + 1, kind, **opt)
    return cfg, w, ref.Adapter(*ref.load_adapter(folder))


def check_differences(label, cfg, w, ad, tokens, n):
    """(8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h, error O(h^4): a random direction and a few
    single entries of every tensor. h is small lest a step cross a kink of ReLU, max or |.|: with
    these seeds an argument of the rational activation's |.| is as near to 0 as 4e-6."""
    _, grads = ref.gradients(cfg, w, tokens, n, ad)
    params, rng, h = (ad.p if ad else w), np.random.default_rng(7), 1e-5
    for key, g in grads.items():
        x0 = params[key].v
        steps = [rng.normal(size=g.shape)]
        for i in rng.choice(g.size, min(4, g.size), replace=False):
            steps.append(np.zeros(g.shape))
            steps[-1].flat[i] = 1
        for d in steps:
            f = []
            for k in (1, -1, 2, -2):
                params[key].v = x0 + k * h * d
                f.append(ref.loss_of(cfg, w, tokens, n, ad).v.item())
            params[key].v = x0
            slope = (8 * (f[0] - f[1]) - (f[2] - f[3])) / (12 * h)
            # Relative to the slope, or to 1e-2 where it is smaller: the loss rounds at some 1e-15,
            # so slopes at 1e-15 / h = 1e-10, and 1e-7 * 1e-2 leaves a factor of ten.
            err = abs(slope - (g * d).sum()) / max(abs(slope), 1e-2)
            check.at_most("central differences, relative", label + " " + key, err, 1e-7)


def check_gradients(folder):
    tokens, n = mk.make_tokens(3, SMALL["vocab"], 8), 4
    for name, (kind, opt) in mk.METHODS.items():
        check_differences(name, *build(folder, kind, **opt), tokens, n)
    check_differences("full", *build(folder), tokens, n)
    tied = dict(SMALL, tied=True, bias=False, act="gelu_pytorch_tanh", kv_heads=1)
    check_differences("full, tied, GELU", *build(folder, shape=tied), tokens, n)


def check_decoding(folder):
    """Prompt first, then token by token (and three at a time) with a cache == all at once."""
    tokens, n = mk.make_tokens(4, 37, 14), 5
    for name, (kind, opt) in [("none", (None, {}))] + list(mk.METHODS.items()):
        cfg, w, ad = build(folder, kind, shape=mk.SHAPES["gqa"], **opt)
        full = ref.forward(cfg, w, tokens, n, ad).v
        for step in (1, 3):
            cache = {}
            parts = [ref.forward(cfg, w, tokens[:n], n, ad, cache).v]
            for at in range(n, len(tokens), step):
                parts.append(ref.forward(cfg, w, tokens[at:at + step], n, ad, cache).v)
            check.at_most("cached decoding", "%s, step %d" % (name, step),
                          check.max_error(np.concatenate(parts), full), 1e-12)
        other = ref.forward(cfg, w, tokens[:9] + [(tokens[9] + 1) % 37] + tokens[10:], n, ad).v
        check.at_most("causality", name, check.max_error(other[:9], full[:9]), 0)
        check.ok("causality, %s: later rows do change" % name,
                 all(check.max_error(other[t], full[t]) > 1e-6 for t in range(9, 14)))
        if name != "none":
            base = ref.forward(cfg, w, tokens, n).v
            check.ok(name + ": the adapter does something", check.max_error(base, full) > 1e-2)
        if name == "pedro_response_only":  # a prompt row of the logits is the backbone's
            check.at_most("unscaled prompt", name, check.max_error(base[:n], full[:n]), 1e-12)


def same(label, cfg, w, ad, w2, ad2, n=4):
    tokens = mk.make_tokens(6, cfg.vocab, 9)
    check.at_most("identities", label, check.max_error(
        ref.forward(cfg, w, tokens, n, ad).v, ref.forward(cfg, w2, tokens, n, ad2).v), 1e-12)


def check_identities(folder):
    kind, opt = mk.METHODS["lora_all_rs"]
    cfg, w, lora = build(folder, kind, **opt)
    merged, s = dict(w), lora.conf["lora_alpha"] / np.sqrt(lora.conf["r"])
    for i in range(cfg.layers):
        for t, linear in ref.LINEARS.items():
            key = ref.LINEAR.format(i=i, linear=linear)
            merged[key] = const(w[key].v + s * lora.get(ref.LORA_B, i, t).v
                                @ lora.get(ref.LORA_A, i, t).v)
    same("LoRA merged", cfg, w, lora, merged, None)
    for key in lora.p:
        if "lora_B" in key:
            lora.p[key].v = lora.p[key].v * 0
    same("LoRA with B = 0", cfg, w, lora, w, None)

    cfg, w, re = build(folder, "IA3", targets=["k", "v", "down"], reparam=3)
    plain = {}
    for i in range(cfg.layers):
        for t in ("k", "v", "down"):
            l = re.ia3(i, t).v
            plain[ref.IA3_L.format(i=i, linear=ref.LINEARS[t])] = param(l if t == "down" else l.T)
    folded = ref.Adapter(re.conf, plain)
    same("IA3 re-parameterised == folded", cfg, w, re, w, folded)
    moved = {k.replace("down_proj", "up_proj"): param(v.v.T) if "down" in k else v
             for k, v in plain.items()}
    same("IA3 at the input of down == at the output of up", cfg, w, folded, w,
         ref.Adapter({"peft_type": "IA3"}, moved))
    cfg, w, ped = build(folder, "PEDRO", targets=["q", "v", "up"])
    for key in ped.p:
        if "pedro.up" in key:
            ped.p[key].v = ped.p[key].v * 0
    same("PEDRO with up = 0", cfg, w, ped, w, None)

    cfg, w, ped = build(folder, "PEDRO", targets=["up", "v", "q"], prompt_scaled=True)
    tokens, fixed, cache = mk.make_tokens(6, cfg.vocab, 9), {}, {}
    ref.forward(cfg, w, tokens, 4, ped, cache)
    for i in range(cfg.layers):
        for t in ("q", "v", "up"):
            fixed[ref.IA3_L.format(i=i, linear=ref.LINEARS[t])] = param(cache[i]["l"][t].v.T)
    same("PEDRO == IA3 with the vectors it made", cfg, w, ped, w,
         ref.Adapter({"peft_type": "IA3"}, fixed))

    cfg, w, mlp = build(folder, "PREFIX_TUNING", length=3, mlp=7)
    m = {n: mlp.p[k].v for n, k in ref.PREFIX_MLP.items()}
    hidden = np.tanh(m["embedding"] @ m["W1"].T + m["b1"])
    table = np.concatenate([hidden @ mlp.p[ref.PREFIX_W2.format(i=i)].v.T +
                            mlp.p[ref.PREFIX_B2.format(i=i)].v for i in range(cfg.layers)], 1)
    same("prefix MLP == folded", cfg, w, mlp, w,
         ref.Adapter(mlp.conf, {ref.PREFIX: param(table)}))

    # Real keys and values as the prefix: tokens behind it see what they would see in sequence.
    cfg, w, _ = build(folder, shape=mk.SHAPES["gqa"])
    tokens, P, cache = mk.make_tokens(8, cfg.vocab, 12), 5, {}
    ref.forward(cfg, w, tokens[:P], P, None, cache)
    kv = [cache[i][n].v for i in range(cfg.layers) for n in ("k", "v")]  # each (P,KVH,D)
    table = np.stack(kv, 1).reshape(P, -1)
    pre = ref.Adapter({"peft_type": "PREFIX_TUNING"}, {ref.PREFIX: param(table)})
    check.at_most("identities", "prefix of real keys and values", check.max_error(
        ref.forward(cfg, w, tokens[P:], 4, pre).v, ref.forward(cfg, w, tokens).v[P:]), 1e-12)


def check_files(folder):
    """A reader that knows the bytes: 1.5 is 0x3FC0 in BF16 and 0x3E00 in F16."""
    head = (b'{"__metadata__":{"format":"pt"},'
            b'"b":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]},'
            b'"h":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},'
            b'"d":{"dtype":"F64","shape":[1],"data_offsets":[8,16]}}')
    body = b"\xc0\x3f\xc0\xbf" + b"\x00\x3e\x00\xbe" + np.array([1.5]).tobytes()
    with open(folder + "/x.safetensors", "wb") as f:
        f.write(len(head).to_bytes(8, "little") + head + body)
    x = ref.read_safetensors(folder + "/x.safetensors")
    check.ok("safetensors in BF16, F16, F64", x["b"].tolist() == [[1.5, -1.5]]
             and x["h"].tolist() == [1.5, -1.5] and x["d"].tolist() == [1.5])


def from_llama2c(m, permute=True):
    """(Config, weights) of a llama2.c model; rows of q and k from interleaved to rotate-half."""
    def half(a, heads):
        return a.reshape(heads, m.hd // 2, 2, -1).swapaxes(1, 2).reshape(a.shape) if permute else a
    w = {ref.EMBED: m.emb, ref.NORM: m.rms_final, ref.HEAD: m.head}
    for i in range(m.n):
        w[ref.NORM_ATTN.format(i=i)], w[ref.NORM_FFN.format(i=i)] = m.rms_att[i], m.rms_ffn[i]
        for t, a in {"q": half(m.wq[i], m.heads), "k": half(m.wk[i], m.kv), "v": m.wv[i],
                     "o": m.wo[i], "gate": m.w1[i], "down": m.w2[i], "up": m.w3[i]}.items():
            w[ref.LINEAR.format(i=i, linear=ref.LINEARS[t])] = a
    return ref.Config({"vocab_size": m.vocab, "hidden_size": m.dim, "intermediate_size": m.hidden,
                       "num_hidden_layers": m.n, "num_attention_heads": m.heads,
                       "num_key_value_heads": m.kv, "rms_norm_eps": 1e-5}), {
                           k: const(v) for k, v in w.items()}


def check_real_model():
    """The two implementations agree on stories260K, and English tells right from wrong: with the
    rows of q and k left interleaved the same texts cost far more."""
    folder, corpus = check.data("weights", "stories260K"), check.data(
        "corpus", "tinystories_sample.txt")
    if not folder or not corpus:
        print("skipped: the real model (no data folder)")
        return
    m, tok = greedy.load(folder)
    cfg, w = from_llama2c(m)
    _, wrong = from_llama2c(m, permute=False)
    good, bad = [], []
    for n, text in enumerate(greedy.documents(corpus, 12)):
        ids = tok.encode(text)[:m.seq]
        check.ok("tokenizer round trip", tok.decode(tok.encode(text)) == text)
        logits = ref.forward(cfg, w, ids)
        good += ref.token_nll(logits, ids).v.ravel().tolist()
        bad += ref.token_nll(ref.forward(cfg, wrong, ids), ids).v.ravel().tolist()
        if n < 2:
            seq = np.array([m.logits(t, pos) for pos, t in enumerate(ids)])
            check.at_most("reference.py and greedy_reference.py", "text %d" % n,
                          check.max_error(logits.v, seq), 1e-10)
    good, bad = np.mean(good), np.mean(bad)
    print("stories260K: %.4f nats per token; %.4f with unpermuted q and k" % (good, bad))
    check.ok("nats per token between 1.2 and 1.7", 1.2 < good < 1.7)
    check.ok("a wrong row order is visible", bad > good + 0.5)


def check_comparison():
    want = {"a": np.array([[1.0, -2.0], [3.0, 0.5]]), "tiny": np.full(3, 1e-9)}
    flat = {k: v.ravel().tolist() for k, v in want.items()}
    check.ok("equal gradients pass", max(check.gradient_errors(flat, want).values()) == 0)
    for label, bad in (("opposite sign", dict(flat, a=[-1, 2, -3, -0.5])),
                       ("NaN", dict(flat, a=[float("nan"), -2, 3, 0.5])),
                       ("transposed", dict(flat, a=[1, 3, -2, 0.5])),
                       ("1 % off", dict(flat, a=[1.01, -2.02, 3.03, 0.505])),
                       ("wrong size", dict(flat, a=[1, -2, 3])),
                       ("missing", {"tiny": flat["tiny"]}), ("extra", dict(flat, b=[0.0]))):
        errors = check.gradient_errors(bad, want).values()
        check.ok("comparison refuses: " + label, not all(e <= 1e-3 for e in errors))
    zero = check.gradient_errors({"a": [0.0]}, {"a": np.zeros(1)}).values()
    check.ok("comparison refuses: nothing but zeros", not all(e <= 1e-3 for e in zero))
    check.ok("max_error refuses NaN", not (check.max_error([float("nan")], [0]) <= 1))


with tempfile.TemporaryDirectory() as tmp:
    check_files(tmp)
    check_comparison()
    check_gradients(tmp)
    check_decoding(tmp)
    check_identities(tmp)
check_real_model()
check.finish()
