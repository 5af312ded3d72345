#!/usr/bin/env python3
"""Networks that are no language models, under the int8 recipes: size, distance from float, time.

usage: networks.py ONNXQ [--lines TRAIN.txt EVAL.txt] MODEL.onnx…

Inputs are noise (seeded), 64 tokens or 16 frames where a dimension is open; images 48 × 320. With --lines a
text recogniser gets pictures of lines of text instead (Pillow and the DejaVu fonts), 32 to calibrate and 100
to judge, and the characters that differ are counted. Prints for each recipe the size as a part of the
float file's, the signal-to-noise ratio of each float output in dB, the share of equal argmaxes, and how
many times as fast it is: medians of thread CPU time, in turn, one thread. Distances are those of a CPU
whose int8 kernels do not saturate; times are this CPU's, as ONNX Runtime runs the files by itself.

The models measured for the project are files of PyPI's rapidocr (recognition and classification),
ddddocr (common), openwakeword (embedding), silero-vad, LAC and deepcut.
"""
import difflib
import glob
import os
import tempfile
import time

import numpy as np

from common import arguments, fixture, quantize, rounds, session

DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": bool}
IMAGE = {1: 3, 2: 48, 3: 320}


def shape_of(value):
    """The dimensions of an input, open ones by its rank."""
    rank = len(value.shape)
    if rank == 4:
        return [d if isinstance(d, int) and d > 0 else IMAGE.get(i, 1) for i, d in enumerate(value.shape)]
    return [d if isinstance(d, int) and d > 0 else (1 if i == 0 else 64) for i, d in enumerate(value.shape)]


def noise(model, random):
    """Inputs that the model takes: rates and lengths are constants, ids small, floats like images."""
    inputs = {}
    for it in model.get_inputs():
        dtype, shape = DTYPES[it.type], shape_of(it)
        if it.name in ("sr", "rate"):
            inputs[it.name] = np.array(16000, dtype)
        elif dtype is bool:
            inputs[it.name] = np.ones(shape, bool)
        elif np.issubdtype(dtype, np.integer):
            inputs[it.name] = random.integers(0, 20, shape).astype(dtype)
        else:
            inputs[it.name] = random.normal(0, 0.5, shape).astype(dtype)
    return inputs


def text_lines(path, count, seed):
    """Lines of a text as a detector cuts them out: two fonts and sizes, a little turned, blurred, noisy."""
    from PIL import Image, ImageDraw, ImageFilter, ImageFont

    fonts = sorted(glob.glob("/usr/share/fonts/truetype/dejavu/*.ttf"))
    random, words = np.random.default_rng(seed), open(path, encoding="utf-8").read().split()
    pictures = []
    for _ in range(count):
        font = ImageFont.truetype(fonts[random.integers(len(fonts))], int(random.integers(22, 34)))
        text, at = "", int(random.integers(len(words) - 20))
        for word in words[at:at + 20]:
            if font.getlength(f"{text} {word}") > 300:
                break
            text = f"{text} {word}".strip()
        back, front = int(random.integers(150, 256)), int(random.integers(0, 90))
        if random.random() < 0.2:
            back, front = front, back
        image = Image.new("L", (320, 48), back)
        place = (int(random.integers(2, 10)), int(random.integers(2, 10)))
        ImageDraw.Draw(image).text(place, text, fill=front, font=font)
        image = image.rotate(float(random.normal(0, 0.7)), fillcolor=back)
        image = image.filter(ImageFilter.GaussianBlur(float(random.random())))
        pixels = np.asarray(image, np.float32)[None].repeat(3, 0) + random.normal(0, 6, (3, 48, 320))
        pictures.append(((pixels / 255 - 0.5) / 0.5).astype(np.float32))
    return np.stack(pictures)


def decoded(rows):
    """Classes of a CTC output without blanks and repetitions."""
    best = rows[0].argmax(-1)
    return [int(c) for i, c in enumerate(best) if c and (i == 0 or c != best[i - 1])]


def characters(reference, candidate):
    """The share of characters that differ."""
    wrong = total = 0
    for a, b in zip(reference, candidate):
        a, b = decoded(a[0]), decoded(b[0])
        same = sum(m.size for m in difflib.SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks())
        wrong, total = wrong + (len(a) + len(b) - 2 * same) / 2, total + len(a)
    return wrong / max(total, 1)


def speed(first, other, feeds):
    times = [[], []]
    for at in range(rounds(30)):
        for model, list_ in zip((first, other), times):
            start = time.thread_time()
            model.run(None, feeds[at % len(feeds)])
            list_.append(time.thread_time() - start)
    return np.median(times[0]) / np.median(times[1])


def save(path, feeds):
    """Samples by input name; what has no batch axis is given once."""
    np.savez(path, **{n: np.concatenate([f[n] for f in feeds]) if feeds[0][n].ndim else feeds[0][n] for n in feeds[0]})


def measure(onnxq, path, lines, folder):
    random, model = np.random.default_rng(0), session(path, exact=True)
    if lines:
        name = model.get_inputs()[0].name
        feeds, judged = ([{name: p[None]} for p in text_lines(*it)] for it in ((lines[0], 32, 1), (lines[1], 100, 2)))
    else:
        feeds, judged = ([noise(model, random) for _ in range(n)] for n in (16, 8))
    data = os.path.join(folder, "data.npz")
    save(data, feeds)
    reference = [model.run(None, f) for f in judged]
    for recipe, flags in (("avx512_vnni", []), ("avx512_vnni_static", ["--calibration", data])):
        output = os.path.join(folder, "q.onnx")
        quantize(onnxq, path, recipe, output, *flags)
        other = session(output, exact=True)
        got = [other.run(None, f) for f in judged]
        pairs = [(np.concatenate([r[i].ravel() for r in reference]), np.concatenate([g[i].ravel() for g in got]))
                 for i, it in enumerate(reference[0]) if it.dtype.kind == "f"]
        ratios = [10 * np.log10((a**2).sum() / max(((a - b) ** 2).sum(), 1e-30)) for a, b in pairs]
        same = np.mean([(r[0].argmax(-1) == g[0].argmax(-1)).mean() for r, g in zip(reference, got)])
        text = f"  characters that differ {characters(reference, got):.4f}" if lines else ""
        print(f"{os.path.basename(path)}  {recipe}  size x{os.path.getsize(output) / os.path.getsize(path):.3f}  "
              f"SQNR {', '.join(f'{r:.1f}' for r in ratios)}  same argmax {same:.4f}{text}  "
              f"speed x{speed(session(path), session(output), judged):.2f}", flush=True)


words = arguments(lambda onnxq, folder: [onnxq, fixture("model.onnx")])
onnxq, rest, texts = words[0], words[1:], None
if rest[0] == "--lines":
    texts, rest = rest[1:3], rest[3:]
with tempfile.TemporaryDirectory() as scratch:
    for network in rest:
        measure(onnxq, network, texts, scratch)
