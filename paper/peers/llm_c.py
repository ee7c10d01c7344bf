#!/usr/bin/env python3
"""llm.c as a peer of `pedrobench bench`: training steps of all weights, in fp32, on the processor.

Runs the program test_gpt2 of a build whose folder PB_LLM_C names (its Makefile makes it): it reads
geometry and batch from its two files, takes ten steps of forward, backward and AdamW, and prints a
line after each. This script writes those files with random weights and tokens (what the program
compares its results with is zeros, so it finds them wrong: only time is of interest here) and takes
the time between lines, from the first one on.

llm.c trains GPT-2, not LLaMA: LayerNorm with biases, learned positions, GELU between two matrices
of four times the width where LLaMA has SwiGLU between three. With ffn = 8/3 width, which geometries
A and B have, both have as many weights in matrices and need as many FLOPs; the answer holds those of
GPT-2. It is slow, so a large batch is cut to some of its sequences and the time multiplied; AdamW,
which does not grow with rows, is a hundredth of it. Protocol: harness/bench/peer.h.

Usage: echo REQUEST | PB_LLM_C=DIR llm_c.py
"""
import os
import pty
import signal
import subprocess
import sys
import tempfile
import time

import peer

try:
    import numpy as np
except ImportError:
    peer.not_installed("python3-numpy")

STEPS = 10  # of a run of the program, the first one not timed
MOST_ROWS = 512


def flops(q):
    """Of a step: 2 per weight and row forward, 4 backward; scores and values of causal attention,
    2 each per pair of positions and channel."""
    C, L, T = q["width"], q["layers"], q["tokens"]
    rows = q["sequences"] * T
    pairs = q["sequences"] * T * (T + 1) / 2
    return 6.0 * rows * (12 * L * C * C + q["vocab"] * C) + 3 * L * 4.0 * pairs * C


def write_files(folder, q):
    C, L, V, T = q["width"], q["layers"], q["vocab"], q["tokens"]
    padded = -(-V // 128) * 128
    g = np.random.default_rng(1)
    shapes = [(padded, C), (T, C)]  # wte, wpe
    for shape in ((C,), (C,), (3 * C, C), (3 * C,), (C, C), (C,), (C,), (C,), (4 * C, C), (4 * C,),
                  (C, 4 * C), (C,)):
        shapes.append((L,) + shape)
    shapes += [(C,), (C,)]
    head = np.zeros(256, "<i4")
    head[:8] = 20240326, 3, T, V, L, q["heads"], C, padded
    n = 0
    with open(os.path.join(folder, "gpt2_124M.bin"), "wb") as f:
        f.write(head.tobytes())
        for shape in shapes:
            f.write((0.02 * g.standard_normal(shape, np.float32)).astype("<f4").tobytes())
            n += int(np.prod(shape))
    head = np.zeros(256, "<i4")
    head[:4] = 20240327, 2, q["sequences"], T
    rows = q["sequences"] * T
    with open(os.path.join(folder, "gpt2_124M_debug_state.bin"), "wb") as f:
        f.write(head.tobytes())
        f.write(g.integers(V, size=2 * rows).astype("<i4").tobytes())
        f.truncate(f.tell() + 4 * (rows * V + 1 + n))  # zeros: logits, loss, gradients


class Program:
    """One run of it. Its lines come through a terminal, to which it prints without delay."""

    def __init__(self, path, folder, threads):
        master, slave = pty.openpty()
        env = dict(os.environ, OMP_NUM_THREADS=str(threads))
        self.process = subprocess.Popen([path], cwd=folder, stdin=subprocess.DEVNULL, stdout=slave,
                                        stderr=slave, env=env)
        os.close(slave)
        self.out = os.fdopen(master, "rb", 0)
        self.text = self.last = b""

    def step(self):
        """Waits for the line behind a step and returns the time."""
        while True:
            line, end, rest = self.text.partition(b"\n")
            if end:
                self.text = rest
                if line.startswith(b"step "):
                    return time.perf_counter()
                self.last = line
                continue
            try:
                more = self.out.read(4096)
            except OSError:  # the program has ended
                more = b""
            if not more:
                raise RuntimeError("test_gpt2 has ended early: %s"
                                   % (self.text or self.last).decode(errors="replace").strip())
            self.text += more

    def end(self):
        self.process.kill()
        self.process.wait()
        self.out.close()


def prepare(q):
    folder = peer.build_folder("PB_LLM_C", "--llm-c")
    path = os.path.abspath(os.path.join(folder, "test_gpt2"))
    if not os.access(path, os.X_OK):
        raise peer.Absent("%s has no program test_gpt2" % folder)
    if q["work"] != "train" or q["method"] != "full" or q["weights"] != "fp32":
        raise peer.Absent("it trains all weights in fp32 and does nothing else")
    if q["heads"] != q["kv_heads"]:
        raise peer.Absent("it has no grouped queries")
    part = dict(q, sequences=max(1, min(q["sequences"], MOST_ROWS // q["tokens"])))
    times = q["sequences"] / part["sequences"]
    files = tempfile.mkdtemp(prefix="llm.c-", dir=os.environ.get("PB_PEER_FOLDER"))
    write_files(files, part)

    def steps(n):
        """Seconds of n steps behind the first one."""
        program = Program(path, files, q["threads"])
        try:
            begin = end = program.step()
            for _ in range(n):
                end = program.step()
        finally:
            program.end()
        return end - begin

    def sample(warm, runs):
        seconds = 0.0
        while runs:
            n = min(runs, STEPS - 1)
            seconds += steps(n)
            runs -= n
        return seconds * times
    steps(0)
    return sample, {"ready": "llm.c %s, GPT-2 of %d layers and width %d, fp32, %d threads, "
                             "%d x %d rows, time x %g"
                    % (peer.commit(folder), q["layers"], q["width"], q["threads"],
                       part["sequences"], q["tokens"], times), "flops": times * flops(part)}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # not without ending the program
    peer.serve(prepare)
