#!/usr/bin/env python3
"""llama.cpp as a peer of `pedrobench bench`: the same work on the same shapes, timed in the same run.

Drives the library (libllama.so) of a build whose folder PB_LLAMA_CPP names, so that one process
holds the model while other arms are timed; its own llama-bench makes the same calls. The geometry
becomes a GGUF file with random weights (F32, BF16 or Q8_0, as ours are stored), adapters become GGUF
LoRA files (r = 8, all linears). Settings are the library's defaults but for threads and sizes: a
cache of F16 keys and values among them. Work: prefill; decoding of one row or several, bare or with
one adapter; decoding with another adapter for every row, for which the library must be told to
switch between rows, since a batch has one set of adapters. Protocol: harness/bench/peer.h.

Usage: echo REQUEST | PB_LLAMA_CPP=DIR llama_cpp.py
"""
import ctypes as C
import os
import tempfile

import peer

try:
    import numpy as np
    import gguf
except ImportError:
    peer.not_installed("python3-numpy")

TYPES = {"fp32": "F32", "bf16": "BF16", "int8": "Q8_0"}
RANK, ALPHA = 8, 16.0


class Opaque(C.Structure):
    """A structure that is passed by value and whose members depend on the version: room for any of
    them. Callees read and write as many bytes as they know."""
    _fields_ = [("word", C.c_uint32 * 256)]


class Batch(C.Structure):
    _fields_ = [("n_tokens", C.c_int32), ("token", C.POINTER(C.c_int32)),
                ("embd", C.POINTER(C.c_float)), ("pos", C.POINTER(C.c_int32)),
                ("n_seq_id", C.POINTER(C.c_int32)), ("seq_id", C.POINTER(C.POINTER(C.c_int32))),
                ("logits", C.POINTER(C.c_int8))]


LOG = C.CFUNCTYPE(None, C.c_int, C.c_char_p, C.c_void_p)
CONTEXT_DEFAULTS = (512, 2048, 512, 1)  # n_ctx, n_batch, n_ubatch, n_seq_max


def linears(q):
    """{name of llama.cpp: (out, in)}"""
    w, kv, f = q["width"], q["width"] // q["heads"] * q["kv_heads"], q["ffn"]
    return {"attn_q": (w, w), "attn_k": (kv, w), "attn_v": (kv, w), "attn_output": (w, w),
            "ffn_gate": (f, w), "ffn_up": (f, w), "ffn_down": (w, f)}


def write_model(path, q, kind, scale=0.02):
    keys = {"general.architecture": "llama", "general.name": "random",
            "tokenizer.ggml.model": "no_vocab"}
    for key, v in {"vocab_size": q["vocab"], "context_length": 1 << 16,
                   "embedding_length": q["width"], "block_count": q["layers"],
                   "feed_forward_length": q["ffn"], "attention.head_count": q["heads"],
                   "attention.head_count_kv": q["kv_heads"],
                   "rope.dimension_count": q["width"] // q["heads"],
                   "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 1e4}.items():
        keys["llama." + key] = v
    g = np.random.default_rng(1)

    def matrix(*shape):
        return shape, kind, lambda: scale * g.standard_normal(shape, np.float32)

    def ones():
        return (q["width"],), "F32", lambda: np.ones(q["width"], np.float32)
    tensors = {"token_embd.weight": matrix(q["vocab"], q["width"]), "output_norm.weight": ones()}
    for i in range(q["layers"]):
        block = "blk.%d." % i
        tensors.update({block + n + ".weight": ones() for n in ("attn_norm", "ffn_norm")})
        tensors.update({block + n + ".weight": matrix(*s) for n, s in linears(q).items()})
    gguf.write(path, keys, tensors)


def write_adapter(path, q, seed, scale=0.02):
    keys = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora",
            "adapter.lora.alpha": ALPHA}
    g = np.random.default_rng(100 + seed)

    def matrix(*shape):
        return shape, "F32", lambda: scale * g.standard_normal(shape, np.float32)
    tensors = {}
    for i in range(q["layers"]):
        for name, (out, inner) in linears(q).items():
            at = "blk.%d.%s.weight.lora_" % (i, name)
            tensors[at + "a"] = matrix(RANK, inner)
            tensors[at + "b"] = matrix(out, RANK)
    gguf.write(path, keys, tensors)


def find_library(folder):
    for part in ("", "bin", "lib", "src", "build/bin", "build/lib", "build/src", "build"):
        path = os.path.join(folder, part, "libllama.so")
        if os.path.exists(path):
            return path
    raise peer.Absent("%s has no libllama.so (a build with shared libraries has one)" % folder)


class Library:
    def __init__(self, folder):
        path = find_library(folder)
        self.words = []  # what it says
        self.lib = lib = C.CDLL(path)
        self.log = LOG(lambda level, text, _: self.words.append(text.decode(errors="replace")))
        lib.llama_log_set(self.log, None)
        self.load_backends(os.path.dirname(path))
        for name, result, *arguments in (
                ("llama_model_default_params", Opaque), ("llama_context_default_params", Opaque),
                ("llama_model_load_from_file", C.c_void_p, C.c_char_p, Opaque),
                ("llama_init_from_model", C.c_void_p, C.c_void_p, Opaque),
                ("llama_n_ctx", C.c_uint32, C.c_void_p), ("llama_n_batch", C.c_uint32, C.c_void_p),
                ("llama_n_ubatch", C.c_uint32, C.c_void_p),
                ("llama_set_n_threads", None, C.c_void_p, C.c_int32, C.c_int32),
                ("llama_batch_init", Batch, C.c_int32, C.c_int32, C.c_int32),
                ("llama_decode", C.c_int32, C.c_void_p, Batch),
                ("llama_get_logits_ith", C.POINTER(C.c_float), C.c_void_p, C.c_int32),
                ("llama_adapter_lora_init", C.c_void_p, C.c_void_p, C.c_char_p)):
            try:
                f = getattr(lib, name)
            except AttributeError:
                raise peer.Absent("its library has no %s: too old, or too new" % name)
            f.restype, f.argtypes = result, arguments
        lib.llama_backend_init()

    def load_backends(self, folder):
        """Builds with loadable backends have none until they are told where."""
        ggml = os.path.join(folder, "libggml.so")
        if os.path.exists(ggml):
            lib = C.CDLL(ggml)
            if hasattr(lib, "ggml_backend_load_all_from_path"):
                lib.ggml_backend_load_all_from_path(folder.encode())

    def check(self, value, what):
        if not value:
            raise peer.Absent("cannot %s: %s" % (what, "".join(self.words[-3:]).strip()))
        return value

    def features(self):
        """Instruction sets that the library uses."""
        self.lib.llama_print_system_info.restype = C.c_char_p
        text = self.lib.llama_print_system_info().decode()
        on = [w.strip(" :") for w in text.replace("CPU", "").replace("|", ":").split(":")
              if w.strip().endswith("= 1")]
        return " ".join(w.split("=")[0].strip() for w in on)


class Session:
    """A model, a context for `sequences` sequences of `positions`, and adapters."""

    def __init__(self, library, model, sequences, positions, batch, threads):
        self.api, self.lib = library, library.lib
        lib = self.lib
        self.model = library.check(
            lib.llama_model_load_from_file(model.encode(), lib.llama_model_default_params()),
            "open the GGUF file")
        p = lib.llama_context_default_params()
        if tuple(p.word[:4]) != CONTEXT_DEFAULTS:
            raise peer.Absent("its library has other parameters of a context than this script knows")
        room = -(-positions // 256) * 256  # newer libraries give every sequence a multiple
        p.word[0:4] = [sequences * room, batch, min(batch, 512), sequences]
        self.context = library.check(lib.llama_init_from_model(self.model, p), "make a context")
        if lib.llama_n_batch(self.context) < batch or lib.llama_n_ctx(self.context) < positions:
            raise peer.Absent("its context has not the size that was asked for")
        lib.llama_set_n_threads(self.context, threads, threads)
        self.adapters = []

    def add_adapter(self, path):
        self.adapters.append(self.api.check(
            self.lib.llama_adapter_lora_init(self.model, path.encode()), "open the adapter"))

    def switch(self, i):
        """Makes adapter i the one that is applied."""
        if hasattr(self.lib, "llama_set_adapters_lora"):
            one, scale = (C.c_void_p * 1)(self.adapters[i]), (C.c_float * 1)(1)
            failed = self.lib.llama_set_adapters_lora(C.c_void_p(self.context), one, C.c_size_t(1),
                                                      scale)
        else:
            self.lib.llama_clear_adapter_lora(C.c_void_p(self.context))
            failed = self.lib.llama_set_adapter_lora(C.c_void_p(self.context),
                                                     C.c_void_p(self.adapters[i]), C.c_float(1))
        if failed:
            raise RuntimeError("the adapter cannot be switched")

    def batch(self, tokens, pos0, first=0):
        """tokens (S,T): sequence first + i at positions pos0 ... Logits behind each sequence."""
        S, T = tokens.shape
        b = self.lib.llama_batch_init(S * T, 0, 1)
        b.n_tokens = S * T
        for i in range(S * T):
            b.token[i], b.pos[i] = int(tokens.flat[i]), pos0 + i % T
            b.n_seq_id[i], b.seq_id[i][0], b.logits[i] = 1, first + i // T, i % T == T - 1
        return b

    def decode(self, batch):
        failed = self.lib.llama_decode(self.context, batch)
        if failed:
            raise RuntimeError("llama_decode returns %d: %s"
                               % (failed, "".join(self.api.words[-3:])))

    def forget(self, sequence, pos0):
        """Takes what was decoded from pos0 on out of the cache."""
        lib, c = self.lib, C.c_void_p(self.context)
        if hasattr(lib, "llama_memory_seq_rm"):
            lib.llama_get_memory.restype = C.c_void_p
            lib.llama_memory_seq_rm(C.c_void_p(lib.llama_get_memory(c)), sequence, pos0, -1)
        elif hasattr(lib, "llama_kv_self_seq_rm"):
            lib.llama_kv_self_seq_rm(c, sequence, pos0, -1)
        else:
            lib.llama_kv_cache_seq_rm(c, sequence, pos0, -1)

    def logits(self, row, vocab):
        p = self.lib.llama_get_logits_ith(self.context, row)
        return np.ctypeslib.as_array(p, (vocab,)).copy()


def files(q, kind):
    """Paths of the model and of the adapters: made unless an arm before this one has made them. A
    file gets its name when it is whole."""
    def make(write, path, *args):
        if not os.path.exists(path):
            write(path + ".part", q, *args)
            os.rename(path + ".part", path)
    folder = os.environ.get("PB_PEER_FOLDER") or tempfile.mkdtemp(prefix="pedrobench-peer-")
    shape = "x".join(str(q[k]) for k in ("width", "ffn", "layers", "heads", "kv_heads", "vocab"))
    model = os.path.join(folder, "%s-%s.gguf" % (shape, kind))
    make(write_model, model, kind)
    adapters = [os.path.join(folder, "%s-lora%d.gguf" % (shape, i)) for i in range(q["adapters"])]
    for i, path in enumerate(adapters):
        make(write_adapter, path, i)
    return model, adapters


def prepare(q):
    library = Library(folder := peer.build_folder("PB_LLAMA_CPP", "--llama-cpp"))
    if q["work"] not in ("prefill", "decode") or q["weights"] not in TYPES:
        raise peer.Absent("it does not do %s in %s" % (q["work"], q["weights"]))
    if q["method"] not in ("base", "lora"):
        raise peer.Absent("it has no adapters of %s" % q["method"])
    kind = TYPES[q["weights"]]
    model, adapters = files(q, kind)
    S, T, context = q["sequences"], q["tokens"], q["context"]
    s = Session(library, model, S, context + T, S * max(T, context), q["threads"])
    for path in adapters:
        s.add_adapter(path)
    if adapters:
        s.switch(0)
    g = np.random.default_rng(2)
    tokens = g.integers(q["vocab"], size=(S, T))
    each = len(adapters) > 1
    if context:
        for i, row in enumerate(g.integers(q["vocab"], size=(S, context))):
            if each:
                s.switch(i)
            s.decode(s.batch(row[None], 0, i))
    batches = [s.batch(tokens[i:i + 1], context, i) for i in range(S)] if each else \
        [s.batch(tokens, context)]

    def run():
        for i, b in enumerate(batches):
            if each:
                s.switch(i)
            s.decode(b)
        for i in range(S):
            s.forget(i, context)
    run()
    ready = "llama.cpp %s, %s, %d threads, ubatch %d, F16 cache, %s" % (
        peer.commit(folder), kind, q["threads"], library.lib.llama_n_ubatch(s.context),
        library.features())
    return peer.timed(run), {"ready": ready}


if __name__ == "__main__":
    peer.serve(prepare)
