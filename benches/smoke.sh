#!/usr/bin/env bash
# Runs every script of this folder for a moment on the fixture: they must not rot unseen.
# usage: benches/smoke.sh ONNXQ [SCRIPT.py…]     The first time, a Python environment is made.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
onnxq="$(realpath "$1")"
shift
export ORT_DISABLE_TELEMETRY=1
environment="${XDG_CACHE_HOME:-$HOME/.cache}/onnxq-ci/benches"
if ! cmp -s "$here/requirements.txt" "$environment/requirements.txt"; then
    rm -rf "$environment"
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$environment/"
fi
# onnxq finds ONNX Runtime there too.
export VIRTUAL_ENV="$environment" PATH="$environment/bin:$PATH"

scripts=("$@")
if [ "${#scripts[@]}" -eq 0 ]; then
    for path in "$here"/*.py; do
        [ "$(basename "$path")" = common.py ] || scripts+=("$(basename "$path")")
    done
fi
failed=0
for script in "${scripts[@]}"; do
    began="$SECONDS"
    if output="$(python "$here/$script" --smoke "$onnxq" 2>&1)" && [ -n "$output" ]; then
        echo "$script: ok, $((SECONDS - began)) s"
    else
        failed=1
        echo "$script: FAILED"
        echo "$output" | tail -n 20
    fi
    grep -q "^| \`$script" "$here/README.md" || { failed=1; echo "$script: README.md lacks it"; }
done
exit "$failed"
