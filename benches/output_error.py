#!/usr/bin/env python3
"""Squared error of every weight's output on inputs the solver never saw, against another solver's.

usage: output_error.py ORIGINAL.onnx SOLVED.onnx BASE.onnx IDS.npy [ROWS]

For each com.microsoft.MatMulNBits of SOLVED: x is the input of the MatMul of the same name in
ORIGINAL, run on IDS; prints sum |x (W' - W)|^2 / sum |x W|^2 for both, and their ratio.
"""
import numpy as np
import onnx
from onnx import numpy_helper as nh

from common import arguments, fixture, quantized, session, text_inputs, tokens


def smoke(onnxq, folder):
    solved = quantized(onnxq, folder)
    return [fixture("model.onnx"), solved, solved, tokens(folder)]


original, solved, base, ids, *rows = arguments(smoke)
rows = int(rows[0]) if rows else 64


def constants(graph):
    values = {it.name: it for it in graph.initializer}
    # Scales are cast; a weight beside them is behind an Identity.
    behind = {n.output[0]: n.input[0] for n in graph.node if n.op_type in ("Cast", "Identity")}
    return lambda name: nh.to_array(values[behind.get(name, name)])


def dequantized(path):
    """Node name -> [k, n]."""
    graph = onnx.load(path).graph
    constant, out = constants(graph), {}
    for node in graph.node:
        if node.op_type != "MatMulNBits":
            continue
        attrs = {it.name: it.i for it in node.attribute}
        k, n, bits, block = attrs["K"], attrs["N"], attrs["bits"], attrs["block_size"]
        blocks, per = -(-k // block), 8 // bits
        unpack = lambda b, width: np.stack(
            [(b >> (bits * i)) & ((1 << bits) - 1) for i in range(per)], -1
        ).reshape(n, -1)[:, :width]
        codes = unpack(constant(node.input[1]).reshape(n, -1), blocks * block)
        scales = constant(node.input[2]).astype(np.float64).reshape(n, blocks)
        zeros = np.full((n, blocks), 1 << (bits - 1))
        if len(node.input) > 3 and node.input[3]:
            zeros = unpack(constant(node.input[3]).reshape(n, -1), blocks)
        w = (codes.reshape(n, blocks, block).astype(np.float64) - zeros[:, :, None]) * scales[:, :, None]
        out[node.name] = w.reshape(n, -1)[:, :k].T
    return out


a, b = dequantized(solved), dequantized(base)
model = onnx.load(original)
constant = constants(model.graph)
sites = {n.name: n for n in model.graph.node if n.name in a}
taps = sorted({n.input[0] for n in sites.values()})
del model.graph.output[:]
model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(it) for it in taps)
tapped = session(model.SerializeToString(), threads=0)
moments = {}
data = np.load(ids)[:rows]
for at in range(0, len(data), 4):
    made = text_inputs(data[at : at + 4])
    feed = {it.name: made[it.name] for it in tapped.get_inputs()}
    for name, value in zip(taps, tapped.run(None, feed)):
        v = value.reshape(-1, value.shape[-1]).astype(np.float64)
        moments[name] = moments.get(name, 0) + v.T @ v
ratios = []
for name, node in sites.items():
    h, w = moments[node.input[0]], constant(node.input[1]).astype(np.float64)
    error = lambda q: np.einsum("kn,kl,ln->", q - w, h, q - w, optimize=True) / np.einsum(
        "kn,kl,ln->", w, h, w, optimize=True
    )
    one, two = error(a[name]), error(b[name])
    ratios.append(one / two)
    print(f"{one:.3e} {two:.3e} squared x{one / two:.3f} norm x{(one / two) ** 0.5:.3f} {name}")
r = np.array(ratios)
norm = np.sqrt(r)
print(f"{len(r)} weights: squared <= 0.5: {np.mean(r <= 0.5):.1%}, median {np.median(r):.3f}, worst {r.max():.3f}")
print(f"{len(r)} weights: norm    <= 0.5: {np.mean(norm <= 0.5):.1%}, median {np.median(norm):.3f}, worst {norm.max():.3f}")
