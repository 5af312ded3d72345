#!/usr/bin/env python3
"""Thread CPU time of decoders with a KV cache in ONNX Runtime, one run each in turn, one thread.

usage: decode.py FIRST.onnx OTHER.onnx ... [--past 128,1024] [--prefill 16,128] [--rounds N]
One token after each of the pasts, and whole prompts without one; speeds are relative to FIRST.
With one thread ONNX Runtime works in the calling thread, so other processes hardly disturb this
clock. Tokens and caches are random: only time counts here.
"""
import argparse
import time

import numpy as np

from common import arguments, fixture, session

TYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32, "tensor(float16)": np.float16,
         "tensor(int8)": np.int8}
parser = argparse.ArgumentParser()
parser.add_argument("models", nargs="+")
parser.add_argument("--past", default="128,1024")
parser.add_argument("--prefill", default="16,128")
parser.add_argument("--rounds", type=int, default=40)
SHORT = ["--past", "4", "--prefill", "4", "--rounds", "1"]
args = parser.parse_args(arguments(lambda onnxq, folder: [fixture("model_with_past.onnx"), *SHORT]))


def feed(it, tokens, past):
    random = np.random.default_rng(0)
    known = {
        "input_ids": random.integers(0, 1000, (1, tokens)),
        "attention_mask": np.ones((1, past + tokens), np.int64),
        "position_ids": np.arange(past, past + tokens)[None],
    }

    def cache(i):
        shape = (1, i.shape[1], past, i.shape[3])
        return (random.standard_normal(shape) * (20 if "int8" in i.type else 0.3)).astype(TYPES[i.type])

    return {i.name: known[i.name] if i.name in known else cache(i) for i in it.get_inputs()}


sessions = [session(it) for it in args.models]
cases = [(1, int(it)) for it in args.past.split(",") if it]
cases += [(int(it), 0) for it in args.prefill.split(",") if it]
for tokens, past in cases:
    feeds = [feed(it, tokens, past) for it in sessions]
    times = [[] for _ in sessions]
    for turn in range(args.rounds + 3):
        for k, it in enumerate(sessions):
            start = time.thread_time()
            it.run(None, feeds[k])
            if turn >= 3:
                times[k].append(time.thread_time() - start)
    times = np.array(times) * 1e3
    print(f"{tokens} token(s) after {past}")
    for k, path in enumerate(args.models):
        speed = np.median(times[0] / times[k])
        print(f"  {np.median(times[k]):9.3f} ms  x{speed:.3f}  {path}")
