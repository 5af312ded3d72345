#!/usr/bin/env python3
"""Every form of `convert`, of models and of what recipes make of them, opened and run by ONNX Runtime.

usage: forms.py ONNXQ MODEL.onnx…

Each model is also quantized by three recipes, and by `avx2_static` where a `data.npz` lies beside it. Counts,
for each form: results that ran, nothing to do, refusals by name (an error code). What is neither is
printed, and is exit code 1: a crash, an error without a code, a result that ONNX Runtime refuses though
it runs the source. The first sample of `data.npz` is what runs; noise and ones without it.
"""
import collections
import os
import re
import subprocess
import sys
import tempfile

import numpy as np

from common import arguments, fixture, session

TO = ["float", "qdq", "qoperator", "matmul_nbits", "portable", "float16", "bfloat16"]
FORMS = [["--to", it] for it in TO] + [
    ["--to", "float16", "--keep-io"], ["--fuse"], ["--strip"], ["--opset", "21"], ["--opset", "26"],
    ["--external-data", "one-file"], ["--external-data", "inline"], ["--add-kv-cache"],
]
RECIPES = ["int4", "int8_weights", "avx512_vnni"]
DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(int64)": "int64", "tensor(int32)": "int32",
          "tensor(float16)": "float16", "tensor(bool)": "bool", "tensor(uint8)": "uint8"}


def feed(it, data):
    """A value for an input, or None if ONNX Runtime's Python has no such type."""
    if it.type not in DTYPES:
        return None
    if it.name in data:
        return data[it.name][:1].astype(DTYPES[it.type])
    opened = lambda axis: 1 if axis == 0 else (0 if "past" in it.name else 4)
    shape = [d if isinstance(d, int) else opened(axis) for axis, d in enumerate(it.shape)]
    if "float" in it.type or "double" in it.type:
        return np.random.default_rng(0).normal(0, 1, shape).astype(DTYPES[it.type])
    return np.ones(shape, DTYPES[it.type])


def runs(path, data):
    """Why a model does not run; None if it does."""
    try:
        model = session(path)
        feeds = {it.name: feed(it, data) for it in model.get_inputs()}
        # numpy has no bfloat16, and sequences come as lists.
        known = all("bfloat16" not in it.type for it in model.get_outputs())
        if known and all(it is not None for it in feeds.values()):
            model.run(None, feeds)
    except Exception as error:  # ONNX Runtime's errors have no common class.
        return str(error).splitlines()[0]


def sources(onnxq, path, folder):
    """The model, and what recipes make of it."""
    yield path
    beside = os.path.join(os.path.dirname(path), "data.npz")
    ways = [(it, []) for it in RECIPES]
    if os.path.exists(beside):
        ways.append(("avx2_static", ["--calibration", beside]))
    for recipe, flags in ways:
        output = os.path.join(folder, f"{recipe}.onnx")
        command = [onnxq, "-q", "quantize", path, "-r", recipe, "-f", "-o", output, *flags]
        if subprocess.run(command, capture_output=True).returncode == 0:
            yield output


def outcome(onnxq, source, form, data, folder):
    """What a conversion ends as, and whether that is a fault."""
    output = os.path.join(folder, "out.onnx")
    for it in os.listdir(folder):
        if it.startswith("out.onnx"):
            os.remove(os.path.join(folder, it))
    done = subprocess.run([onnxq, "-q", "convert", source, *form, "-f", "-o", output], capture_output=True, text=True)
    if done.returncode == 0:
        refused = runs(output, data)
        if refused is None:
            return "ran", False
        original = runs(source, data)
        return (f"refused: {refused}", True) if original is None else ("source does not run either", False)
    code = re.search(r"error\[(E\d+)\]", done.stderr)
    if done.returncode == 6:
        return "nothing to do", False
    is_named = code and done.returncode in (1, 2, 3, 4)
    return code[1] if is_named else f"exit {done.returncode}: {done.stderr[-200:].strip()}", not is_named


def main():
    onnxq, *models = arguments(lambda onnxq, _: [onnxq, fixture("model_dynamo.onnx")])
    counts, count, faults = collections.Counter(), 0, 0
    for path in models:
        beside = os.path.join(os.path.dirname(path), "data.npz")
        data = dict(np.load(beside)) if os.path.exists(beside) else {}
        with tempfile.TemporaryDirectory() as folder:
            for source in sources(onnxq, path, folder):
                count += 1
                for form in FORMS:
                    what, is_fault = outcome(onnxq, source, form, data, folder)
                    faults += is_fault
                    counts[" ".join(form), "FAULT" if is_fault else what] += 1
                    if is_fault:
                        print(f"{path} as {os.path.basename(source)}, {' '.join(form)}: {what}", flush=True)
    for (form, what), number in sorted(counts.items()):
        print(f"{form}: {what} {number}")
    print(f"{count} models, {faults} faults")
    sys.exit(faults > 0)


main()
