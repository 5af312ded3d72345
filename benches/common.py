"""What the measurements share: arguments, runs of onnxq, sessions of ONNX Runtime.

Every script of this folder takes `--smoke ONNXQ` instead of its arguments: then it runs for a
moment on fixtures/slm-fixture, to show that it still works. The figures mean nothing then.
"""
import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile

FIXTURE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "slm-fixture")
# Whether this is no measurement.
SMOKE = sys.argv[1:2] == ["--smoke"]

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def arguments(smoke):
    """What follows the script's name; `smoke(onnxq, folder)` says what stands in its place.

    The folder is empty, and gone when the script ends.
    """
    if not SMOKE:
        return sys.argv[1:]
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return [str(it) for it in smoke(sys.argv[2], folder)]


def rounds(count):
    """How often something is measured."""
    return 1 if SMOKE else count


def fixture(name):
    return os.path.join(FIXTURE, name)


def tokens(folder, rows=2, length=16):
    """A file with some of the fixture's token ids."""
    import numpy

    path = os.path.join(folder, "ids.npy")
    numpy.save(path, numpy.load(fixture("eval_ids.npy"))[:rows, :length])
    return path


def run(command):
    """Runs a command that must succeed; its output."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr}")
    return done.stdout


def quantize(onnxq, model, recipe, output, *flags):
    run([onnxq, "-q", "quantize", model, "-r", recipe, "-o", output, "-f", *flags])
    return output


def quantized(onnxq, folder, recipe="int4"):
    """The fixture, quantized without data."""
    return quantize(onnxq, fixture("model.onnx"), recipe, os.path.join(folder, f"{recipe}.onnx"))


def figures(onnxq, reference, candidate, data, *flags):
    """The report of `validate`: `outputs` by name, `size`, …"""
    command = [onnxq, "-q", "validate", reference, candidate, "--data", data, "--json", *flags]
    return json.loads(run(command))


def session(path, threads=1, exact=False):
    """A session on the CPU; a path or the bytes of a model. `threads`: 0 for as many as it likes.

    `exact`: products of int8 do not saturate, as on CPUs with VNNI, whatever this CPU is.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def text_inputs(ids):
    """What a language model takes beside token ids of that shape."""
    import numpy

    ids = ids.astype(numpy.int64)
    return {
        "input_ids": ids,
        "attention_mask": numpy.ones_like(ids),
        "token_type_ids": numpy.zeros_like(ids),
        "position_ids": numpy.broadcast_to(numpy.arange(ids.shape[1]), ids.shape).copy(),
    }
