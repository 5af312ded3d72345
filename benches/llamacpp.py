"""GGUF files as llama.cpp computes them: their distance to a reference, and llama.cpp's own types beside them.

Needs a Python with numpy, gguf and llama-cpp-py-sync (llama.cpp, prebuilt); onnxruntime where the reference is an
ONNX model, tokenizers for `tokens`:

    llamacpp.py compare REFERENCE IDS FILE.gguf …     KL divergence and top-1 to REFERENCE (.onnx, .gguf, or .npy of
                                                      logits), at the tokens of IDS (.npy, [rows, tokens])
    llamacpp.py ladder FLOAT.gguf IDS CALIBRATION_IDS OUT TYPE…   the same of llama.cpp's types, each with an importance
                                                      matrix of the calibration tokens, as llama-quantize makes them
    llamacpp.py tokens FILE.gguf TOKENIZER.json TEXT… whether both cut the lines of texts into the same tokens; of .jsonl
                                                      what each line has as "text", such as fixtures/text/hard.jsonl

llama-cpp-py-sync needs glibc 2.38. On older systems LLAMA_CPP names a folder with the libraries, such as
node_modules/@node-llama-cpp/linux-x64/bins/linux-x64 of npm's `@node-llama-cpp/linux-x64`.

Logits are those of float32 caches without flash attention, one row of tokens at a time.
"""

import argparse
import json
import os
import sys

import numpy as np

from common import arguments, fixture, tokens as some_tokens


def library():
    from llama_cpp_py_sync import _cffi_bindings as bindings

    ffi = bindings.get_ffi()
    folder = os.environ.get("LLAMA_CPP")
    lib = dynamic(ffi, folder) if folder else bindings.get_lib()

    @ffi.callback("void(enum ggml_log_level, const char *, void *)")
    def quiet(level, text, data):
        if level >= 4 or os.environ.get("LLAMA_LOG"):
            sys.stderr.write(ffi.string(text).decode(errors="replace"))

    library.kept = quiet
    lib.llama_log_set(quiet, ffi.NULL)
    lib.llama_backend_init()
    return ffi, lib


def dynamic(ffi, folder):
    """The libraries of a folder, whose kernels are libraries of their own."""
    import ctypes
    import glob

    def first(pattern):
        return sorted(glob.glob(os.path.join(folder, pattern)))[0]

    ctypes.CDLL(first("libggml-base*.so*"), ctypes.RTLD_GLOBAL)
    backends = ctypes.CDLL(first("libggml.*so*"), ctypes.RTLD_GLOBAL)
    backends.ggml_backend_load_all_from_path.argtypes = [ctypes.c_char_p]
    backends.ggml_backend_load_all_from_path(os.fsencode(folder))
    return ffi.dlopen(first("libllama.*so*"), ffi.RTLD_GLOBAL)


class Llama:
    """A file in llama.cpp."""

    def __init__(self, path, tokens=0, threads=2, vocab_only=False):
        self.ffi, self.lib = library()
        params = self.lib.llama_model_default_params()
        params.vocab_only = vocab_only
        self.model = self.lib.llama_model_load_from_file(os.fsencode(path), params)
        if self.model == self.ffi.NULL:
            raise SystemExit(f"llama.cpp refuses {path}")
        self.vocab = self.lib.llama_model_get_vocab(self.model)
        self.words = self.lib.llama_vocab_n_tokens(self.vocab)
        self.threads = threads
        if tokens:
            self.context_for(tokens)

    def context_for(self, tokens, callback=None):
        params = self.lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = max(tokens, 32)
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = self.threads
        params.flash_attn_type = 0
        params.type_k = params.type_v = 0
        params.n_outputs_max = tokens
        if callback:
            params.cb_eval = callback
        self.context = self.lib.llama_init_from_model(self.model, params)
        if self.context == self.ffi.NULL:
            raise SystemExit("llama.cpp makes no context")

    def importance(self, rows):
        """Mean squares of the inputs of every matrix, as llama-imatrix counts them."""
        import ctypes

        base = ctypes.CDLL(None)
        base.ggml_op_desc.restype, base.ggml_op_desc.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
        sums = {}

        def word(at, offset):
            return ctypes.c_uint64.from_address(at + offset).value

        # Where ggml_tensor has what: ne, nb, src, data, name.
        NE, NB, SRC, DATA, NAME = 16, 48, 152, 248, 256

        @self.ffi.callback("bool(struct ggml_tensor *, bool, void *)")
        def seen(tensor, ask, data):
            at = int(self.ffi.cast("uintptr_t", tensor))
            if base.ggml_op_desc(at) != b"MUL_MAT":
                return not ask
            weight, x = word(at, SRC), word(at, SRC + 8)
            name = ctypes.string_at(weight + NAME).decode()
            if ask or not name.endswith(".weight"):
                return True
            columns, count, stride = word(x, NE), word(x, NE + 8), word(x, NB + 8)
            values = np.ctypeslib.as_array(
                (ctypes.c_float * (stride // 4 * count)).from_address(word(x, DATA))
            ).reshape(count, stride // 4)[:, :columns]
            total, seen_rows = sums.get(name, (0.0, 0))
            sums[name] = (total + (values.astype(np.float64) ** 2).sum(0), seen_rows + count)
            return True

        self.context_for(rows.shape[1], seen)
        for row in rows:
            self.logits(row)
        return {name: (total / count).astype(np.float32) for name, (total, count) in sums.items()}

    def logits(self, ids):
        """Of one row of tokens, `[tokens, words]`."""
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        batch = self.lib.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for at, token in enumerate(ids):
            batch.token[at], batch.pos[at], batch.n_seq_id[at] = int(token), at, 1
            batch.seq_id[at][0], batch.logits[at] = 0, 1
        code = self.lib.llama_decode(self.context, batch)
        if code != 0:
            raise SystemExit(f"llama_decode: {code}")
        pointer = self.lib.llama_get_logits(self.context)
        size = len(ids) * self.words
        out = np.frombuffer(self.ffi.buffer(pointer, size * 4), np.float32).reshape(len(ids), -1).copy()
        self.lib.llama_batch_free(batch)
        return out

    def tokenize(self, text, special=False):
        data = text.encode()
        room = len(data) + 8
        out = self.ffi.new("llama_token[]", room)
        count = self.lib.llama_tokenize(self.vocab, data, len(data), out, room, special, True)
        return list(out[0:count])


def onnx_logits(path, ids):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for row in ids:
        feed = {}
        for it in session.get_inputs():
            if it.name == "input_ids":
                feed[it.name] = row[None].astype(np.int64)
            elif it.name == "attention_mask":
                feed[it.name] = np.ones((1, len(row)), np.int64)
            elif it.name == "position_ids":
                feed[it.name] = np.arange(len(row), dtype=np.int64)[None]
            else:
                shape = [1 if at == 0 else 0 if at == 2 else n for at, n in enumerate(it.shape)]
                feed[it.name] = np.zeros(shape, np.float32)
        yield session.run(["logits"], feed)[0][0]


def all_logits(path, ids):
    if path.endswith(".npy"):
        yield from np.load(path, mmap_mode="r")
    elif path.endswith(".gguf"):
        llama = Llama(path, ids.shape[1])
        for row in ids:
            yield llama.logits(row)
    else:
        yield from onnx_logits(path, ids)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True, dtype=np.float64)).astype(np.float32)


def distance(reference, candidate):
    """Mean KL divergence and share of equal first choices, row by row of tokens."""
    kl, top, count, furthest = 0.0, 0, 0, 0.0
    for ours, theirs in zip(reference, candidate):
        p, q = log_softmax(ours), log_softmax(theirs)
        kl += float((np.exp(p) * (p - q)).sum(dtype=np.float64))
        top += int((p.argmax(-1) == q.argmax(-1)).sum())
        furthest = max(furthest, float(np.abs(ours - theirs).max()))
        count += len(p)
    return kl / count, top / count, furthest


def types(path):
    import collections

    import gguf

    counts = collections.Counter(it.tensor_type.name for it in gguf.GGUFReader(path).tensors)
    return " ".join(f"{count}×{name}" for name, count in sorted(counts.items()))


def compare(args):
    ids = np.load(args.ids)[: args.rows]
    reference = list(all_logits(args.reference, ids))
    for path in args.files:
        kl, top, furthest = distance(reference, all_logits(path, ids))
        size = os.path.getsize(path)
        made_of = types(path) if path.endswith(".gguf") else ""
        line = f"{os.path.basename(path)}\t{size}\tKL {kl:.7f}\ttop-1 {top:.4f}\tmost {furthest:.2e}\t{made_of}"
        print(line, flush=True)


# llama_ftype: what llama-quantize calls its mixes.
MIXES = {
    "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12,
    "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "IQ2_XXS": 19, "IQ2_XS": 20,
    "IQ3_XXS": 23, "IQ1_S": 24, "IQ4_NL": 25, "IQ3_S": 26, "IQ3_M": 27, "IQ2_S": 28, "IQ2_M": 29, "IQ4_XS": 30,
}  # fmt: skip


def make(source, target, mix, importance):
    """What llama-quantize makes: MIX, or MIX:TABLE:HEAD with types of ggml for the table of words and the head."""
    ffi, lib = library()
    params = lib.llama_model_quantize_default_params()
    name, *others = mix.split(":")
    params.ftype, params.nthread = MIXES[name], 2
    if others:
        import gguf

        table, head = (gguf.GGMLQuantizationType[it] for it in others)
        params.token_embedding_type, params.output_tensor_type = int(table), int(head)
    data = ffi.new("struct llama_model_imatrix_data[]", len(importance) + 1)
    kept = []
    for at, (tensor, values) in enumerate(importance.items()):
        kept += [ffi.new("char[]", tensor.encode()), ffi.from_buffer("float[]", values)]
        data[at].name, data[at].data, data[at].size = kept[-2], kept[-1], len(values)
    params.imatrix = data
    held = ffi.new("llama_model_quantize_params *", params)
    code = lib.llama_model_quantize(os.fsencode(source), os.fsencode(target), held)
    if code != 0:
        raise SystemExit(f"llama.cpp cannot make {mix} of {source}: {code}")


def ladder(args):
    os.makedirs(args.out, exist_ok=True)
    # All of it, however few rows are compared.
    importance = Llama(args.source).importance(np.load(args.calibration))
    args.files = []
    for mix in args.types:
        path = os.path.join(args.out, f"llama-{mix.replace(':', '-')}.gguf")
        make(args.source, path, mix, importance)
        args.files.append(path)
    args.reference = args.source
    compare(args)


def lines(path):
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line)["text"] if path.endswith(".jsonl") else line


def tokens(args):
    import tokenizers

    llama, theirs = Llama(args.file, vocab_only=True), tokenizers.Tokenizer.from_file(args.tokenizer)
    count = apart = 0
    for text in args.texts:
        for line in lines(text):
            count += 1
            ours, own = theirs.encode(line, add_special_tokens=False).ids, llama.tokenize(line)
            if ours != own:
                apart += 1
                print(f"{line!r}\n  tokenizer.json {ours}\n  llama.cpp      {own}")
    print(f"{count - apart} of {count} texts have the same tokens")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64, help="rows of IDS that are compared")
    commands = parser.add_subparsers(required=True)
    for run, several, *names in [
        (compare, "files", "reference", "ids"),
        (ladder, "types", "source", "ids", "calibration", "out"),
        (tokens, "texts", "file", "tokenizer"),
    ]:
        it = commands.add_parser(run.__name__)
        for name in names:
            it.add_argument(name)
        it.add_argument(several, nargs="+")
        it.set_defaults(run=run)
    # llama.cpp may not be there: then models are held against themselves.
    smoke = lambda _, folder: ["compare", fixture("model.onnx"), some_tokens(folder), fixture("model.onnx")]
    args = parser.parse_args(arguments(smoke))
    args.run(args)


if __name__ == "__main__":
    main()
