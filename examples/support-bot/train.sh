#!/usr/bin/env bash
# Teaches a chat model the answers of a support desk, on a CPU: from a checkpoint to a small model.
#
#   train.sh CHECKPOINT OUT
#
#   train.sh SmolLM2-135M-Instruct support-model
#
# CHECKPOINT is the folder of a model that can chat already: config.json, safetensors, tokenizer.json and
# a chat template. OUT gets float/ (the checkpoint as ONNX), tuned/ (after training) and int4/ (the tuned
# model, quantized). Training that was stopped goes on when the script is called again.
#
# Prints what answers to held-out questions lose before and after training, and how the quantized model
# answers one of them.
#
# Environment:
#   ONNXQ    the program                  [onnxq]
#   STEPS    steps of training            [100]
#   WINDOW   tokens of an example         [128]
#   RATE     the learning rate            [0.00005]
#   RECOVER  steps after quantization     [50]
set -euo pipefail

checkpoint=${1:?usage: train.sh CHECKPOINT OUT}
out=${2:?usage: train.sh CHECKPOINT OUT}
onnxq=${ONNXQ:-onnxq}
here=$(cd "$(dirname "$0")" && pwd)
question='How large is the water tank?'

# A model of an earlier call is taken as it is; each step writes its file whole or not at all.
if [ ! -e "$out/float" ]; then
    mkdir -p "$out"
    "$onnxq" import "$checkpoint" -o "$out/float"
fi

# What runs a model reads these beside it.
beside() {
    mkdir -p "$out/$1"
    local file
    for file in config.json generation_config.json tokenizer.json tokenizer_config.json chat_template.jinja; do
        if [ -e "$out/float/$file" ]; then
            cp "$out/float/$file" "$out/$1/"
        fi
    done
}

# Only answers count: not the questions, and not what the template puts around both.
if [ ! -e "$out/tuned/model.onnx" ]; then
    beside tuned
    "$onnxq" distil "$out/float" --student given --loss ce \
        --data "$here/answers.jsonl" --held-out "$here/held_out.jsonl" \
        --window "${WINDOW:-128}" --steps "${STEPS:-100}" --learning-rate "${RATE:-0.00005}" \
        -o "$out/tuned/model.onnx"
fi

# Solvers and training see the same conversations; several share a window, so that samples are long.
if [ ! -e "$out/int4/model.onnx" ]; then
    beside int4
    "$onnxq" distil "$out/tuned" --recipe int4_recovered --data "$here/answers.jsonl" --pack \
        --window "${WINDOW:-128}" --steps "${RECOVER:-50}" -o "$out/int4/model.onnx"
fi

for model in float int4; do
    printf '\n%s: %s\n' "$model" "$question"
    "$onnxq" run "$out/$model" "$question" --max-tokens 60
done
