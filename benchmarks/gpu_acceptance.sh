#!/usr/bin/env bash
# The gpu preset and the GPU benchmarks, on a machine with one GPU and no network: benchmarks/gpu_acceptance.sh OUT_DIR
# Needs CIFAR-10 as Parquet in data/cifar10 (or CIFAR10=FOLDER). Writes as it goes; each part has a time limit, so that
# a part that hangs does not take the others' results with it.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "$1")
data=${CIFAR10:-data/cifar10}
runs=$(mktemp -d)
mkdir -p "$out"
export PYTHONPATH=${PYTHONPATH:-}:$PWD

part() { # part NAME SECONDS COMMAND...: its output goes to OUT_DIR/log.txt
    local name=$1 limit=$2
    shift 2
    echo "=== $name: $*" >>"$out/log.txt"
    timeout "$limit" "$@" >>"$out/log.txt" 2>&1
    echo "=== $name ended with $?, $(date -u +%T)" >>"$out/log.txt"
}

nvidia-smi >"$out/log.txt" 2>&1
part study 320 python sweeps/distill_search.py --preset gpu --data "$data" --no-dashboard --storage "$runs" --name gpu
for file in report.md front.png comparison.csv latency.parquet trials.parquet study.json; do
    cp "$runs/gpu/$file" "$out/" 2>>"$out/log.txt"
done
part timer 60 python benchmarks/latency_protocol.py timer --device cuda --rounds 7
part events 60 python benchmarks/latency_protocol.py events --rounds 7
part overhead 30 python benchmarks/latency_protocol.py overhead
rm -rf "$runs"
