#!/usr/bin/env python3
"""Writes a checkpoint of Phi-3-mini's shape: 3.8 billion random parameters in bfloat16, 7.6 GB in two files.

usage: large_checkpoint.py FOLDER [HIDDEN INNER LAYERS VOCABULARY]      (default: 3072 8192 32 32064)

To see what a large model costs: `peak.py onnxq quantize FOLDER -r int4 -o out.onnx`.
"""
import json
import os
import struct

import numpy as np

from common import arguments

folder, *sizes = arguments(lambda onnxq, folder: [folder, 64, 128, 2, 256])
hidden, inner, layers, vocabulary = [int(it) for it in sizes] or [3072, 8192, 32, 32064]
os.makedirs(folder, exist_ok=True)
config = {
    "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_size": hidden, "intermediate_size": inner,
    "num_hidden_layers": layers, "num_attention_heads": 32, "num_key_value_heads": 32, "hidden_act": "silu",
    "max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "rope_scaling": None, "sliding_window": 2047, "vocab_size": vocabulary,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "eos_token_id": 2, "pad_token_id": 2,
}
with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
    json.dump(config, file, indent=1)

tensors = [("model.embed_tokens.weight", [vocabulary, hidden])]
for layer in range(layers):
    name = f"model.layers.{layer}."
    tensors += [
        (name + "input_layernorm.weight", [hidden]), (name + "self_attn.qkv_proj.weight", [3 * hidden, hidden]),
        (name + "self_attn.o_proj.weight", [hidden, hidden]), (name + "post_attention_layernorm.weight", [hidden]),
        (name + "mlp.gate_up_proj.weight", [2 * inner, hidden]), (name + "mlp.down_proj.weight", [hidden, inner]),
    ]
tensors += [("model.norm.weight", [hidden]), ("lm_head.weight", [vocabulary, hidden])]

random = np.random.default_rng(0)
# The upper half of a float32 is the bfloat16 below it.
noise = (random.standard_normal(1 << 22, np.float32) * 0.02).view(np.uint32) >> 16
noise = noise.astype(np.uint16)


def write(file, shape):
    left = int(np.prod(shape))
    if len(shape) == 1:
        file.write(np.full(left, 0x3F80, np.uint16).tobytes())
        return
    while left:
        part = np.roll(noise, int(random.integers(1 << 20)))[:left]
        file.write(part.tobytes())
        left -= len(part)


places, half = {}, len(tensors) // 2
for number, part in enumerate((tensors[:half], tensors[half:]), 1):
    name, header, at = f"model-{number:05d}-of-00002.safetensors", {}, 0
    for tensor, shape in part:
        size = 2 * int(np.prod(shape))
        header[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        places[tensor], at = name, at + size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape in part:
            write(file, shape)
with open(os.path.join(folder, "model.safetensors.index.json"), "w", encoding="utf-8") as file:
    json.dump({"metadata": {}, "weight_map": places}, file)
print(f"{folder}: {sum(int(np.prod(shape)) for _, shape in tensors) / 1e9:.2f} billion parameters")
