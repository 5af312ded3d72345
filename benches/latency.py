#!/usr/bin/env python3
"""Thread CPU time of language models in ONNX Runtime, one run each in turn, one thread.

usage: latency.py IDS.npy FIRST.onnx OTHER.onnx ...   With one thread ONNX Runtime works in the
calling thread, so other processes on the machine hardly disturb this clock.
"""
import time

import numpy as np

from common import arguments, fixture, rounds, session, text_inputs

TYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32}


def feed(it, ids):
    known = text_inputs(ids)

    def empty(i):
        dims = [len(ids) if k == 0 else (d if isinstance(d, int) else 0) for k, d in enumerate(i.shape)]
        return np.zeros(dims, TYPES[i.type])
    return {i.name: known[i.name] if i.name in known else empty(i) for i in it.get_inputs()}


ids, *paths = arguments(lambda onnxq, folder: [*map(fixture, ("eval_ids.npy", "model.onnx"))])
ids = np.load(ids)
sessions = [session(it) for it in paths]
for length in (128, 16):
    feeds = [feed(it, ids[:1, :length]) for it in sessions]
    times = [[] for _ in sessions]
    for turn in range(rounds(60) + 4):
        for k, it in enumerate(sessions):
            start = time.thread_time()
            it.run(None, feeds[k])
            if turn >= 4:
                times[k].append(time.thread_time() - start)
    times = np.array(times) * 1e3
    for k, path in enumerate(paths):
        ratio, best = np.median(times[0] / times[k]), times[0].min() / times[k].min()
        print(f"1x{length} {path}: median {np.median(times[k]):.2f} ms, speed x{ratio:.3f} (of minima x{best:.3f})")
