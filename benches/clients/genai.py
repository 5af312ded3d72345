#!/usr/bin/env python3
"""Loads a folder with onnxruntime-genai and compares its greedy tokens with onnxruntime's.

usage: genai.py FOLDER [COUNT [ID,ID,…]…]

COUNT tokens (default 24) after each prompt of token ids (default: one of 40 and one of 7, made up),
from the model that genai_config.json names; the same by onnxruntime alone, with a loop of
common.py. Two prompts also as one batch, padded at the right as onnxruntime-genai wants it. Prints
the tokens, and what the tokenizer and the chat template make of a question, if there are any. Exits
with 1 if tokens differ.
"""
import json
import os
import sys

import numpy as np
import onnxruntime_genai as og

sys.path[0] = os.path.dirname(sys.path[0])
from common import TIE, Decoder, judge, session  # noqa: E402


def generate(model, rows, count, pad):
    """The same by onnxruntime-genai, for some prompts at once."""
    longest = max(map(len, rows))
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(do_sample=False, max_length=longest + count, batch_size=len(rows))
    generator = og.Generator(model, parameters)
    generator.append_tokens(np.array([it + [pad] * (longest - len(it)) for it in rows], np.int32))
    steps = []
    while not generator.is_done():
        generator.generate_next_token()
        steps.append(np.array(generator.get_next_tokens()).copy())
    return np.array(steps).T.tolist()


folder, count = sys.argv[1], int((sys.argv[2:3] or [24])[0])
with open(os.path.join(folder, "genai_config.json")) as file:
    CONFIG = json.load(file)["model"]
ends = CONFIG.get("eos_token_id", [])
ends = ends if isinstance(ends, list) else [ends]
pad = CONFIG.get("pad_token_id", 0)
usable = [it for it in range(CONFIG["vocab_size"]) if it not in [*ends, pad]]
# A made-up prompt must not run into the end of what the model was made for.
count = min(count, CONFIG["context_length"] - 40) if not sys.argv[3:] else count
prompts = [list(map(int, it.split(","))) for it in sys.argv[3:]]
prompts = prompts or [[usable[i * 7919 % len(usable)] for i in range(1, n + 1)] for n in (40, 7)]

model = og.Model(folder)
direct = session(os.path.join(folder, CONFIG["decoder"]["filename"]))
# onnxruntime-genai takes the size of heads from its configuration.
direct = Decoder(direct, CONFIG["decoder"]["head_size"])
failed, expected = False, []
for prompt in prompts:
    expected.append(direct.greedy(prompt, count, ends))
    tokens = generate(model, [prompt], count, pad)[0]
    print(f"{len(prompt)} ids:", *tokens)
    failed |= judge("  alone", tokens, expected[-1], 0)
if len(prompts) == 2:
    for row, it in zip(generate(model, prompts, count, pad), expected):
        failed |= judge("  in a batch", row, it, TIE)
try:
    tokenizer = og.Tokenizer(model)
    print("tokenizer:", *tokenizer.encode("What is the capital of France?"))
    chat = json.dumps([{"role": "user", "content": "What is the capital of France?"}])
    print("chat:", repr(tokenizer.apply_chat_template(chat, add_generation_prompt=True)))
except Exception as error:
    print("tokenizer:", str(error).splitlines()[0])
sys.exit(failed)
