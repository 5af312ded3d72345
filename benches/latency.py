#!/usr/bin/env python3
"""Thread CPU time of language models in ONNX Runtime, one run each in turn, one thread.

usage: latency.py IDS.npy FIRST.onnx OTHER.onnx ...   With one thread ONNX Runtime works in the
calling thread, so other processes on the machine hardly disturb this clock.
"""
import sys
import time

import numpy as np
import onnxruntime as ort

TYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32}


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feed(it, ids):
    batch, length = ids.shape
    known = {
        "input_ids": lambda: ids.astype(np.int64),
        "attention_mask": lambda: np.ones((batch, length), np.int64),
        "token_type_ids": lambda: np.zeros((batch, length), np.int64),
        "position_ids": lambda: np.arange(length, dtype=np.int64)[None],
    }
    def empty(i):
        dims = [batch if k == 0 else (d if isinstance(d, int) else 0) for k, d in enumerate(i.shape)]
        return np.zeros(dims, TYPES[i.type])
    return {i.name: known.get(i.name, lambda i=i: empty(i))() for i in it.get_inputs()}


ids, paths = np.load(sys.argv[1]), sys.argv[2:]
sessions = [session(it) for it in paths]
for length in (128, 16):
    feeds = [feed(it, ids[:1, :length]) for it in sessions]
    times = [[] for _ in sessions]
    for round in range(64):
        for k, it in enumerate(sessions):
            start = time.thread_time()
            it.run(None, feeds[k])
            if round >= 4:
                times[k].append(time.thread_time() - start)
    times = np.array(times) * 1e3
    for k, path in enumerate(paths):
        ratio, best = np.median(times[0] / times[k]), times[0].min() / times[k].min()
        print(f"1x{length} {path}: median {np.median(times[k]):.2f} ms, speed x{ratio:.3f} (of minima x{best:.3f})")
