#!/usr/bin/env python3
"""What `onnxq validate` takes, against the bare runs of both models in ONNX Runtime on the same data.

usage: overhead.py ONNXQ REFERENCE CANDIDATE IDS.npy [ROUNDS [FLAG…]]

The denominator is the seconds inside `InferenceSession.run` alone (one thread, batches of four as
`validate` makes them, all outputs), without loading; the numerator the wall time of the whole
command, with loading, figures, times and gates. FLAGs go to `validate` (none: its defaults). Rounds
alternate; the ratio is that of the medians.
"""
import statistics
import subprocess
import time

import numpy

from common import arguments, fixture, quantized, session, text_inputs, tokens


def smoke(onnxq, folder):
    return [onnxq, fixture("model.onnx"), quantized(onnxq, folder), tokens(folder), 1]


onnxq, reference, candidate, ids_path, *more = arguments(smoke)
rounds = int(more[0]) if more else 3
flags = more[1:]
ids = numpy.load(ids_path)


def feed(session, rows):
    made = text_inputs(rows)
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
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    of_command.append(time.perf_counter() - start)
    print(f"runs {of_runs[-1]:.2f} s, validate {of_command[-1]:.2f} s", flush=True)
ratio = statistics.median(of_command) / statistics.median(of_runs)
print(f"{len(ids)} samples of {ids.shape[1]} tokens: validate takes {ratio:.2f} times the runs")
