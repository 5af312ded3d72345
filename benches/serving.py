#!/usr/bin/env python3
"""How `onnxq serve` starts, keeps to its memory, and survives bursts, clients that leave and dead workers.

usage: serving.py ONNXQ CHAT_MODEL [--parts start,memory,burst,leave,kill,soak] [--soak SECONDS]
CHAT_MODEL: a folder with a model that generates, a tokenizer and a chat template. Each part starts a
server of its own on a free port of this machine, prints its figures beside what is asked, and stops it.
"""
import argparse
import http.client
import json
import os
import random
import re
import selectors
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time

from common import SMOKE, arguments, fixture

parser = argparse.ArgumentParser()
parser.add_argument("onnxq")
parser.add_argument("model")
parser.add_argument("--parts", default="start,memory,burst,leave,kill,soak")
parser.add_argument("--soak", type=float, default=1800)
parser.add_argument("--requests", type=int, default=1000)
parser.add_argument("--long", type=int, default=400, help="tokens of a long answer")


def smoke(onnxq, folder):
    for name in ["tokenizer.json", "config.json"]:
        os.symlink(os.path.abspath(fixture(name)), os.path.join(folder, name))
    os.symlink(os.path.abspath(fixture("model_with_past.onnx")), os.path.join(folder, "model.onnx"))
    return [onnxq, folder, "--soak", "2", "--requests", "6", "--long", "20"]


args = parser.parse_args(arguments(smoke))
folder = tempfile.mkdtemp()


class Server:
    """A server of so many models, which are all the same folder, with more lines of YAML for each."""

    def __init__(self, count=1, each="", top="", small=False):
        path = os.path.join(folder, "serve.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write("listen: 127.0.0.1:0\n" + top + "models:\n")
            for at in range(count):
                file.write(f"  m{at}: {{path: {json.dumps(os.path.abspath(args.model))}{each}}}\n")
        began = time.perf_counter()
        self.process = subprocess.Popen([args.onnxq, "serve", "--config", path, "--json", "--threads", "1"],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = ""
        while "listening" not in line:
            line = self.process.stdout.readline()
            assert line, "the server ended"
        self.started = time.perf_counter() - began
        self.port = int(re.search(r":(\d+)", line.split("listening", 1)[1]).group(1))

    def connection(self, timeout=120):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def get(self, path):
        it = self.connection()
        it.request("GET", path)
        answer = it.getresponse()
        return answer.status, answer.read().decode()

    def post(self, model="m0", count=8, path="/v1/completions", headers=None, **more):
        """Status, body and seconds of a request that is waited for."""
        body = {"model": model, "max_tokens": count, "temperature": 0, **more}
        if path == "/v1/completions":
            body.setdefault("prompt", "The history of the lighthouse begins")
        began = time.perf_counter()
        it = self.connection()
        it.request("POST", path, json.dumps(body), {"content-type": "application/json", **(headers or {})})
        answer = it.getresponse()
        text = answer.read().decode()
        it.close()
        return answer.status, text, time.perf_counter() - began

    def stream(self, model="m0", count=None, **more):
        """A socket on which an answer has begun to come."""
        body = json.dumps({"model": model, "max_tokens": count or args.long, "temperature": 0, "stream": True,
                           "prompt": more.pop("prompt", "The history of the lighthouse begins"), **more})
        it = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        it.sendall(f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\ncontent-type: application/json\r\n"
                   f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        return it

    def family(self):
        """This process and those it has started."""
        found = [self.process.pid]
        for thread in os.listdir(f"/proc/{self.process.pid}/task"):
            try:
                with open(f"/proc/{self.process.pid}/task/{thread}/children", encoding="utf-8") as file:
                    found += [int(it) for it in file.read().split()]
            except FileNotFoundError:
                pass
        return found

    def anonymous(self):
        """Anonymous memory of all processes, in MB."""
        return sum(status(it, "RssAnon") for it in self.family()) / 1e3

    def resources(self):
        """Threads, descriptors and processes."""
        pid = self.process.pid
        return status(pid, "Threads"), len(os.listdir(f"/proc/{pid}/fd")), len(self.family())

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0, "the server did not end well"


def status(pid, key):
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            found = re.search(rf"^{key}:\s+(\d+)", file.read(), re.M)
            return int(found.group(1)) if found else 0
    except (FileNotFoundError, ProcessLookupError):
        return 0


def quantile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def start():
    times = []
    for _ in range(5):
        it = Server(20)
        times.append(it.started)
        it.stop()
    it = Server(20)
    waits, done = [], threading.Event()

    def look():
        while not done.is_set():
            began = time.perf_counter()
            assert it.get("/health")[0] == 200
            waits.append((time.perf_counter() - began) * 1e3)
            time.sleep(0.002)

    thread = threading.Thread(target=look)
    thread.start()
    for at in range(1 if SMOKE else 3):
        assert it.post(f"m{at}", 1)[0] == 200
    done.set()
    thread.join()
    it.stop()
    print(f"start: listening after {statistics.median(times):.3f} s with 20 models (asked 0.3); /health while models "
          f"load: p99 {quantile(waits, 0.99):.1f} ms of {len(waits)} (asked 20), at most {max(waits):.1f}")


def memory():
    one = Server(1)
    before = one.anonymous()
    assert one.post(count=1)[0] == 200
    size = json.loads(one.get("/v1/ps")[1])
    need = one.anonymous() - before
    one.stop()
    set_aside = max(it["reserved_bytes"] for it in size["data"]) / 1e6
    budget = 2.3 * max(need, set_aside)
    it = Server(3, top=f"memory: {int(budget * 1e6)}\n", each=", keep_alive: 3s")
    idle, most, done = it.anonymous(), 0.0, threading.Event()

    def look():
        nonlocal most
        while not done.is_set():
            most = max(most, it.anonymous() - idle)
            time.sleep(0.01)

    thread = threading.Thread(target=look)
    thread.start()
    answers = [it.post(f"m{at % 3}", 2)[0] for at in range(args.requests)]
    done.set()
    thread.join()
    time.sleep(6)
    left = it.anonymous() - idle
    it.stop()
    print(f"memory: three models of {need:.0f} MB (set aside {set_aside:.0f}) under {budget:.0f} MB, {args.requests} requests in "
          f"turn: {answers.count(200)} answers, at most {most:.0f} MB = {most / budget:.0%} of the budget (asked 105 %); "
          f"unloaded {left:+.1f} MB (asked 5)")


def burst():
    it = Server(1, each=", queue: 8")
    assert it.post(count=1)[0] == 200
    count = 20 if SMOKE else 200
    answers = at_once(it, count)
    refused = [seconds * 1e3 for code, _, seconds in answers if code == 503]
    codes = sorted({code for code, _, _ in answers})
    longest = max(seconds for _, _, seconds in answers)
    late = it.post(count=args.long * 10, headers={"x-onnxq-deadline-ms": "300"}, stop=["\u0001"])
    it.stop()
    print(f"burst: {count} at once on one slot, queue 8: {len(answers)} answers, codes {codes}, {len(refused)} refused within "
          f"p50 {quantile(refused or [0], 0.5):.0f}, p99 {quantile(refused or [0], 0.99):.0f} ms (asked 100); the longest took "
          f"{longest:.1f} s; a deadline of 0.3 s ended after {late[2]:.2f} s with {late[0]}")


def at_once(it, count):
    """Status, None and seconds of so many requests that are sent together; one thread watches all."""
    body = json.dumps({"model": "m0", "max_tokens": 4, "temperature": 0, "prompt": "The history of"})
    text = (f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1:{it.port}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n{body}").encode()
    sockets, answers = selectors.DefaultSelector(), []
    clients = [socket.create_connection(("127.0.0.1", it.port)) for _ in range(count)]
    for client in clients:
        sockets.register(client, selectors.EVENT_READ, time.perf_counter())
        client.sendall(text)
    while len(answers) < count and (ready := sockets.select(60)):
        for key, _ in ready:
            # The status is in the first bytes.
            first = key.fileobj.recv(65536)
            answers.append((int(first[9:12] or b"0"), None, time.perf_counter() - key.data))
            sockets.unregister(key.fileobj)
            key.fileobj.close()
    return answers


def freed(it, began):
    """Milliseconds until the slot is free: as /v1/ps says."""
    while time.perf_counter() - began < 10:
        if not any(busy(model) for model in json.loads(it.get("/v1/ps")[1])["data"]):
            return (time.perf_counter() - began) * 1e3
    return float("inf")


def busy(model):
    return model["slots"]["busy"]


def leave():
    it = Server(1)
    assert it.post(count=1)[0] == 200
    times = {"decoding": [], "prefill": []}
    for _ in range(2 if SMOKE else 10):
        client = it.stream()
        client.recv(4096)
        time.sleep(0.05)
        client.close()
        times["decoding"].append(freed(it, time.perf_counter()))
        client = it.stream(prompt="lighthouse keepers wrote " * (10 if SMOKE else 300))
        time.sleep(0.15)
        client.close()
        times["prefill"].append(freed(it, time.perf_counter()))
        assert it.post(count=2)[0] == 200
    it.stop()
    print(f"leave: the slot is free {max(times['decoding']):.0f} ms after a client left while decoding (asked 50), "
          f"{max(times['prefill']):.0f} ms in a prompt of some 1,000 tokens (asked 250)")


def kill():
    it = Server(2)
    assert it.post("m0", 1)[0] == it.post("m1", 1)[0] == 200
    told, again, other = [], [], []
    for _ in range(1 if SMOKE else 5):
        workers = set(it.family()[1:])
        for pid in workers:
            ticks(pid)
        client = it.stream("m0")
        first = client.recv(4096)
        time.sleep(0.05)
        computing = max(workers, key=lambda pid: ticks(pid))
        os.kill(computing, signal.SIGKILL)
        rest = b""
        while piece := client.recv(65536):
            rest += piece
            if b"error" in rest and rest.endswith(b"\n\n"):
                break
            if rest.endswith(b"0\r\n\r\n"):
                break
        told.append(b"error" in first + rest)
        code, _, seconds = it.post("m0", 1)
        again.append(seconds if code == 200 else float("inf"))
        code, _, seconds = it.post("m1", 1)
        other.append(seconds if code == 200 else float("inf"))
    it.stop()
    print(f"kill -9 of a worker that answers: {sum(told)} of {len(told)} clients were told; the next request was answered after "
          f"{max(again):.2f} s, loading included (asked: 1 s after load), another model's after {max(other):.2f} s")


last = {}


def ticks(pid):
    """Time that the process has computed since this was asked last."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            now = sum(int(it) for it in file.read().rsplit(")", 1)[1].split()[11:13])
    except FileNotFoundError:
        return -1
    before, last[pid] = last.get(pid, 0), now
    return now - before


def soak():
    it = Server(2, each=", queue: 4")
    assert it.post("m0", 1)[0] == it.post("m1", 1)[0] == 200
    chance, codes, end = random.Random(0), {}, time.time() + args.soak

    def client(seed):
        chance = random.Random(seed)
        while time.time() < end:
            kind, model = chance.random(), f"m{chance.randrange(2)}"
            try:
                if kind < 0.3:
                    code = it.post(model, chance.randrange(1, 24))[0]
                elif kind < 0.6:
                    stream = it.stream(model, chance.randrange(1, 24))
                    while stream.recv(65536):
                        if kind > 0.5:
                            break
                    stream.close()
                    code = "stream" if kind <= 0.5 else "left"
                elif kind < 0.7:
                    code = it.post(model, 4, temperature=float("nan"))[0]
                elif kind < 0.8:
                    code = it.post("none", 4)[0]
                elif kind < 0.9:
                    raw = socket.create_connection(("127.0.0.1", it.port), timeout=5)
                    raw.sendall(chance.choice([b"\xff\x00 nonsense\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nhost: x\r\n\r\n"]))
                    raw.recv(4096)
                    raw.close()
                    code = "nonsense"
                else:
                    code = it.get(chance.choice(["/health", "/metrics", "/v1/ps", "/v1/models", "/"]))[0]
            except (OSError, http.client.HTTPException):
                code = "closed"
            codes[code] = codes.get(code, 0) + 1
            time.sleep(chance.random() * 0.05)

    threads = [threading.Thread(target=client, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    samples = []
    while time.time() < end:
        time.sleep(max(min(args.soak / 60, end - time.time()), 0.01))
        samples.append(it.anonymous())
    for thread in threads:
        thread.join()
    time.sleep(2)
    first, after = it.resources(), None
    assert it.post("m0", 1)[0] == 200
    time.sleep(1)
    after = it.resources()
    warm = samples[len(samples) // 10:] or samples
    middle = statistics.median(warm)
    it.stop()
    print(f"soak: {args.soak:.0f} s, {sum(codes.values())} requests {dict(sorted(codes.items(), key=str))}: memory {middle:.0f} MB, "
          f"{min(warm) / middle - 1:+.1%} to {max(warm) / middle - 1:+.1%} (asked 5 %); threads, descriptors, processes {first}, "
          f"after one more request {after}")


for part in args.parts.split(","):
    {"start": start, "memory": memory, "burst": burst, "leave": leave, "kill": kill, "soak": soak}[part]()
