#!/usr/bin/env python3
"""The ladder of solvers: one storage format, one algorithm after the other, on the same data.

usage: ladder.py ONNXQ MODEL.onnx CALIBRATION EVALUATION [ROWS]

4-bit weights in blocks of 32 with integer zero points and float16 scales, head included, 8-bit
embeddings. Prints size, what `onnxq validate` says on EVALUATION, and CPU and wall seconds of
`onnxq quantize`, calibration included.
"""
import os
import resource
import tempfile
import time

from common import SMOKE, arguments, figures, fixture, quantize, tokens


def smoke(onnxq, folder):
    ids = tokens(folder)
    return [onnxq, fixture("model.onnx"), ids, ids, 1]


onnxq, model, calibration, evaluation, *rows = arguments(smoke)
rows = ["--samples", rows[0]] if rows else []
RECIPE = """onnxq: 1
name: ladder
extends: int4
{extra}
quantize:
  - ops: [MatMul, Gemm]
    weight: {{symmetric: false, granularity: {{block: 32}}, scales: float16, solver: {solver}}}
  - ops: [Gather]
    min_elements: 4096
    weight: {{dtype: uint8, symmetric: true, granularity: {{block: 128}}, scales: float16, solver: mse}}
"""
LADDER = [
    ("rtn", "rtn", ""),
    ("mse", "mse", ""),
    ("hqq", "hqq", ""),
    ("imatrix", "imatrix", ""),
    ("awq + rtn", "rtn", "transforms: [{awq: {mul: true}}]"),
    ("gptq", "{gptq: {grid: rtn}}", ""),
    ("gptq + imatrix", "{gptq: {grid: imatrix}}", ""),
    ("gptq, sequential", "{gptq: {grid: rtn}}", "calibration: {sequential: true}"),
]
HEAD = "| solver | MB | KL mean | top-1 | SQNR dB | CPU s | wall s |\n| --- | --- | --- | --- | --- | --- | --- |"


def cpu_seconds():
    """Of all commands that have ended."""
    it = resource.getrusage(resource.RUSAGE_CHILDREN)
    return it.ru_utime + it.ru_stime


with tempfile.TemporaryDirectory() as folder:
    recipe, out = os.path.join(folder, "r.yaml"), os.path.join(folder, "out.onnx")
    print(HEAD)
    for name, solver, extra in LADDER[:2] + LADDER[-1:] if SMOKE else LADDER:
        with open(recipe, "w") as file:
            file.write(RECIPE.format(solver=solver, extra=extra))
        before, start = cpu_seconds(), time.time()
        quantize(onnxq, model, recipe, out, "--calibration", calibration)
        wall, cpu = time.time() - start, cpu_seconds() - before
        result = figures(onnxq, model, out, evaluation, *rows)
        output = next(iter(result["outputs"].values()))
        size = result["size"]["candidate"] / 1e6
        kl = f"{output['kl']['mean']:.5f}" if output["kl"] else "-"
        top1 = f"{output['top1']:.4f}" if output["top1"] is not None else "-"
        sqnr = output["sqnr_db"]
        print(f"| {name} | {size:.2f} | {kl} | {top1} | {sqnr:.2f} | {cpu:.1f} | {wall:.1f} |", flush=True)
