#!/usr/bin/env python3
"""What `onnxq distil` gives back, what students reach, and what training costs beside PyTorch.

usage: distil.py ONNXQ MODEL.onnx --tokenizer TOKENIZER.json --text TEXT.txt… --eval IDS.npy
                 [--task TRAIN.txt HELD_OUT.txt] [--parts recover,students,task,speed,threads]
                 [--rows 64] [--window 128] [--batch 8] [--steps 400]

The distance to MODEL is measured here, in ONNX Runtime, on the first rows of IDS.npy: the mean KL
divergence in nats of logits and how often the likeliest token is the same, or the mean cosine of the
mean vectors of an encoder (the mask is IDS.npy with `ids` as `attention_mask`, if that exists). The
layers and the shape for PyTorch are those of config.json beside MODEL. CPU seconds are those of the
command and its workers, reading texts included: some MB of them are plenty. Peak memory is resident,
the sum of the highest of each process. `speed` needs torch and transformers. (Linux)

recover   recipes without and with training, in the same size
students  half of the layers, --steps: by KL, by cross entropy, and from random numbers
task      two students of equal steps, one on TRAIN.txt and one on TEXT.txt, judged on HELD_OUT.txt
speed     tokens of training in a CPU second and peak memory, one thread, cross entropy
threads   that 1 and 2 threads, and a training that was killed and went on, write equal bytes
"""
import argparse
import glob
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import numpy

from common import SMOKE, arguments, fixture, rounds, session, text_inputs, tokens

INT2 = """onnxq: 1
name: int2_block32
target: generic
calibration: {samples: 128}
quantize:
  - ops: [MatMul, Gemm]
    weight:
      dtype: uint2
      symmetric: false
      granularity: {block: 32}
      range: full
      solver: {gptq: {grid: imatrix, damping: 0.01}}
    activation: none
    format: [matmul_nbits]
"""
ALL = "scales,norms,biases,weights"
# Nothing was gained by training: the command says so and writes nothing.
NOTHING = 6
HEAD = "| what | to the float model | MB | CPU s | peak MB |\n| --- | --- | --- | --- | --- |"


class Done:
    """A command that has ended: exit code, output, CPU seconds and peak memory in MB."""

    def __init__(self, command, fine=(0, NOTHING)):
        before, peaks = children_seconds(), {}
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(list(map(str, command)), stdout=output, stderr=errors)
            while process.poll() is None:
                for pid in family(process.pid):
                    peaks[pid] = max(peaks.get(pid, 0), highest(pid))
                time.sleep(0.02)
            self.cpu, self.peak = children_seconds() - before, sum(peaks.values()) / 1e6
            for file in (output, errors):
                file.seek(0)
            self.text, self.code = output.read().decode(), process.returncode
            if self.code not in fine:
                sys.exit(f"{' '.join(map(str, command))}: exit {self.code}\n{errors.read().decode()}")


def children_seconds():
    it = os.times()
    return it.children_user + it.children_system


def family(pid):
    """A process and those that it started."""
    found = [pid]
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            with open(path) as file:
                found += map(int, file.read().split())
        except OSError:
            pass
    return found


def highest(pid):
    """The most memory that a process has had resident, in bytes."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((int(it.split()[1]) * 1024 for it in file if it.startswith("VmHWM")), 0)
    except OSError:
        return 0


class Job:
    """What is measured, and where its files go."""

    def __init__(self, given, folder):
        vars(self).update(vars(given))
        self.folder = folder
        ids = numpy.load(self.eval)[: self.rows]
        place, name = os.path.split(self.eval)
        mask = os.path.join(place, name.replace("ids", "attention_mask"))
        there = mask != self.eval and os.path.exists(mask)
        self.judged = ids, numpy.load(mask)[: self.rows] if there else numpy.ones_like(ids)
        self.speaks = "logits" in [it.name for it in session(self.model).get_outputs()]
        with open(os.path.join(os.path.dirname(os.path.abspath(self.model)), "config.json")) as file:
            self.config = json.load(file)

    def path(self, name):
        return os.path.join(self.folder, name)

    def recipe(self, name, more=""):
        with open(self.path(name), "w") as file:
            file.write(INT2 + more)
        return self.path(name)

    def command(self, output, flags, texts=None, threads=1):
        texts = texts or self.text
        data = [it for text in texts for it in ("--data", text)]
        # Arrays are tokens already, as long as they are.
        arrays = all(str(it).endswith(".npy") for it in texts)
        own = [] if arrays else ["--tokenizer", self.tokenizer, "--window", self.window]
        own += ["--threads", threads]
        command = [self.onnxq, "distil", self.model, *data, *own, "-o", output, "-f", "-q", "--json", *flags]
        return [str(it) for it in command]

    def distil(self, output, *flags, texts=None):
        return Done(self.command(output, flags, texts))

    def quantize(self, output, recipe, *flags):
        """The recipe without training, its solvers on as many samples of the first text."""
        data = ["--calibration", self.text[0], "--calibration-samples", few(128), "--tokenizer", self.tokenizer]
        command = [self.onnxq, "quantize", self.model, "-r", recipe, "-o", output, "-f", "-q", "--json"]
        return Done([*command, *data, "--set", "distil=null", "--threads", 1, *flags])


def few(count):
    """A number of steps or samples."""
    return 2 if SMOKE else count


def feeds(model, ids, mask):
    feed = text_inputs(ids) | {"attention_mask": mask.astype(numpy.int64)}
    for it in model.get_inputs():
        if it.name.startswith("past"):
            feed[it.name] = numpy.zeros((1, it.shape[1], 0, it.shape[3]), numpy.float32)
    return {it.name: feed[it.name] for it in model.get_inputs()}


def log_softmax(logits):
    logits = logits.astype(numpy.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - numpy.log(numpy.exp(logits).sum(-1, keepdims=True))


def distance(teacher, student, judged):
    """How far a model is from another, in words."""
    sessions = [session(it) for it in (teacher, student)]
    names = [it.name for it in sessions[0].get_outputs() if not it.name.startswith("present")]
    kl, same, cosine, count = 0.0, 0, 0.0, 0
    for ids, mask in zip(*judged):
        ids, mask = ids[None], mask[None]
        # Padding is at the end.
        real = int(mask.sum())
        values = [it.run(names[:1], feeds(it, ids, mask))[0][0, :real] for it in sessions]
        if "logits" in names[:1]:
            logs = [log_softmax(it) for it in values]
            kl += float((numpy.exp(logs[0]) * (logs[0] - logs[1])).sum())
            same += int((logs[0].argmax(-1) == logs[1].argmax(-1)).sum())
            count += real
        else:
            first, second = (it.astype(numpy.float64).mean(0) for it in values)
            cosine += float(first @ second / numpy.sqrt((first @ first) * (second @ second)))
            count += 1
    if "logits" in names[:1]:
        return f"KL {kl / count:.5f}, top-1 {same / count:.4f}"
    return f"cosine {cosine / count:.5f}"


def size(path):
    """Of a model and its data, in MB."""
    return sum(os.path.getsize(it) for it in glob.glob(glob.escape(path) + "*")) / 1e6


def row(job, what, done, output, judged=None):
    if done.code == NOTHING:
        print(f"| {what} | nothing gained | | {done.cpu:.1f} | {done.peak:.0f} |", flush=True)
        return
    far = distance(job.model, output, judged or job.judged)
    print(f"| {what} | {far} | {size(output):.2f} | {done.cpu:.1f} | {done.peak:.0f} |", flush=True)


def recover(job):
    print(f"\nrecover\n\n{HEAD}")
    out, plain = job.path("recovered.onnx"), job.recipe("int2_block32.yaml")
    row(job, "2 bits in blocks of 32, gptq", job.quantize(out, plain), out)
    trials = [("scales,norms", 200), (ALL, 400), (ALL, 1000)]
    for train, steps in trials[:1] if SMOKE else trials:
        flags = ["--train", train, "--steps", few(steps), "--calibration-samples", few(128)]
        row(job, f"{train}: {steps} steps", job.distil(out, "-r", plain, *flags), out)
    shipped = [("int2_recovered", "int2_recovered"), ("int4_quality", "int4_recovered")]
    for without, recipe in [] if SMOKE else shipped:
        row(job, f"{recipe}, without distil", job.quantize(out, without), out)
        row(job, recipe, job.distil(out, "-r", recipe), out)


def half(job):
    return ["--student", f"layers={job.config['num_hidden_layers'] // 2}", "--calibration-samples", few(16)]


def shuffled(path, output):
    """The same graph, whose weights have learnt nothing: normal numbers, gains of 1."""
    import onnx

    model, random = onnx.load(path), numpy.random.default_rng(0)
    gains = {it.input[1] for it in model.graph.node if it.op_type in ("RMSNormalization", "LayerNormalization")}
    for it in model.graph.initializer:
        value = onnx.numpy_helper.to_array(it)
        if it.name in gains:
            value = numpy.ones_like(value)
        elif value.dtype == numpy.float32 and value.ndim == 2 and value.size >= 4096:
            value = (random.standard_normal(value.shape) * 0.02).astype(numpy.float32)
        it.CopyFrom(onnx.numpy_helper.from_array(value, it.name))
    onnx.save(model, output)


def students(job):
    print(f"\nstudents\n\n{HEAD}")
    out, start = job.path("student.onnx"), job.path("random.onnx")
    how = ["--steps", few(job.steps), "--batch", job.batch]
    done = job.distil(out, *half(job), *how)
    row(job, "cut, trained", done, out)
    if done.code == NOTHING:
        return
    told = json.loads(done.text)
    shuffled(out, start)
    has_ce = job.speaks and not SMOKE
    if has_ce:
        row(job, "cut, trained by ce", job.distil(out, *half(job), "--loss", "ce", *how), out)
    for flags in ([], ["--loss", "ce"])[: 2 if has_ce else 1]:
        what = " ".join(["random start,", *flags[1:], "trained"])
        row(job, what, job.distil(out, "--student", start, *flags, *how), out)
    kept, learnt = told["layers"]["kept"], told["learnt"]
    print(f"\nlayers {kept} stay; held-out {learnt['loss']} of the cut alone {learnt['before']:.4f}")
    for it in learnt["curve"]:
        print(f"step {it['step']}: held out {it['held_out']:.4f}")


def task(job):
    try:
        from tokenizers import Tokenizer
    except ImportError:
        print("\ntask: needs the package tokenizers")
        return
    train, held_out = job.task
    width = job.judged[0].shape[1]
    with open(held_out) as file:
        ids = Tokenizer.from_file(job.tokenizer).encode(file.read(), add_special_tokens=False).ids
    count = min(job.rows, len(ids) // width)
    ids = numpy.array(ids[: count * width], numpy.int64).reshape(count, width)
    judged = ids, numpy.ones_like(ids)
    print(f"\ntask, on {count} × {width} tokens of {os.path.basename(held_out)}\n\n{HEAD}")
    out, how = job.path("task.onnx"), ["--steps", few(300), "--batch", job.batch]
    for what, texts in (("general text", job.text), ("task text", [train])):
        row(job, f"half of the layers, {what}", job.distil(out, *half(job), *how, texts=texts), out, judged)


def speed(job):
    """Two lengths of training, so that start-up and looks at held-out samples cancel."""
    if not job.speaks:
        print("\nspeed: cross entropy needs logits of the next token")
        return
    print(f"\nspeed, {job.batch} × {job.window} tokens a step, one thread\n")
    # What is said costs nothing: any tokens that the model knows.
    ids = numpy.random.default_rng(0).choice(numpy.load(job.eval).ravel(), (256, job.window))
    data, out = job.path("speed_input_ids.npy"), job.path("speed.onnx")
    numpy.save(data, ids)
    # Less than the 50 steps after which held-out samples are looked at again.
    lengths = (1, 3) if SMOKE else (10, 40)
    how = ["--student", "given", "--loss", "ce", "--train", "norms,biases,weights", "--batch", job.batch]
    theirs = [sys.executable, os.path.abspath(__file__), "--theirs", job.model, job.batch, job.window, lengths[1]]
    paces, peaks = [[], []], [0.0, 0.0]
    for _ in range(rounds(3)):
        short, long = (job.distil(out, *how, "--steps", it, texts=[data]) for it in lengths)
        paces[0].append((lengths[1] - lengths[0]) * job.batch * job.window / max(long.cpu - short.cpu, 1e-9))
        peaks[0] = max(peaks[0], long.peak)
        done = Done(theirs)
        if not done.text.strip():
            break
        paces[1].append(float(done.text))
        peaks[1] = max(peaks[1], done.peak)
    print("| | tokens per CPU s | each | peak MB |\n| --- | --- | --- | --- |")
    for what, pace, peak in zip(("onnxq", "PyTorch"), paces, peaks):
        if pace:
            each = " ".join(f"{it:.0f}" for it in pace)
            print(f"| {what} | {statistics.median(pace):.0f} | {each} | {peak:.0f} |")
    if not paces[1]:
        print("\ntorch and transformers are missing: nothing to compare with")
        return
    ratio = statistics.median(paces[0]) / statistics.median(paces[1])
    print(f"\nonnxq / PyTorch: {ratio:.2f} × tokens, {peaks[0] / peaks[1]:.2f} × memory")


def theirs(model, batch, window, steps):
    """In a process of its own: PyTorch's tokens per CPU second, or nothing if it is missing."""
    try:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError:
        return
    torch.set_num_threads(1)
    torch.manual_seed(0)
    batch, window, steps = int(batch), int(window), int(steps)
    config = AutoConfig.from_pretrained(os.path.dirname(os.path.abspath(model)))
    config.use_cache = False
    network = AutoModelForCausalLM.from_config(config).float().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    # The first steps allocate.
    warm_up, began = 2, 0.0
    for step in range(warm_up + steps):
        if step == warm_up:
            began = time.process_time()
        ids = torch.randint(config.vocab_size, (batch, window))
        network(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    print(batch * window * steps / (time.process_time() - began))


def threads(job):
    print("\nthreads\n")
    steps, every = (8, 2) if SMOKE else (200, 50)
    recipe = job.recipe("threads.yaml", f"distil: {{steps: {steps}, every: {every}}}\n")
    flags = ["-r", recipe, "--train", ALL, "--calibration-samples", few(16), "--batch", 2]
    out = job.path("threads.onnx")
    sums = []
    for count in (1, 2):
        Done(job.command(out, flags, threads=count), fine=(0,))
        sums.append(digest(out))
    print("1 and 2 threads:", "equal bytes" if sums[0] == sums[1] else "DIFFERENT")
    at = killed(job.command(out, flags), out + ".train", steps * 3 // 4)
    if at is None:
        print("it ended before it was killed")
        return
    Done(job.command(out, flags), fine=(0,))
    same = digest(out) == sums[0]
    print(f"killed when step {at} of {steps} was kept, and gone on:", "equal bytes" if same else "DIFFERENT")


def digest(path):
    """Of a model and its data."""
    hash = hashlib.sha256()
    for it in sorted(glob.glob(glob.escape(path) + "*")):
        with open(it, "rb") as file:
            hash.update(file.read())
    return hash.hexdigest()


def killed(command, state, step):
    """Kills a training as soon as the state beside its output is of that step. The step, if in time."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        at = kept_step(state)
        if at is not None and at >= step:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return at if os.path.exists(state) else None
        time.sleep(0.002)
    return None


def kept_step(state):
    """The step of the facts in the head of a safetensors file; it is replaced at once, never half written."""
    try:
        with open(state, "rb") as file:
            head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return json.loads(head["__metadata__"]["onnxq.training"])["step"]
    except OSError:
        return None


PARTS = {"recover": recover, "students": students, "task": task, "speed": speed, "threads": threads}


def smoke(onnxq, folder):
    text, more = fixture("calibration.txt"), ["--rows", 1, "--window", 16, "--batch", 2]
    task = ["--task", text, fixture("eval.txt")]
    own = ["--tokenizer", fixture("tokenizer.json"), "--text", text, "--eval", tokens(folder)]
    return [onnxq, fixture("model.onnx"), *own, *task, *more]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("onnxq")
    parser.add_argument("model")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--text", nargs="+", required=True)
    parser.add_argument("--eval", required=True)
    parser.add_argument("--task", nargs=2)
    parser.add_argument("--parts", default=",".join(PARTS))
    for name, value in (("rows", 64), ("window", 128), ("batch", 8), ("steps", 400)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args(arguments(smoke))
    parts = given.parts.split(",")
    if not given.task and "task" in parts:
        parts.remove("task")
        print("task: without --task TRAIN.txt HELD_OUT.txt there is none")
    with tempfile.TemporaryDirectory() as folder:
        job = Job(given, folder)
        for part in parts:
            PARTS[part](job)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--theirs"]:
        theirs(*sys.argv[2:])
    else:
        main()
