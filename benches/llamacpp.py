"""GGUF files as llama.cpp computes them: their distance to a reference, and llama.cpp's own types beside them.

Needs a Python with numpy, gguf and llama-cpp-py-sync (llama.cpp, prebuilt); onnxruntime where the reference is an
ONNX model, tokenizers for `tokens`:

    llamacpp.py compare REFERENCE IDS FILE.gguf …     KL divergence and top-1 to REFERENCE (.onnx, .gguf, or .npy of
                                                      logits), at the tokens of IDS (.npy, [rows, tokens])
    llamacpp.py ladder FLOAT.gguf IDS CALIBRATION_IDS OUT TYPE…   the same of llama.cpp's types, each with an importance
                                                      matrix of the calibration tokens, as llama-quantize makes them
    llamacpp.py tokens FILE.gguf TOKENIZER.json TEXT… whether both cut the lines of texts into the same tokens

llama-cpp-py-sync needs glibc 2.38. On older systems LLAMA_CPP names a folder with the libraries, such as
node_modules/@node-llama-cpp/linux-x64/bins/linux-x64 of npm's `@node-llama-cpp/linux-x64`.

Logits are those of float32 caches without flash attention, one row of tokens at a time.
"""

import argparse
import os
import sys

import numpy as np


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
        if tokens:
            params = self.lib.llama_context_default_params()
            params.n_ctx = params.n_batch = params.n_ubatch = max(tokens, 32)
            params.n_seq_max = 1
            params.n_threads = params.n_threads_batch = threads
            params.flash_attn_type = 0
            params.type_k = params.type_v = 0
            params.n_outputs_max = tokens
            self.context = self.lib.llama_init_from_model(self.model, params)
            if self.context == self.ffi.NULL:
                raise SystemExit(f"llama.cpp makes no context for {path}")

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
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def distance(reference, candidate):
    """Mean KL divergence and share of equal first choices, row by row of tokens."""
    kl, top, count, furthest = 0.0, 0, 0, 0.0
    for ours, theirs in zip(reference, candidate):
        p, q = log_softmax(ours), log_softmax(theirs)
        kl += float((np.exp(p) * (p - q)).sum(-1).sum())
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
        print(f"{os.path.basename(path)}\t{size}\tKL {kl:.7f}\ttop-1 {top:.4f}\tmost {furthest:.2e}\t{types(path)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    commands = parser.add_subparsers(required=True)
    it = commands.add_parser("compare")
    it.add_argument("reference")
    it.add_argument("ids")
    it.add_argument("files", nargs="+")
    it.set_defaults(run=compare)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
