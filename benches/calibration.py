#!/usr/bin/env python3
"""Ranges of activations: `onnxq calibrate --observer` against onnxruntime's own calibration.

usage: calibration.py ONNXQ MODEL IDS.npy [SAMPLES [FEW]]

onnxruntime keeps every activation of every sample until its histograms are made, so both tools get
FEW samples (default 16) for the ratio, and ours SAMPLES (default 512) for time and memory: the
rows of IDS.npy, and again with their tokens shuffled, until there are enough. All masks are 1.
Both sides are processes of their own, and start with loading the model. (Linux)
"""
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy

from common import arguments, fixture, tokens


def folder_of(ids, path):
    path.mkdir()
    numpy.save(path / "input_ids.npy", ids)
    numpy.save(path / "attention_mask.npy", numpy.ones_like(ids))
    return str(path)


def rows(ids, count):
    random, list = numpy.random.default_rng(1), [ids]
    while sum(map(len, list)) < count:
        list.append(random.permuted(ids, axis=1))
    return numpy.concatenate(list)[:count]


def run(command):
    """Output, seconds of wall and of all processors, and peak anonymous memory in MB."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE)
        peak = 0
        while process.poll() is None:
            try:
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                    if line.startswith("RssAnon"):
                        peak = max(peak, int(line.split()[1]) * 1024)
            except OSError:
                pass
            time.sleep(0.005)
        wall, after = time.time() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if process.returncode:
            sys.exit(f"{command}: {process.stderr.read().decode()}")
        output.seek(0)
        text = output.read()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return text, wall, cpu, peak / 1e6


def ours(onnxq, model, folder, *more, observer="entropy"):
    command = [onnxq, "calibrate", model, "--observer", observer, "--data", folder, "--json", "-q"]
    return run(command + list(more))


def theirs(model, folder, method):
    """In a process of its own: the number of values that onnxruntime has ranges for."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator
    import onnx

    arrays = {it.stem: numpy.load(it) for it in Path(folder).glob("*.npy")}
    names = [it.name for it in onnx.load(model, load_external_data=False).graph.input]
    if "token_type_ids" in names:
        arrays["token_type_ids"] = numpy.zeros_like(arrays["input_ids"])

    class Reader(CalibrationDataReader):
        at = 0

        def get_next(self):
            if self.at >= len(arrays["input_ids"]):
                return None
            self.at += 1
            return {name: arrays[name][self.at - 1 : self.at] for name in names}

    with tempfile.TemporaryDirectory() as place:
        calibrator = create_calibrator(
            model,
            ["MatMul", "Gemm", "Conv"],
            augmented_model_path=f"{place}/augmented.onnx",
            calibrate_method=CalibrationMethod[method],
        )
        calibrator.collect_data(Reader())
        print(len(calibrator.compute_data().data))


def main(onnxq, model, ids, samples=512, few=16):
    ids = numpy.load(ids)
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        small = folder_of(rows(ids, int(few)), place / "small")
        large = folder_of(rows(ids, int(samples)), place / "large")
        order = numpy.random.default_rng(2).permutation(int(few))
        mixed = folder_of(rows(ids, int(few))[order], place / "mixed")
        print(f"{few} samples           values   wall s    CPU s   MB")
        for observer in ("Entropy", "Percentile"):
            command = [sys.executable, __file__, "--theirs", model, small, observer]
            text, wall, cpu, peak = run(command)
            print(f"onnxruntime {observer:10} {int(text.split()[-1]):7} {wall:8.2f} {cpu:8.2f} {peak:6.0f}")
            text, own, own_cpu, peak = ours(onnxq, model, small, observer=observer.lower())
            count = len(json.loads(text))
            print(f"onnxq       {observer:10} {count:7} {own:8.2f} {own_cpu:8.2f} {peak:6.0f}")
            print(f"onnxruntime / onnxq: {wall / own:.1f} wall, {cpu / own_cpu:.1f} CPU")
        expected = ours(onnxq, model, small)[0]
        for what, folder, more in (
            ("1 thread", small, ["--threads", "1"]),
            ("2 threads", small, ["--threads", "2"]),
            ("other order", mixed, []),
            ("passes of 64 MiB", small, ["--memory", "64MiB"]),
        ):
            same = ours(onnxq, model, folder, *more)[0] == expected
            print(f"{what}: {'equal' if same else 'DIFFERENT'}")
        for observer in ("percentile", "entropy", "mse"):
            _, wall, cpu, peak = ours(onnxq, model, large, observer=observer)
            print(f"{samples} samples, {observer}: {wall:.1f} s, {cpu:.1f} s CPU, {peak:.0f} MB")


if __name__ == "__main__":
    if sys.argv[1] == "--theirs":
        theirs(*sys.argv[2:])
    else:
        main(*arguments(lambda onnxq, it: [onnxq, fixture("model.onnx"), tokens(it), 2, 1]))
