#!/usr/bin/env bash
# All benchmarks of a machine without a GPU, one after the other, each under 4 minutes; figures go to results/.
# Before: scripts/setup.sh --with train --with benchmark && source scripts/activate.sh, and a quiet machine.
# DATA names CamVid or another data set with a val split; without it, parity is measured on drawn streets.
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
