#!/usr/bin/env python3
"""Asks a running `onnxq serve` with OpenAI's own client, streaming and not, and checks what comes.

usage: openai_client.py URL MODEL [--embed MODEL] [--classify MODEL]      (pip install openai)

URL is that of the server, as http://127.0.0.1:8080. Exits with 1 if something is not as the client's
users expect: the streamed answer is the whole one, usage counts it, a stop text ends it, seeds repeat,
log-probabilities are there, errors are the client's own exceptions.
"""
import argparse
import math
import sys

import openai

parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("model")
parser.add_argument("--embed")
parser.add_argument("--classify")
args = parser.parse_args()
client = openai.OpenAI(base_url=f"{args.url}/v1", api_key="none", max_retries=0)
failed = []


def check(what, holds):
    print(f"{'ok' if holds else 'WRONG'}  {what}")
    if not holds:
        failed.append(what)


check("models lists it", args.model in [it.id for it in client.models.list().data])
messages = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "What is the capital of France?"}]
asked = {"model": args.model, "messages": messages, "max_tokens": 40, "temperature": 0}
whole = client.chat.completions.create(**asked)
text = whole.choices[0].message.content
print(f"       {text!r}")
check("an answer, with usage", text and whole.usage.completion_tokens > 0 and whole.usage.prompt_tokens > 10)
pieces, usage = [], None
for chunk in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
    usage = chunk.usage or usage
    pieces += [it.delta.content or "" for it in chunk.choices]
check("the streamed answer is the same", "".join(pieces) == text)
check("its usage too", usage and usage.completion_tokens == whole.usage.completion_tokens)
word = text.split()[2]
cut = client.chat.completions.create(**asked, stop=[word])
check("a stop text ends it", cut.choices[0].message.content == text[: text.index(word)] and cut.choices[0].finish_reason == "stop")
short = client.chat.completions.create(**{**asked, "max_tokens": 3})
check("max_tokens ends it", short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 3)
warm = {**asked, "temperature": 1.0, "seed": 7}
twice = [client.chat.completions.create(**warm).choices[0].message.content for _ in range(2)]
check("equal seeds give equal answers", twice[0] == twice[1])
likely = client.chat.completions.create(**{**asked, "max_tokens": 3}, logprobs=True, top_logprobs=2)
tokens = likely.choices[0].logprobs.content
check("log-probabilities", len(tokens) == 3 and all(it.logprob <= 0 and len(it.top_logprobs) == 2 for it in tokens))
plain = client.completions.create(model=args.model, prompt="The capital of France is", max_tokens=4, temperature=0, logprobs=1, echo=True)
check("completions with echo", plain.choices[0].text.startswith("The capital of France is") and plain.choices[0].logprobs.token_logprobs[0] is None)
for what, more, kind in [
    ("a model that is not there", {"model": "none"}, openai.NotFoundError),
    ("a temperature beyond its range", {"temperature": 1000}, openai.BadRequestError),
    ("tools", {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, openai.BadRequestError),
]:
    try:
        client.chat.completions.create(**{**asked, **more})
        check(what, False)
    except kind as error:
        check(f"{what}: {error.message[:90]}", True)
if args.embed:
    made = client.embeddings.create(model=args.embed, input=["a cat sits on the mat", "a kitten on a rug", "stocks fell sharply"])
    a, b, c = (it.embedding for it in made.data)

    def cosine(x, y):
        return sum(p * q for p, q in zip(x, y)) / math.sqrt(sum(p * p for p in x) * sum(q * q for q in y))

    print(f"       {cosine(a, b):.3f} {cosine(a, c):.3f}")
    check("like texts are near each other", cosine(a, b) > cosine(a, c))
if args.classify:
    made = client.post("/classify", body={"model": args.classify, "input": ["good", "bad"]}, cast_to=object)
    check("classify answers for each text", len(made["data"]) == 2)
sys.exit(1 if failed else 0)
