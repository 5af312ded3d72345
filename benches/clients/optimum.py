#!/usr/bin/env python3
"""Loads a folder with optimum and compares its answers with onnxruntime's.

usage: optimum.py FOLDER FILE_NAME [COUNT [ID,ID,…]…]

FILE_NAME lies in FOLDER/onnx, or in FOLDER. The class follows `architectures` of config.json. A
decoder: COUNT greedy tokens (default 24) after each prompt of token ids (default: one of 40 and one
of 7, made up), against a loop of common.py; two prompts also as one batch, padded at the left.
Any other: its outputs, for two rows of which one is padded. Exits with 1 if they differ.
"""
import json
import os
import sys

# This script has the name of the package.
sys.path[0] = os.path.dirname(sys.path[0])
import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import torch  # noqa: E402
from optimum import onnxruntime as optimum  # noqa: E402

from common import TIE, Decoder, judge, session  # noqa: E402

torch.set_num_threads(1)


def generate(model, rows, count):
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(it)) + it for it in rows])
    mask = torch.tensor([[0] * (longest - len(it)) + [1] * len(it) for it in rows])
    made = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=count)
    return made[:, longest:].tolist()


def decoder(model, direct):
    failed, expected, direct = False, [], Decoder(direct)
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    for prompt in prompts:
        expected.append(direct.greedy(prompt, count, ends))
        tokens = generate(model, [prompt], count)[0]
        print(f"{len(prompt)} ids:", *tokens)
        failed |= judge("  alone", tokens, expected[-1], 0)
    if len(prompts) == 2:
        for row, it in zip(generate(model, prompts, count), expected):
            failed |= judge("  in a batch", row, it, TIE)
    return failed


def encoder(model, direct):
    ids = np.array([prompts[0][:12], prompts[0][12:19] + [config.get("pad_token_id") or 0] * 5])
    mask = np.array([[1] * 12, [1] * 7 + [0] * 5])
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    feed = {k: v for k, v in feed.items() if k in [it.name for it in direct.get_inputs()]}
    expected = dict(zip([it.name for it in direct.get_outputs()], direct.run(None, feed)))
    outputs = model(**{k: torch.from_numpy(v) for k, v in feed.items()})
    failed = False
    for name, value in outputs.items():
        # What sentence-transformers calls token_embeddings is the last hidden state.
        name = name if name in expected else "token_embeddings"
        worst = float(np.abs(value.numpy() - expected[name]).max())
        print(f"{name} {list(value.shape)}: {worst:.2g} from onnxruntime's, first", *value.flatten()[:3].tolist())
        failed |= not worst < 1e-4
    return failed


folder, name, count = sys.argv[1], sys.argv[2], int((sys.argv[3:4] or [24])[0])
with open(os.path.join(folder, "config.json")) as file:
    config = json.load(file)
kind = config["architectures"][0]
prompts = [list(map(int, it.split(","))) for it in sys.argv[4:]]
prompts = prompts or [[i * 7919 % (config["vocab_size"] - 5) + 5 for i in range(1, n + 1)] for n in (40, 7)]
inside = os.path.exists(os.path.join(folder, "onnx", name))
tasks = {"ForCausalLM": "CausalLM", "LMHeadModel": "CausalLM", "ForSequenceClassification": "SequenceClassification",
         "ForTokenClassification": "TokenClassification"}
task = next((it for end, it in tasks.items() if kind.endswith(end)), "FeatureExtraction")
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
model = getattr(optimum, f"ORTModelFor{task}").from_pretrained(
    folder, subfolder="onnx" if inside else "", file_name=name, session_options=options, local_files_only=True)
print(type(model).__name__)
direct = session(os.path.join(folder, "onnx" if inside else "", name))
sys.exit((decoder if task == "CausalLM" else encoder)(model, direct))
