#!/usr/bin/env python3
"""Compares onnxq's MatMulNBits weights with those of onnxruntime's MatMulNBitsQuantizer, byte by byte.

usage: nbits_exact.py path/to/onnxq MODEL.onnx [MODEL.onnx ...] [--half]   (--half: float16 weights)
"""
import argparse
import logging
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import matmul_nbits_quantizer as nbits

from common import SMOKE, arguments, fixture

logging.disable(logging.CRITICAL)
args = argparse.ArgumentParser()
args.add_argument("onnxq")
args.add_argument("models", nargs="+")
args.add_argument("--half", action="store_true")
args = args.parse_args(arguments(lambda onnxq, folder: [onnxq, fixture("model.onnx")]))
# Rounded to nearest everywhere, as onnxruntime does.
ROUNDED = os.path.join(os.path.dirname(__file__), "../tests/filetests/formats/blocks.yaml")
BITS, BLOCKS = ((4,), (32,)) if SMOKE else ((4, 8), (32, 128))


def halved(model):
    """Every MatMul weight as float16 behind a fresh float16 input: only the weights count here."""
    inits = {it.name: it for it in model.graph.initializer}
    weights = [n.input[1] for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in inits]
    nodes, inputs, outputs, kept = [], [], [], []
    for i, name in enumerate(dict.fromkeys(weights)):
        w = numpy_helper.to_array(inits[name]).astype(np.float16)
        kept.append(numpy_helper.from_array(w, name))
        nodes.append(onnx.helper.make_node("MatMul", [f"x{i}", name], [f"y{i}"], name=f"n{i}"))
        info = onnx.helper.make_tensor_value_info
        inputs.append(info(f"x{i}", TensorProto.FLOAT16, ["m", w.shape[0]]))
        outputs.append(info(f"y{i}", TensorProto.FLOAT16, ["m", w.shape[1]]))
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs, kept)
    opsets = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


def table(model):
    inits = {it.name: it for it in model.graph.initializer}
    rows = {}
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            parts = [numpy_helper.to_array(inits[it]) for it in node.input[1:4] if it]
            rows.setdefault(node.output[0], parts)
    return rows


total = differing = 0
for path in args.models:
    with tempfile.TemporaryDirectory() as folder:
        source = path
        if args.half:
            source = os.path.join(folder, "half.onnx")
            onnx.save(halved(onnx.load(path)), source)
        for bits in BITS:
            for block in BLOCKS:
                for symmetric in (True, False):
                    out = os.path.join(folder, "out.onnx")
                    settings = [
                        f"quantize.0.weight.dtype=uint{bits}",
                        f"quantize.0.weight.granularity.block={block}",
                        f"quantize.0.weight.symmetric={str(symmetric).lower()}",
                    ]
                    command = [args.onnxq, "-q", "quantize", source, "-r", ROUNDED, "-f", "-o", out]
                    for it in settings:
                        command += ["--set", it]
                    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                    ours = table(onnx.load(out))
                    q = nbits.MatMulNBitsQuantizer(
                        onnx.load(source), bits=bits, block_size=block,
                        is_symmetric=symmetric, accuracy_level=4)
                    q.process()
                    theirs = table(q.model.model)
                    assert len(ours) == len(theirs) > 0, (len(ours), len(theirs))
                    count = wrong = 0
                    for name, parts in theirs.items():
                        assert len(parts) == len(ours[name]), name
                        for a, b in zip(ours[name], parts):
                            a, b = (np.frombuffer(it.tobytes(), np.uint8) for it in (a, b))
                            assert a.size == b.size, name
                            count += a.size
                            wrong += int((a != b).sum())
                    kind = "sym" if symmetric else "asym"
                    print(f"{path} {bits} bits block {block} {kind}: {wrong} of {count} bytes differ, {len(theirs)} weights", flush=True)
                    total += count
                    differing += wrong
print(f"{differing} of {total} bytes differ")
sys.exit(differing != 0)
