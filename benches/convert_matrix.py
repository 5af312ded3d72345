"""Every quantized file in every form that `onnxq convert --to` knows, compared in ONNX Runtime.

usage: convert_matrix.py ONNXQ IDS.npy FILE.onnx…

For each pair: what was converted, what stayed and why, and how far the outputs are from those of
the file itself: largest and mean difference, and the relative L2 error, once as ONNX Runtime runs
both models and once without its fusions and with accuracy_level 0, which computes MatMulNBits in
float ("exact"). What is left there is the form's own rounding.
"""
import json
import os
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime as ort

from common import arguments, quantized, text_inputs, tokens

FORMS = ["float", "qdq", "qoperator", "matmul_nbits", "portable"]
ROWS, LENGTH = 4, 64


def session(path, exact):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if exact:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        model = onnx.load(path)
        for node in model.graph.node:
            for it in node.attribute:
                if it.name == "accuracy_level":
                    it.i = 0
        path = model.SerializeToString()
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def outputs(path, ids, exact):
    s = session(path, exact)
    made = text_inputs(ids[:ROWS, :LENGTH])
    feeds = {it.name: made[it.name] for it in s.get_inputs()}
    return [it.astype(np.float64) for it in s.run(None, feeds)]


def difference(a, b):
    a, b = (np.concatenate([it.ravel() for it in x]) for x in (a, b))
    d = np.abs(a - b)
    return d.max(), d.mean(), np.linalg.norm(a - b) / np.linalg.norm(a)


def convert(onnxq, source, form, path):
    command = [onnxq, "-q", "--json", "convert", source, "--to", form, "-o", path]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 6):
        return None, done.stderr.strip().replace("\n", " ")
    step = next(it for it in json.loads(done.stdout)["steps"] if it["step"] == form)
    return step, None


def main():
    onnxq, ids, *sources = arguments(lambda onnxq, it: [onnxq, tokens(it), quantized(onnxq, it)])
    ids = np.load(ids)
    print("| file | to | changed | max | mean | relative | exact: relative | left |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for source in sources:
        own = {exact: outputs(source, ids, exact) for exact in (False, True)}
        # What ONNX Runtime's fusions alone do to this file: no conversion can be held to less.
        top, mean, relative = difference(own[False], own[True])
        name = os.path.basename(source).removesuffix(".onnx")
        print(f"| {name} | itself, unfused | | {top:.2g} | {mean:.2g} | {relative:.2g} | | |")
        for form in FORMS:
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "out.onnx")
                step, error = convert(onnxq, source, form, path)
                if step is None:
                    print(f"| {name} | {form} | FAILED: {error} |")
                    continue
                left = {}
                for it in step["left"]:
                    key = f"{it['op']}: {it['reason']}"
                    left[key] = left.get(key, 0) + 1
                left = "; ".join(f"{n} × {it}" for it, n in left.items())
                if not os.path.exists(path):
                    print(f"| {name} | {form} | 0 | | | | | {left or 'has this form'} |")
                    continue
                try:
                    top, mean, relative = difference(own[False], outputs(path, ids, False))
                    exact = difference(own[True], outputs(path, ids, True))[2]
                except Exception as error:
                    print(f"| {name} | {form} | {step['changed']} | RUNTIME: {str(error)[:300]} |")
                    continue
                print(f"| {name} | {form} | {step['changed']} | {top:.2g} | {mean:.2g} "
                      f"| {relative:.2g} | {exact:.2g} | {left} |", flush=True)


main()
