#!/usr/bin/env python3
"""The ladder of solvers: one storage format, one algorithm after the other, on the same data.

usage: ladder.py ONNXQ MODEL.onnx CALIBRATION EVALUATION [ROWS]

4-bit weights in blocks of 32 with integer zero points and float16 scales, head included, 8-bit
embeddings. Prints size, what `onnxq validate` says on EVALUATION, and CPU and wall seconds of
`onnxq quantize`, calibration included.
"""
import json, os, resource, subprocess, sys, tempfile, time

onnxq, model, calibration, evaluation = sys.argv[1:5]
rows = ["--samples", sys.argv[5]] if len(sys.argv) > 5 else []
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
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
with tempfile.TemporaryDirectory() as folder:
    recipe, out = os.path.join(folder, "r.yaml"), os.path.join(folder, "out.onnx")
    print("| solver | MB | KL mean | top-1 | SQNR dB | CPU s | wall s |\n| --- | --- | --- | --- | --- | --- | --- |")
    for name, solver, extra in LADDER:
        with open(recipe, "w") as file:
            file.write(RECIPE.format(solver=solver, extra=extra))
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
        quantize = [onnxq, "-q", "quantize", model, "-r", recipe, "-o", out, "-f"]
        subprocess.run(quantize + ["--calibration", calibration], check=True, stdout=subprocess.DEVNULL)
        wall, after = time.time() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        validate = [onnxq, "-q", "validate", model, out, "--data", evaluation, "--json"] + rows
        result = json.loads(subprocess.run(validate, check=True, capture_output=True).stdout)
        it = next(iter(result["comparison"]["outputs"].values()))
        size = result["comparison"]["size"]["candidate"] / 1e6
        kl = f"{it['kl']['mean']:.5f}" if it["kl"] else "-"
        top1 = f"{it['top1']:.4f}" if it["top1"] is not None else "-"
        print(f"| {name} | {size:.2f} | {kl} | {top1} | {it['sqnr_db']:.2f} | {cpu:.1f} | {wall:.1f} |", flush=True)
