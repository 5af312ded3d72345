#!/usr/bin/env bash
# Runs lm-evaluation-harness against a running `onnxq serve`, on a task whose data is made here.
# usage: run.sh URL MODEL TOKENIZER_FOLDER      (pip install "lm_eval[api]" transformers)
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp "$here/capitals.yaml" "$work/"
cd "$work"
python - <<'PY'
import json

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Russia": "Moscow",
    "Egypt": "Cairo", "Greece": "Athens", "Austria": "Vienna", "Poland": "Warsaw", "Portugal": "Lisbon", "Cuba": "Havana",
    "Norway": "Oslo", "Sweden": "Stockholm", "Kenya": "Nairobi", "Peru": "Lima", "India": "New Delhi", "China": "Beijing",
}
cities = list(CAPITALS.values())
with open("questions.jsonl", "w", encoding="utf-8") as file:
    for at, (country, city) in enumerate(CAPITALS.items()):
        others = [cities[(at + step) % len(cities)] for step in (4, 9, 13)]
        place = at % 4
        choices = [*others[:place], city, *others[place:]]
        line = {"country": country, "choices": [f" {it}" for it in choices], "answer": place}
        file.write(json.dumps(line) + "\n")
PY
HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 python -m lm_eval run --model local-completions --include_path "$work" \
    --tasks onnxq_capitals --batch_size 1 \
    --model_args "model=$2,base_url=$1/v1/completions,tokenizer=$3,tokenizer_backend=huggingface,num_concurrent=1,max_retries=1"
