#!/usr/bin/env python3
"""Plants damage: multiplies the scales of one MatMulNBits by a factor, for `compare --layers --bisect` to find.

usage: damage.py QUANTIZED.onnx NODE FACTOR DAMAGED.onnx

NODE is a part of the node's name; the first node that has it is damaged.
"""
import numpy
import onnx
from onnx import numpy_helper

from common import arguments, quantized


def smoke(onnxq, folder):
    return [quantized(onnxq, folder), "q_proj", 1.5, f"{folder}/damaged.onnx"]


source, name, factor, target = arguments(smoke)
model = onnx.load(source)
constants = {it.name: it for it in model.graph.initializer}
makers = {output: node for node in model.graph.node for output in node.output}
node = next(it for it in model.graph.node if it.op_type == "MatMulNBits" and name in it.name)
scales = node.input[2]
while scales not in constants:
    scales = makers[scales].input[0]
values = numpy_helper.to_array(constants[scales])
damaged = (values.astype(numpy.float32) * float(factor)).astype(values.dtype)
constants[scales].CopyFrom(numpy_helper.from_array(damaged, scales))
onnx.save(model, target)
print("damaged", node.name)
