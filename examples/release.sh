#!/usr/bin/env bash
# Releases a quantized model: build it, prove it, and publish it only if it holds what it must.
#
#   release.sh MODEL OUT [VALIDATE OPTION …]
#
#   release.sh model.onnx releases/v2 --data test.txt --tokenizer tokenizer.json
#
# The result is OUT with the model, its report in every format, and checksums; OUT appears whole or
# not at all. Exit code 1: a gate was missed, and nothing was published; the report that says which
# is in OUT.rejected. Any other code: see `onnxq --help`.
#
# Environment:
#   ONNXQ        the program                        [onnxq]
#   RECIPE       how to quantize                    [avx512_vnni]
#   CALIBRATION  data to calibrate on, if the recipe learns from data
#   GATES        what must hold, separated by spaces
#   BASELINE     report.json of the last release: nothing may get worse
#   PUBLISH      a command that gets OUT as its last argument, once everything is there
set -euo pipefail

model=${1:?usage: release.sh MODEL OUT [VALIDATE OPTION …]}
out=${2:?usage: release.sh MODEL OUT [VALIDATE OPTION …]}
shift 2
onnxq=${ONNXQ:-onnxq}
recipe=${RECIPE:-avx512_vnni}
gates=${GATES:-"kl.upper<=0.01 top1>=0.95 nonfinite_rows<=0 size_ratio<=0.35"}

if [ -e "$out" ]; then
    echo "release.sh: $out exists already" >&2
    exit 2
fi
mkdir -p "$(dirname "$out")"
staging=$(mktemp -d "$(dirname "$out")/.release-XXXXXX")
trap 'rm -rf "$staging"' EXIT

options=(--report "$staging/report")
for gate in $gates; do
    options+=(--gate "$gate")
done
[ -z "${BASELINE:-}" ] || options+=(--baseline "$BASELINE")

# Build. Nothing is judged on the data that it was calibrated on.
quantize=(quantize "$model" --recipe "$recipe" -o "$staging/model.onnx")
[ -z "${CALIBRATION:-}" ] || quantize+=(--calibration "$CALIBRATION")
for at in "$@"; do
    case $at in
    # Text that is calibrated on needs the tokenizer as well; without such data it has no effect.
    --tokenizer | --preprocess) describes=${CALIBRATION:+$at} ;;
    *)
        [ -z "${describes:-}" ] || quantize+=("$describes" "$at")
        describes=
        ;;
    esac
done
"$onnxq" "${quantize[@]}"

# Prove, and judge.
code=0
"$onnxq" validate "$model" "$staging/model.onnx" "${options[@]}" --full "$@" || code=$?
if [ "$code" -ne 0 ]; then
    if [ -d "$staging/report" ]; then
        rm -rf "$out.rejected"
        mv "$staging/report" "$out.rejected"
    fi
    exit "$code"
fi

# Publish.
sums=$(cd "$staging" && find . -type f | LC_ALL=C sort | xargs -d '\n' sha256sum)
printf '%s\n' "$sums" >"$staging/SHA256SUMS"
chmod 755 "$staging"
mv "$staging" "$out"
trap - EXIT
echo "released $out" >&2
if [ -n "${PUBLISH:-}" ]; then
    # Words on purpose: a command with its arguments.
    $PUBLISH "$out"
fi
