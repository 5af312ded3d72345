#!/usr/bin/env python3
"""A small GPT-2 with a tied head that has learnt something, for measurements of GGUF files.

    pip install torch transformers tokenizers
    benches/gpt2_like.py OUT TEACHER.onnx TOKENIZER.json TEXT [MINUTES]

TEACHER is a decoder with a cache, as `onnxq import` makes one: it continues pieces of TEXT for a tenth of the
MINUTES (10), and the student learns its distributions for the rest. OUT becomes a folder of Hugging Face: hidden
256, 6 layers, 8 heads, 256 positions, TEACHER's vocabulary. How far it comes depends on the machine, so numbers
of two such models are not comparable; all of one table must be of one model.
"""

import json
import os
import shutil
import sys
import time

import numpy as np

from common import SMOKE, arguments, fixture, session, text_inputs

LENGTH, PROMPT, BATCH = 128, 16, 64
HIDDEN, LAYERS, HEADS, POSITIONS = 256, 6, 8, 256


def continued(teacher, prompts, random):
    """Texts of LENGTH tokens that begin with the prompts, and the teacher's logits after each of them."""
    ids, logits, new = prompts, [], prompts
    empty = {it.name: it for it in teacher.get_inputs() if it.name.startswith("past")}
    past = {name: np.zeros((len(ids), it.shape[1], 0, it.shape[3]), np.float32) for name, it in empty.items()}
    outputs = [it.name for it in teacher.get_outputs()]
    asked = {it.name for it in teacher.get_inputs()}
    while True:
        feed = {name: value[:, -new.shape[1] :] for name, value in text_inputs(ids).items()}
        feed |= {"attention_mask": np.ones_like(ids, np.int64)} | past
        found = dict(zip(outputs, teacher.run(None, {k: v for k, v in feed.items() if k in asked})))
        past = {it.replace("present", "past_key_values"): found[it] for it in outputs if it.startswith("present")}
        logits.append(found["logits"].astype(np.float16))
        if ids.shape[1] == LENGTH:
            return ids, np.concatenate(logits, 1)
        # The largest of logits with Gumbel noise is a sample of their softmax.
        last = found["logits"][:, -1]
        new = (last + random.gumbel(size=last.shape)).argmax(-1).astype(np.int64)[:, None]
        ids = np.concatenate([ids, new], 1)


def lessons(teacher, text, until):
    random, known = np.random.default_rng(0), []
    while not known or time.time() < until:
        starts = random.integers(0, len(text) - PROMPT, BATCH)
        known.append(continued(teacher, np.stack([text[at : at + PROMPT] for at in starts]), random))
    return known


def trained(known, until, batch=8, rate=1e-3):
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=known[0][1].shape[-1], n_positions=POSITIONS, n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    student = transformers.GPT2LMHeadModel(config)
    steps = torch.optim.AdamW(student.parameters(), rate, betas=(0.9, 0.95), weight_decay=0.1)
    random, began, count, mean = np.random.default_rng(1), time.time(), 0, None
    while count == 0 or time.time() < until:
        ids, logits = known[random.integers(len(known))]
        rows = random.choice(BATCH, batch, replace=False)
        # As the texts are shorter than the table of places, they stand anywhere in it.
        first = int(random.integers(0, POSITIONS - LENGTH + 1))
        places = torch.arange(first, first + LENGTH)[None]
        wanted = torch.from_numpy(logits[rows]).float().softmax(-1)
        found = student(torch.from_numpy(ids[rows]), position_ids=places).logits
        loss = torch.nn.functional.cross_entropy(found.flatten(0, 1), wanted.flatten(0, 1))
        part = min(1.0, (time.time() - began) / max(until - began, 1e-9))
        for group in steps.param_groups:
            group["lr"] = rate * min(1.0, (count + 1) / 50) * (1.05 - part)
        steps.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        steps.step()
        count += 1
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        if count % 50 == 0:
            print(f"{time.time() - began:.0f} s, step {count}: {mean:.4f}", flush=True)
    print(f"{count} steps of {batch * LENGTH} tokens: cross entropy to the teacher's distribution {mean:.4f}")
    return student


def main(out, teacher, tokenizer, text, minutes="10"):
    import tokenizers

    began, minutes = time.time(), float(minutes)
    tokens = tokenizers.Tokenizer.from_file(tokenizer).encode(open(text, encoding="utf-8").read()).ids
    known = lessons(session(teacher, threads=0), np.array(tokens, np.int64), began + 6 * minutes)
    print(f"{len(known) * BATCH * LENGTH} tokens of the teacher", flush=True)
    trained(known, began + 60 * minutes).save_pretrained(out)
    shutil.copy(tokenizer, os.path.join(out, "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": POSITIONS}
    with open(os.path.join(out, "tokenizer_config.json"), "w") as file:
        json.dump(config, file)


if __name__ == "__main__":
    args = arguments(lambda _, folder: [folder])
    if SMOKE:
        # PyTorch is not there: the teacher's part only, on the fixture.
        texts = np.random.default_rng(0).integers(0, 64, 200)
        print(lessons(session(fixture("model_with_past.onnx")), texts, 0)[0][0].shape)
    else:
        main(*args)
