#!/usr/bin/env python3
"""What `convert --fuse` makes of language models, and how far their outputs move.

usage: fused.py ONNXQ IDS.npy MODEL.onnx ...
Runs each model before and after on real tokens: single ones, whole prompts, batches, padding on the
left and on the right, and after a past where the model has a cache. Differences are absolute, of
logits at tokens that are no padding and of everything that the model returns.
"""
import collections
import os
import subprocess
import tempfile

import numpy as np
import onnx

from common import arguments, fixture, session

FILES = ["eval_ids.npy", "model.onnx", "model_with_past.onnx"]
ONNXQ, IDS, *MODELS = arguments(lambda onnxq, folder: [onnxq, *map(fixture, FILES)])
IDS = np.load(IDS)


def feed(it, batch, length, past, pad):
    random, values = np.random.default_rng(1), {}
    mask = np.ones((batch, length + past), np.int64)
    if pad == "left":
        mask[-1, :2] = 0
    if pad == "right":
        mask[-1, -2:] = 0
    for i in it.get_inputs():
        if i.name == "input_ids":
            values[i.name] = IDS[:batch, :length].astype(np.int64)
        elif i.name == "attention_mask":
            values[i.name] = mask
        elif i.name == "token_type_ids":
            values[i.name] = np.zeros((batch, length), np.int64)
        elif i.name == "position_ids":
            values[i.name] = np.tile(np.arange(past, past + length), (batch, 1))
        else:
            shape = (batch, i.shape[1], past, i.shape[3])
            values[i.name] = (random.standard_normal(shape) * 0.3).astype(np.float32)
    return values, mask[:, past:].astype(bool)


for path in MODELS:
    with tempfile.TemporaryDirectory() as folder:
        fused = os.path.join(folder, "fused.onnx")
        subprocess.run([ONNXQ, "-q", "convert", path, "--fuse", "-o", fused], check=True, stdout=subprocess.DEVNULL)
        counts = [collections.Counter(n.op_type for n in onnx.load(it, load_external_data=False).graph.node)
                  for it in (path, fused)]
        before, after = session(path, threads=0), session(fused, threads=0)
        names = lambda it: [[v.name for v in it.get_inputs()], [v.name for v in it.get_outputs()]]
        assert names(before) == names(after), "inputs or outputs changed their names"
        cases = [(1, 1, 0, ""), (1, 16, 0, ""), (2, 128, 0, ""), (2, 9, 0, "left"), (2, 9, 0, "right")]
        if any("past" in i.name for i in before.get_inputs()):
            cases += [(1, 1, 128, ""), (2, 5, 7, ""), (2, 1, 7, "left")]
        seen = whole = 0.0
        for case in cases:
            values, real = feed(before, *case)
            a, b = before.run(None, values), after.run(None, values)
            seen = max(seen, float(np.abs(a[0] - b[0])[real].max()))
            whole = max([whole] + [float(np.abs(x - y).max()) for x, y in zip(a, b)])
        fusions = ["Attention", "RotaryEmbedding", "RMSNormalization", "LayerNormalization", "QuickGelu", "Gelu"]
        shown = " · ".join(f"{counts[1][it]} {it}" for it in fusions if counts[1][it])
        print(f"{path}: {counts[0].total()} → {counts[1].total()} nodes; {shown}")
        print(f"  max |Δ| of logits {seen:.2e}, of all outputs, padding included, {whole:.2e} ({len(cases)} runs)")
