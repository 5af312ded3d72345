"""Converts the cases of the onnx backend suite to a newer opset and runs them before and after.

    python benches/backend_suite.py ONNXQ [OPSET] [PART OF A NAME]

All node cases of the installed onnx package, as their generators make them, and the models with
data that lie in the package. A case counts if ONNX Runtime passes it at its own opset; after
`onnxq convert --opset` it must pass again, with the suite's tolerance, or be refused by name.
Prints a table, the refusals by reason, and every failure; exits with 1 if there is one.
"""

import collections
import glob
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from common import SMOKE, arguments

warnings.simplefilter("ignore")
ort.set_default_logger_severity(4)
PROCESSES = 2
SECONDS = 120


def collect(part):
    """(name, model, [(inputs, outputs)], rtol, atol) of each case, inputs and outputs in order."""
    from onnx.backend.test.case.node import collect_testcases

    # To make the cases of one operator takes a moment, those of all take many seconds.
    for it in collect_testcases("Split" if SMOKE else None):
        yield it.name, it.model, it.data_sets, it.rtol, it.atol
    root = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data")
    for folder in sorted(glob.glob(os.path.join(root, "*", "*"))):
        path = os.path.join(folder, "model.onnx")
        sets = sorted(glob.glob(os.path.join(folder, "test_data_set_*")))
        if part not in os.path.basename(folder):
            continue
        if os.path.exists(path) and sets:
            model = onnx.load(path)
            data = [tuple(values(it, model, kind) for kind in ("input", "output")) for it in sets]
            kind = os.path.basename(os.path.dirname(folder))
            yield f"{kind}/{os.path.basename(folder)}", model, data, 1e-3, 1e-7


def values(folder, model, kind):
    infos = getattr(model.graph, kind)
    constants = {it.name for it in model.graph.initializer}
    infos = [it for it in infos if it.name not in constants]
    files = sorted(
        glob.glob(os.path.join(folder, f"{kind}_*.pb")),
        key=lambda it: int(re.search(r"_(\d+)\.pb$", it)[1]),
    )
    return [value(it, info.type) for it, info in zip(files, infos)]


def value(path, type_):
    with open(path, "rb") as file:
        data = file.read()
    if type_.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if type_.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def plain(it):
    if isinstance(it, onnx.TensorProto):
        return numpy_helper.to_array(it)
    return np.asarray(it) if isinstance(it, np.generic) else it


def is_foreign(it):
    """Types that numpy lacks: halves of brains, small floats, and less than a byte."""
    return isinstance(it, np.ndarray) and it.dtype.kind not in "biufcOSU"


def run(path, data_sets):
    """Outputs for each data set."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [it.name for it in session.get_inputs()]
    results = []
    for inputs, outputs in data_sets:
        inputs, outputs = [plain(it) for it in inputs], [plain(it) for it in outputs]
        if any(map(is_foreign, inputs + outputs)):
            results.append(run_foreign(session, dict(zip(names, inputs)), outputs))
        else:
            results.append(session.run(None, dict(zip(names, inputs))))
    return results


def run_foreign(session, inputs, expected):
    """Foreign tensors go by address, element type and shape; results have the expected shape."""
    binding, kept = session.io_binding(), []
    for name, it in inputs.items():
        if is_foreign(it):
            tensor = numpy_helper.from_array(it)
            kept.append(np.frombuffer(tensor.raw_data, np.uint8).copy())
            kind, address = tensor.data_type, kept[-1].ctypes.data
            binding.bind_input(name, "cpu", 0, kind, list(it.shape), address)
        else:
            binding.bind_cpu_input(name, it)
    buffers = {}
    for info, it in zip(session.get_outputs(), expected):
        if is_foreign(it):
            tensor = numpy_helper.from_array(it)
            buffer = np.zeros(len(tensor.raw_data), np.uint8)
            buffers[info.name] = (tensor, buffer)
            address = buffer.ctypes.data
            binding.bind_output(info.name, "cpu", 0, tensor.data_type, list(it.shape), address)
        else:
            binding.bind_output(info.name, "cpu")
    session.run_with_iobinding(binding)
    results = []
    for info, it in zip(session.get_outputs(), binding.get_outputs()):
        if info.name in buffers:
            tensor, buffer = buffers[info.name]
            tensor.raw_data = buffer.tobytes()
            results.append(numpy_helper.to_array(tensor))
        else:
            results.append(it.numpy())
    return results


def same(expected, actual, rtol, atol):
    expected = plain(expected)
    if isinstance(expected, (list, tuple)):
        pairs = zip(expected, actual)
        return len(expected) == len(actual) and all(same(*it, rtol, atol) for it in pairs)
    if expected is None or actual is None:
        return expected is None and actual is None
    expected, actual = np.asarray(expected), np.asarray(actual)
    if expected.shape != actual.shape:
        return False
    if expected.dtype.kind in "OSU" or actual.dtype.kind in "OSU":
        return bool((expected.astype(str) == actual.astype(str)).all())
    if expected.dtype != actual.dtype:
        return False
    if expected.dtype.kind in "biu":
        return bool((expected == actual).all())
    pair = [it if it.dtype.kind == "c" else it.astype(np.float64) for it in (actual, expected)]
    return bool(np.allclose(*pair, rtol=rtol, atol=atol, equal_nan=True))


def passes(path, case):
    """None, or why not."""
    _, _, data_sets, rtol, atol = case
    try:
        results = run(path, data_sets)
    except Exception as err:
        return f"{type(err).__name__}: {err}".splitlines()[0][:200]
    for (_, expected), actual in zip(data_sets, results):
        if len(expected) != len(actual):
            return f"{len(actual)} outputs instead of {len(expected)}"
        for at, pair in enumerate(zip(expected, actual)):
            if not same(*pair, rtol, atol):
                return f"output {at} differs"
    return None


def check(index):
    """(name, opset, outcome, reason)."""
    case = CASES[index]
    name, model = case[0], case[1]
    opset = next((it.version for it in model.opset_import if it.domain in ("", "ai.onnx")), 0)
    with tempfile.TemporaryDirectory() as folder:
        before, after = (os.path.join(folder, it) for it in ("before.onnx", "after.onnx"))
        onnx.save(model, before)
        reason = passes(before, case)
        if reason:
            return name, opset, "not before", reason
        command = [ONNXQ, "convert", before, "--opset", str(TARGET), "-o", after, "--allow-noop"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        if done.returncode == 4:
            return name, opset, "refused", done.stderr.strip()
        if done.returncode != 0:
            return name, opset, "failed", f"exit {done.returncode}: {done.stderr.strip()[:300]}"
        reason = (opset and imports(after)) or passes(after, case)
        return name, opset, "failed" if reason else "passed", reason


def imports(path):
    """None if the model says what it was converted to."""
    model = onnx.load(path)
    found = [it.version for it in model.opset_import if it.domain in ("", "ai.onnx")]
    return None if found == [TARGET] else f"imports {found}"


def survive(index):
    """`check` in a process of its own, for cases that bring ONNX Runtime down."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        try:
            return pool.apply_async(check, (index,)).get(SECONDS)
        except multiprocessing.TimeoutError:
            return CASES[index][0], 0, "not before", "ONNX Runtime crashed or hung"


def group(text):
    """Reasons without the names of nodes."""
    text = text[text.find("error[") :] if "error[" in text else text
    return re.sub(r"`[^`]*` \(", "(", " ".join(text.split()))


def main():
    part = ARGUMENTS[2] if len(ARGUMENTS) > 2 else ""
    # Before the processes are forked, which inherit it.
    CASES.extend(it for it in collect(part) if part in it[0])
    results = []
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        waiting = [pool.apply_async(check, (it,)) for it in range(len(CASES))]
        for index, result in enumerate(waiting):
            try:
                results.append(result.get(SECONDS))
            except multiprocessing.TimeoutError:
                results.append(survive(index))
    report(results)
    sys.exit(any(it[2] == "failed" for it in results))


def report(results):
    outcomes = ("not before", "passed", "refused", "failed")
    counts = collections.Counter((it[1], it[2]) for it in results)
    print(f"onnx {onnx.__version__}, onnxruntime {ort.__version__}, to opset {TARGET}")
    print("own opset   cases  " + "  ".join(f"{it:>10}" for it in outcomes))
    for opset in sorted({it[1] for it in results}):
        row = [counts[opset, it] for it in outcomes]
        print(f"{opset:9}  {sum(row):6}  " + "  ".join(f"{it:10}" for it in row))
    total = [sum(it[2] == outcome for it in results) for outcome in outcomes]
    print(f"{'all':>9}  {sum(total):6}  " + "  ".join(f"{it:10}" for it in total))
    for outcome in ("refused", "failed", "not before"):
        reasons = collections.defaultdict(list)
        for name, _, found, reason in results:
            if found == outcome:
                reasons[group(reason)].append(name)
        if outcome == "not before" and not VERBOSE:
            continue
        print(f"\n{outcome}:")
        for reason, names in sorted(reasons.items(), key=lambda it: -len(it[1])):
            print(f"  {len(names):4}  {reason}\n        {', '.join(names[:5])}")


CASES = []
ARGUMENTS = arguments(lambda onnxq, folder: [onnxq, 26, "test_split_equal_parts_1d"])
ONNXQ = ARGUMENTS[0]
TARGET = int(ARGUMENTS[1]) if len(ARGUMENTS) > 1 else 26
VERBOSE = bool(os.environ.get("VERBOSE"))

if __name__ == "__main__":
    main()
