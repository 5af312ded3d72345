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

from common import arguments, fixture, session


def smoke(onnxq, folder):
    model = Decoder(fixture("model_with_past.onnx"))
    prompt = np.arange(8)
    logits = model.next(prompt)
    path = os.path.join(folder, "reference.npz")
    np.savez(path, prompt_0=prompt, last_logits_0=logits[-1], greedy_0=[logits[-1].argmax()])
    return [fixture("model_with_past.onnx"), path]


class Decoder:
    """A model and what it has seen."""

    def __init__(self, path):
        self.model = session(path)
        self.outputs = [it.name for it in self.model.get_outputs()]
        self.start()

    def start(self):
        caches = [it for it in self.model.get_inputs() if it.name.startswith("past")]
        self.past = {it.name: np.zeros((1, it.shape[1], 0, it.shape[3]), np.float32) for it in caches}
        self.seen = 0

    def next(self, tokens):
        """Logits of more tokens."""
        total = self.seen + len(tokens)
        feed = {"input_ids": np.array([tokens], np.int64), "attention_mask": np.ones((1, total), np.int64),
                "position_ids": np.arange(self.seen, total, dtype=np.int64)[None]}
        known = {it.name for it in self.model.get_inputs()}
        feed = {k: v for k, v in (feed | self.past).items() if k in known}
        outputs = dict(zip(self.outputs, self.model.run(None, feed)))
        presents = [it for it in outputs if it.startswith("present")]
        self.past = {it.replace("present", "past_key_values"): outputs[it] for it in presents}
        self.seen = total
        return outputs["logits"][0]


path, reference = arguments(smoke)
reference, decoder = np.load(reference), Decoder(path)
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
