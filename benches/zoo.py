#!/usr/bin/env python3
"""Tiny decoders and encoders of many architectures with random weights, exported by optimum.

usage: zoo.py FOLDER [NAME ...]     Needs `pip install torch transformers==4.57.6 optimum-onnx`.
Makes FOLDER/NAME/onnx/model.onnx, decoders with a cache; `fused.py` then shows what is fused of each
and whether it still computes the same. No network: nothing is downloaded.
"""
import os
import subprocess
import sys

from common import SMOKE, arguments

os.environ["HF_HUB_OFFLINE"] = "1"
LLAMA = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, vocab_size=1024, max_position_embeddings=512)
BERT = {k: LLAMA[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")}
DECODERS = {
    "bloom": dict(hidden_size=64, n_layer=2, n_head=4, vocab_size=1024),
    "falcon": dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=1024,
                   new_decoder_architecture=False, multi_query=True, alibi=False),
    "gemma": dict(LLAMA, head_dim=16),
    "gemma2": dict(LLAMA, head_dim=16, sliding_window=16, query_pre_attn_scalar=16),
    "gpt2": dict(n_embd=64, n_layer=2, n_head=4, vocab_size=1024, n_positions=512),
    "gpt_neox": dict(BERT, max_position_embeddings=512),
    "llama": LLAMA,
    "mistral": dict(LLAMA, sliding_window=16),
    "opt": dict(hidden_size=64, ffn_dim=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=1024,
                max_position_embeddings=512, word_embed_proj_dim=64),
    "phi": dict(LLAMA, num_key_value_heads=4),
    "phi3": dict(LLAMA, pad_token_id=0, eos_token_id=1, bos_token_id=1),
    "qwen2": LLAMA,
    "qwen3": dict(LLAMA, head_dim=16),
    "stablelm": LLAMA,
}
ENCODERS = {
    "bert": BERT,
    "distilbert": dict(dim=64, hidden_dim=128, n_layers=2, n_heads=4, vocab_size=1024),
    "modernbert": dict(BERT, pad_token_id=0),
    "roberta": dict(BERT, max_position_embeddings=514),
}



def export(name, folder):
    """The command that exports a model that was saved before."""
    task = "text-generation-with-past" if name in DECODERS else "feature-extraction"
    return [sys.executable, "-m", "optimum.exporters.onnx", "--model", f"{folder}/{name}/hf",
            "--task", task, f"{folder}/{name}/onnx"]


def save(name, settings, folder):
    """A model with random weights, in the form that optimum reads."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    kind = AutoModelForCausalLM if name in DECODERS else AutoModel
    torch.manual_seed(0)
    model = kind.from_config(AutoConfig.for_model(name, **settings))
    for it in model.parameters():
        if it.dim() == 1:
            # Norms that scale by one would hide what is done with their weights.
            it.data += torch.randn_like(it) * 0.1
    model.save_pretrained(f"{folder}/{name}/hf")


folder, *names = arguments(lambda onnxq, folder: [folder])
unknown = set(names) - set(DECODERS | ENCODERS)
if unknown:
    sys.exit(f"there is no {', '.join(sorted(unknown))}")
for name, settings in sorted((DECODERS | ENCODERS).items()):
    if names and name not in names:
        continue
    command = export(name, folder)
    if SMOKE:
        # torch and optimum are gigabytes: what they would be told is all that is shown.
        print(name, settings, *command[1:])
        continue
    save(name, settings, folder)
    result = subprocess.run(command, capture_output=True, text=True)
    last = result.stderr.strip().splitlines()[-1:] if result.returncode else ["ok"]
    print(name, *last, flush=True)
