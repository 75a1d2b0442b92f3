#!/usr/bin/env bash
# Run all benchmarks of a machine without a GPU one after the other, each under 4 minutes. Results go to results/.
# Before: scripts/setup.sh --with train --with benchmark && source scripts/activate.sh, on an idle machine.
# DATA is the folder of CamVid or of another data set with a val split. Without it, parity uses the procedural street.
set -euo pipefail
cd "$(dirname "$0")/.."
results=benchmark/results
run() { echo; echo "== $*"; python "benchmark/$1.py" "${@:2}" --json "$results/$1.json"; }

run engine
run parity ${DATA:+--data "$DATA"}
run transport
run node --parameters engine:=onnxruntime precision:=fp32
run cameras --parameters engine:=onnxruntime precision:=fp32
run startup --engines openvino onnxruntime
run vocabulary --parameters engine:=openvino precision:=fp32
