#!/usr/bin/env python3
"""CPU time of each token that engines generate greedily, one thread, whole programs in turn.

usage: generation.py ONNXQ MODEL... [--optimum FOLDER] [--genai FOLDER] [--gguf FILE --node FOLDER]
                     [--text FILE] [--tokens 32,160] [--rounds N]
MODEL: a folder with tokenizer.json and a model, run by `onnxq run`. --optimum: a folder that
optimum loads (ORTModelForCausalLM). --genai: one that onnxruntime-genai loads. --gguf: for
llama.cpp in the npm package node-llama-cpp, which is installed in --node.
Each program runs with the smaller and with the larger number of tokens; the difference of their CPU
times is that of the tokens between. Speeds are relative to the first model. The first text of
--text is the prompt; `same` counts the tokens of an answer up to the first that differs from the
first model's. Times come with the share of what a copy of the same bytes would take (`limit`).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from common import arguments, fixture, rounds

TEXT = "The history of the lighthouse begins in the year"
parser = argparse.ArgumentParser()
parser.add_argument("onnxq")
parser.add_argument("models", nargs="+")
parser.add_argument("--optimum", action="append", default=[])
parser.add_argument("--genai", action="append", default=[])
parser.add_argument("--gguf", action="append", default=[])
parser.add_argument("--node")
parser.add_argument("--text")
parser.add_argument("--tokens", default="32,160")
parser.add_argument("--rounds", type=int, default=5)
SHORT = ["--tokens", "2,6", "--rounds", "1"]


def smoke(onnxq, folder):
    for name in ["tokenizer.json", "config.json"]:
        if os.path.exists(fixture(name)):
            os.symlink(os.path.abspath(fixture(name)), os.path.join(folder, name))
    os.symlink(os.path.abspath(fixture("model_with_past.onnx")), os.path.join(folder, "model.onnx"))
    return [onnxq, folder, *SHORT]


args = parser.parse_args(arguments(smoke))
text = open(args.text, encoding="utf-8").read() if args.text else TEXT
work = tempfile.mkdtemp()

OPTIMUM = """
import sys, json, os
os.environ["OMP_NUM_THREADS"] = "1"
import onnxruntime, torch
torch.set_num_threads(1)
from optimum.onnxruntime import ORTModelForCausalLM
from transformers import AutoTokenizer
folder, text, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
model = ORTModelForCausalLM.from_pretrained(folder, session_options=options)
tokenizer = AutoTokenizer.from_pretrained(folder)
ids = {"input_ids": tokenizer(text, return_tensors="pt")["input_ids"]}
ids["attention_mask"] = torch.ones_like(ids["input_ids"])
made = model.generate(**ids, max_new_tokens=count, min_new_tokens=count, do_sample=False)
print(json.dumps(made[0][ids["input_ids"].shape[1]:].tolist()))
"""
GENAI = """
import sys, json
import onnxruntime_genai as og
folder, text, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
config = og.Config(folder)
config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": 1}}}}))
model = og.Model(config)
ids = og.Tokenizer(model).encode(text)
params = og.GeneratorParams(model)
params.set_search_options(max_length=len(ids) + count, min_length=len(ids) + count, do_sample=False)
generator = og.Generator(model, params)
generator.append_tokens(ids)
made = []
for _ in range(count):
    generator.generate_next_token()
    made.append(int(generator.get_next_tokens()[0]))
print(json.dumps(made))
"""
LLAMA = """
import {getLlama} from "node-llama-cpp";
const [,, path, text, count] = process.argv;
const llama = await getLlama({gpu: false, build: "never", logLevel: "error", maxThreads: 1});
const model = await llama.loadModel({modelPath: path});
const context = await model.createContext({contextSize: 1024, threads: 1, batchSize: 512});
const made = [];
for await (const token of context.getSequence().evaluate(model.tokenize(text), {temperature: 0, yieldEogToken: true})) {
    made.push(token);
    if (made.length >= +count) break;
}
console.log(JSON.stringify(made));
process.exit(0);
"""


class Engine:
    """A command that prints the ids of so many tokens."""

    def __init__(self, name, command, read=json.loads, cwd=None, size=None):
        self.name, self.command, self.read, self.cwd, self.size = name, command, read, cwd, size
        self.per_token, self.made = [], []

    def seconds(self, count):
        """CPU time of the whole program, its processes included."""
        command = [it(count) if callable(it) else it for it in self.command]
        before = os.times()
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.cwd)
        after = os.times()
        if done.returncode:
            sys.exit(f"{self.name}: exit {done.returncode}\n{done.stderr}")
        self.made = self.read(done.stdout)
        return after.children_user - before.children_user + after.children_system - before.children_system

    def round(self, few, many):
        first = self.seconds(few)
        count = len(self.made)
        second = self.seconds(many)
        self.per_token.append((second - first) / max(len(self.made) - count, 1))


def written(name, code, folder=work):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(code)
    return path


def onnxq_ids(out):
    return [it["id"] for it in json.loads(out)["logprobs"]]


def line(count):
    """A file with one request."""
    asked = {"prompt": text, "max_tokens": count, "temperature": 0, "logprobs": 0}
    return written(f"{count}.jsonl", json.dumps(asked) + "\n")


def size_of(folder):
    """Of the plain model: a package holds its weights twice."""
    files = [os.path.join(root, it) for root, _, names in os.walk(folder) for it in names
             if os.path.basename(root) != "prepacked"]
    return sum(os.path.getsize(it) for it in files if ".onnx" in os.path.basename(it))


def has_template(folder):
    config = os.path.join(folder, "tokenizer_config.json")
    inside = os.path.exists(config) and "chat_template" in json.load(open(config, encoding="utf-8"))
    return inside or os.path.exists(os.path.join(folder, "chat_template.jinja"))


engines = []
for model in args.models:
    # The prompt is text for all; where there is no template, saying so would be an error.
    raw = ["--raw"] if has_template(model) else []
    command = [args.onnxq, "-q", "run", model, *raw, "--threads", "1", "--jsonl", line]
    engines.append(Engine(f"onnxq run {model}", command, onnxq_ids, size=size_of(model)))
for folder in args.optimum:
    engines.append(Engine(f"optimum {folder}", [sys.executable, written("optimum_.py", OPTIMUM), folder, text, str]))
for folder in args.genai:
    engines.append(Engine(f"genai {folder}", [sys.executable, written("genai_.py", GENAI), folder, text, str]))
for path in args.gguf:
    script = written("llama_.mjs", LLAMA, args.node)
    engines.append(Engine(f"llama.cpp {path}", ["node", script, os.path.abspath(path), text, str], cwd=args.node))

few, many = (int(it) for it in args.tokens.split(","))
for turn in range(rounds(args.rounds) + 1):
    for engine in engines:
        engine.round(few, many)
        if turn == 0:
            engine.per_token.clear()


def bandwidth():
    """Bytes per second that one core reads, of more than any cache holds."""
    import numpy as np

    block = np.ones(256 << 20, np.uint8).view(np.uint64)
    times = []
    for _ in range(5):
        start = time.process_time()
        block.max()
        times.append(time.process_time() - start)
    return block.nbytes / min(times)


speed = bandwidth()
print(f"{few} to {many} tokens after {len(text)} characters; one core reads {speed / 1e9:.1f} GB/s")
for engine in engines:
    median = statistics.median(engine.per_token)
    # Of each round by itself: what slows one program slows its neighbours.
    ratio = statistics.median(a / b for a, b in zip(engines[0].per_token, engine.per_token))
    same = next((at for at, (a, b) in enumerate(zip(engine.made, engines[0].made)) if a != b),
                min(len(engine.made), len(engines[0].made)))
    limit = f", limit {engine.size / speed / median:.0%}" if engine.size else ""
    print(f"{median * 1e3:8.2f} ms (least {min(engine.per_token) * 1e3:.2f})  x{ratio:.3f}{limit}, same {same} of "
          f"{len(engine.made)}  {engine.name}")
