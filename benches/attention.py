#!/usr/bin/env python3
"""Attention-23 against GroupQueryAttention and MultiHeadAttention in ONNX Runtime, microseconds.

usage: attention.py        Thread CPU time of one node (a sixth of six in a row), one thread, forms in
turn, with a float mask; with a cache (past and present) and without. Then a window of 128 tokens: the
attribute of opset 25 (ONNX Runtime 1.32) against a mask.
"""
import time

import numpy as np
from onnx import TensorProto as T
from onnx import helper as h

from common import SMOKE, arguments, rounds, session

LAYERS = 6


def model(form, cached, heads, groups, size):
    width = heads if form == "MultiHeadAttention" else groups
    inputs = {"q": (T.FLOAT, ["b", "s", heads * size]), "k": (T.FLOAT, ["b", "s", width * size]),
              "v": (T.FLOAT, ["b", "s", width * size]), "m": (T.FLOAT, [1, 1, "s", "t"]),
              "last": (T.INT32, ["b"]), "total": (T.INT32, [])}
    past = ["pk", "pv"] if cached else ["", ""]
    if cached:
        inputs |= {it: (T.FLOAT, ["b", width, "p", size]) for it in past}
    nodes, outputs, x = [], [], "q"
    for i in range(LAYERS):
        names = [f"o{i}"] + ([f"k{i}", f"v{i}"] if cached else [])
        if form == "Attention":
            node = h.make_node(form, [x, "k", "v", "m", *past], names, q_num_heads=heads, kv_num_heads=groups)
        elif form == "GroupQueryAttention":
            rest = ["last", "total", "", "", "", "m"]
            node = h.make_node(form, [x, "k", "v", *past, *rest], names, domain="com.microsoft",
                               num_heads=heads, kv_num_heads=groups)
        else:
            node = h.make_node(form, [x, "k", "v", "", "", "m", *past], names, domain="com.microsoft",
                               num_heads=heads)
        nodes.append(node)
        outputs += names[1:]
        x = f"o{i}"
    values = [h.make_tensor_value_info(n, *it) for n, it in inputs.items()]
    results = [h.make_tensor_value_info(n, T.FLOAT, None) for n in [x, *outputs]]
    opsets = [h.make_opsetid("", 23), h.make_opsetid("com.microsoft", 1)]
    made = h.make_model(h.make_graph(nodes, "g", values, results), opset_imports=opsets, ir_version=10)
    return session(made.SerializeToString()), width


arguments(lambda onnxq, folder: [])
for heads, groups, size in ((8, 4, 32), (16, 4, 64)):
    for cached, cases in ((True, ((1, 128), (1, 1024), (16, 0), (128, 0))), (False, ((16, 0), (128, 0), (512, 0)))):
        forms = ["Attention", "GroupQueryAttention"] + ([] if cached else ["MultiHeadAttention"])
        sessions = {it: model(it, cached, heads, groups, size) for it in forms}
        for new, past in cases[:1] if SMOKE else cases:
            random = np.random.default_rng(0)
            floats = lambda *shape: random.standard_normal(shape).astype(np.float32)
            seen = np.arange(new + past)[None] <= np.arange(new)[:, None] + past
            times = {it: [] for it in forms}
            for _ in range(rounds(40 if new < 512 else 9)):
                for form, (one, width) in sessions.items():
                    feed = {"q": floats(1, new, heads * size), "k": floats(1, new, width * size),
                            "v": floats(1, new, width * size), "pk": floats(1, width, past, size),
                            "pv": floats(1, width, past, size),
                            "m": np.where(seen, 0, -1e9).astype(np.float32)[None, None],
                            "last": np.array([new + past - 1], np.int32), "total": np.array(new + past, np.int32)}
                    feed = {i.name: feed[i.name] for i in one.get_inputs()}
                    start = time.thread_time()
                    one.run(None, feed)
                    times[form].append(time.thread_time() - start)
            shown = " · ".join(f"{it} {np.median(t) / LAYERS * 1e6:.1f}" for it, t in times.items())
            print(f"{heads}/{groups} heads of {size}, {'cache' if cached else 'no cache'}, {new} after {past}: {shown}")


def windowed(window, heads, groups, size):
    """One node whose tokens see `window` of those before; 0: what the input `m` lets them see."""
    names = {"q": heads * size, "k": groups * size, "v": groups * size}
    values = [h.make_tensor_value_info(n, T.FLOAT, ["b", "s", width]) for n, width in names.items()]
    attributes = {"is_causal": 1, "left_window_size": window - 1} if window else {}
    if not window:
        values.append(h.make_tensor_value_info("m", T.FLOAT, ["s", "s"]))
    node = h.make_node("Attention", [it.name for it in values], ["y"], q_num_heads=heads, kv_num_heads=groups,
                       **attributes)
    graph = h.make_graph([node], "g", values, [h.make_tensor_value_info("y", T.FLOAT, None)])
    made = h.make_model(graph, opset_imports=[h.make_opsetid("", 25 if window else 23)], ir_version=10)
    return session(made.SerializeToString())


WINDOW = 128
heads, groups, size = 8, 2, 64
forms = {"left_window_size": windowed(WINDOW, heads, groups, size), "mask": windowed(0, heads, groups, size)}
for tokens in (128,) if SMOKE else (128, 512, 2048):
    random = np.random.default_rng(0)
    floats = lambda width: random.standard_normal((1, tokens, width * size)).astype(np.float32)
    apart = np.arange(tokens)[:, None] - np.arange(tokens)
    mask = np.where((apart >= 0) & (apart < WINDOW), 0, -np.inf).astype(np.float32)
    feed = {"q": floats(heads), "k": floats(groups), "v": floats(groups), "m": mask}
    times, results = {it: [] for it in forms}, {}
    for _ in range(rounds(15)):
        for form, one in forms.items():
            given = {i.name: feed[i.name] for i in one.get_inputs()}
            start = time.thread_time()
            results[form] = one.run(None, given)[0]
            times[form].append(time.thread_time() - start)
    off = np.abs(results["mask"] - results["left_window_size"]).max()
    shown = " · ".join(f"{it} {np.median(t) * 1e6:.0f}" for it, t in times.items())
    print(f"a window of {WINDOW}, {tokens} tokens: {shown} (apart by {off:.0e})")
