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


class Decoder:
    """A decoder with a cache, and what it has seen of one text.

    `head_size` stands for a last dimension of the cache that the model leaves open.
    """

    TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int8)": "int8"}

    def __init__(self, model, head_size=0):
        self.model, self.head_size = model, head_size
        self.inputs = {it.name: it for it in model.get_inputs()}
        self.outputs = [it.name for it in model.get_outputs()]
        self.start()

    def start(self):
        """Forgets the text."""
        import numpy

        self.past, self.seen = {}, 0
        for name, it in self.inputs.items():
            if name.startswith("past"):
                size = it.shape[3] if isinstance(it.shape[3], int) else self.head_size
                self.past[name] = numpy.zeros((1, it.shape[1], 0, size), self.TYPES[it.type])

    def next(self, tokens):
        """Logits of more tokens: a row for each."""
        import numpy

        total = self.seen + len(tokens)
        feed = {"input_ids": numpy.array([tokens], numpy.int64),
                "attention_mask": numpy.ones((1, total), numpy.int64),
                "position_ids": numpy.arange(self.seen, total, dtype=numpy.int64)[None]}
        feed = {k: v for k, v in (feed | self.past).items() if k in self.inputs}
        outputs = dict(zip(self.outputs, self.model.run(None, feed)))
        presents = [it for it in outputs if it.startswith("present")]
        self.past = {it.replace("present", "past_key_values"): outputs[it] for it in presents}
        self.seen = total
        return outputs["logits"][0]

    def greedy(self, prompt, count, ends):
        """The likeliest tokens after a prompt, until one of `ends`, and how far each is above the next."""
        import numpy

        self.start()
        tokens, margins, new = [], [], list(prompt)
        while len(tokens) < count and not (tokens and tokens[-1] in ends):
            logits = self.next(new)[-1].astype(numpy.float32)
            least, most = numpy.partition(logits, -2)[-2:]
            new = [int(logits.argmax())]
            tokens, margins = tokens + new, margins + [float(most - least)]
        return tokens, margins


# Of a batch, other kernels run (4 bits: logits differ by 0.3), and with one range of 8-bit activations for
# all rows other rounding: only where the likeliest token was this far above the next, it must be the same.
TIE = 0.5


def judge(what, tokens, expected, limit):
    """Whether tokens differ where onnxruntime's own (of `Decoder.greedy`) is `limit` above the next."""
    known, margins = expected
    at = next((i for i, (a, b) in enumerate(zip(tokens, known)) if a != b), None)
    if at is None and len(tokens) >= len(known):
        print(f"{what}: same")
        return False
    at = len(tokens) if at is None else at
    print(f"{what}: DIFFERENT at token {at}, where onnxruntime's is {margins[at]:.2g} above the next:", *known)
    return margins[at] >= limit
