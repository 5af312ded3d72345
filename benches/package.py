#!/usr/bin/env python3
"""Memory of processes with a model, plain and packaged: one process, two at once.   (Linux)

usage: package.py ONNXQ MODEL…

Each model is packaged; then processes of their own load the plain model, the plain model with huge pages
(`GLIBC_TUNABLES=glibc.malloc.hugetlb=1`) and the packed form, run it, and read their own
/proc/self/smaps_rollup. Anonymous memory is a process's alone; PSS shares what is mapped by several, so
that the sum over processes is what the machine spends. The first row of each model is a process with
onnxruntime and no model. Time of a run is CPU time, one thread; outputs must be equal.
"""
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time

if sys.argv[1:2] == ["child"]:
    import numpy
    import onnxruntime

    def memory():
        with open("/proc/self/smaps_rollup") as lines:
            rows = [it.split() for it in lines if it.rstrip().endswith("kB")]
        return {it[0].rstrip(":"): int(it[1]) / 1024 for it in rows}

    def tell(what):
        print(json.dumps(what), flush=True)
        sys.stdin.readline()

    def fed(it):
        """One text of eight tokens, without a past."""
        shape = [dim if isinstance(dim, int) else (1 if axis == 0 else 0 if "past" in it.name else 8)
                 for axis, dim in enumerate(it.shape)]
        if it.type in ("tensor(int64)", "tensor(int32)"):
            kind = numpy.int64 if it.type == "tensor(int64)" else numpy.int32
            if "mask" in it.name or "type" in it.name:
                return numpy.full(shape, "mask" in it.name, kind)
            return numpy.broadcast_to(numpy.arange(shape[-1], dtype=kind), shape).copy()
        return numpy.full(shape, 0.5, numpy.float16 if it.type == "tensor(float16)" else numpy.float32)

    path, is_packed = sys.argv[2], sys.argv[3] == "packed"
    if not path:
        tell({})
        tell(memory())
        sys.exit()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if is_packed:
        # As onnxq loads it: it was optimized when it was packed.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    load = time.perf_counter() - start
    inputs = {it.name: fed(it) for it in session.get_inputs()}
    times = []
    for _ in range(int(sys.argv[4])):
        start = time.process_time()
        outputs = session.run(None, inputs)
        times.append(time.process_time() - start)
    digest = hashlib.sha256(b"".join(numpy.ascontiguousarray(it).tobytes() for it in outputs))
    tell({"load": load, "run": min(times), "outputs": digest.hexdigest()})
    # Now all are loaded.
    tell(memory())
    sys.exit()

from common import arguments, fixture, rounds, run  # noqa: E402  (a child needs nothing of it)

onnxq, *models = arguments(lambda onnxq, folder: [onnxq, fixture("model.onnx")])


def processes(path, form, count, variables=None):
    """What so many processes say, all loaded at the same time."""
    command = [sys.executable, __file__, "child", path, form, str(rounds(20))]
    pipe, environment = subprocess.PIPE, {**os.environ, **(variables or {})}
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
               for _ in range(count)]
    first = [json.loads(it.stdout.readline()) for it in started]
    for it in started:
        print(file=it.stdin, flush=True)
    second = [json.loads(it.stdout.readline()) for it in started]
    for it in started:
        it.communicate("\n")
    return [a | b for a, b in zip(first, second)]


def row(name, cells):
    print(f"{name:28}" + "".join(f"{it:>12}" for it in cells), flush=True)


failed = False
HUGE = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
for model in models:
    with tempfile.TemporaryDirectory() as folder:
        package = os.path.join(folder, "package")
        made = json.loads(run([onnxq, "-q", "package", model, "-o", package, "--json"]))
        name = os.path.basename(model)
        packed = os.path.join(package, made["models"][0]["prepacked"])
        row(name, ["load s", "run ms", "anonymous", "of it huge", "PSS", "PSS of two", "ratio"])
        (bare,) = processes("", "none", 1)
        row("(no model)", ["", "", f"{bare['Anonymous']:.1f}", "", f"{bare['Pss']:.1f}", "", ""])
        answers = set()
        for form, path, variables in [("plain", model, None), ("plain, huge pages", model, HUGE),
                                      ("packed", packed, None)]:
            (one,) = processes(path, form, 1, variables)
            two = sum(it["Pss"] for it in processes(path, form, 2, variables))
            answers.add(one["outputs"])
            row(form, [f"{one['load']:.2f}", f"{one['run'] * 1e3:.2f}", f"{one['Anonymous']:.1f}",
                       f"{one['AnonHugePages']:.1f}", f"{one['Pss']:.1f}", f"{two:.1f}",
                       f"{two / one['Pss']:.2f}"])
        if len(answers) > 1:
            failed = True
            print(f"{name}: OUTPUTS DIFFER")
sys.exit(failed)
