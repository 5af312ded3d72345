#!/usr/bin/env python3
"""A decoder with a cache against the logits and greedy tokens of its checkpoint in float32.

usage: reference.py MODEL.onnx REFERENCE.npz

REFERENCE.npz has for N = 0, 1, … `prompt_N` (token ids), `last_logits_N` (of the prompt's last token) and
`greedy_N` (the tokens that follow), and may have `text_ids`, `text_top` and `text_top_logits` (the largest
logits of each place). The prompt goes in at once, then one token at a time. Exits with 1 if a token
differs.
"""
import os
import sys

import numpy as np

from common import Decoder, arguments, fixture, session


def smoke(onnxq, folder):
    model = Decoder(session(fixture("model_with_past.onnx")))
    prompt = np.arange(8)
    logits = model.next(prompt)
    path = os.path.join(folder, "reference.npz")
    np.savez(path, prompt_0=prompt, last_logits_0=logits[-1], greedy_0=[logits[-1].argmax()])
    return [fixture("model_with_past.onnx"), path]


path, reference = arguments(smoke)
reference, decoder = np.load(reference), Decoder(session(path))
worst, equal, count, at = 0.0, 0, 0, 0
while f"prompt_{at}" in reference:
    decoder.start()
    logits = decoder.next(reference[f"prompt_{at}"].reshape(-1))[-1]
    worst = max(worst, float(np.abs(logits - reference[f"last_logits_{at}"]).max()))
    for token in reference[f"greedy_{at}"].reshape(-1):
        equal, count = equal + int(logits.argmax() == token), count + 1
        logits = decoder.next([int(token)])[-1]
    at += 1
print(f"{at} prompts: last logits differ by {worst:.1e} at most, {equal} of {count} greedy tokens are equal")
if "text_ids" in reference:
    decoder.start()
    logits = decoder.next(reference["text_ids"].reshape(-1))
    places = reference["text_top"].reshape(len(logits), -1).astype(np.int64)
    expected = reference["text_top_logits"].reshape(places.shape)
    off = np.abs(np.take_along_axis(logits, places, 1) - expected).max()
    print(f"text: the largest logits of {len(logits)} places differ by {off:.1e} at most, of {np.abs(expected).max():.1f}")
sys.exit(equal != count)
