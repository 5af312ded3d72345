#!/usr/bin/env python3
"""What `onnxq validate` takes, against the bare runs of both models in ONNX Runtime on the same data.

usage: overhead.py ONNXQ REFERENCE CANDIDATE IDS.npy [ROUNDS [FLAG…]]

The denominator is the seconds inside `InferenceSession.run` alone (one thread, batches of four as
`validate` makes them, all outputs), without loading; the numerator the wall time of the whole
command, with loading, figures, times and gates. FLAGs go to `validate` (none: its defaults). Rounds
alternate; the ratio is that of the medians.
"""
import os
import statistics
import subprocess
import sys
import time

import numpy
import onnxruntime

onnxq, reference, candidate, ids_path = sys.argv[1:5]
rounds = int(sys.argv[5]) if len(sys.argv) > 5 else 3
flags = sys.argv[6:]
ids = numpy.load(ids_path)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feed(session, rows):
    made = {
        "input_ids": rows,
        "attention_mask": numpy.ones_like(rows),
        "token_type_ids": numpy.zeros_like(rows),
        "position_ids": numpy.broadcast_to(numpy.arange(rows.shape[1]), rows.shape).copy(),
    }
    types = {"tensor(int64)": numpy.int64, "tensor(int32)": numpy.int32}
    return {it.name: made[it.name].astype(types[it.type]) for it in session.get_inputs()}


def bare(sessions):
    seconds = 0.0
    for at in range(0, len(ids), 4):
        for session in sessions:
            inputs = feed(session, ids[at : at + 4])
            start = time.perf_counter()
            session.run(None, inputs)
            seconds += time.perf_counter() - start
    return seconds


sessions = [session(it) for it in (reference, candidate)]
command = [onnxq, "validate", reference, candidate, "--data", ids_path, "--json", *flags]
of_runs, of_command = [], []
for _ in range(rounds):
    of_runs.append(bare(sessions))
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                   env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"})
    of_command.append(time.perf_counter() - start)
    print(f"runs {of_runs[-1]:.2f} s, validate {of_command[-1]:.2f} s", flush=True)
ratio = statistics.median(of_command) / statistics.median(of_runs)
print(f"{len(ids)} samples of {ids.shape[1]} tokens: validate takes {ratio:.2f} times the runs")
