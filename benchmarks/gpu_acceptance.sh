#!/usr/bin/env bash
# The gpu preset and the GPU benchmarks, on a machine with one GPU and no network: benchmarks/gpu_acceptance.sh OUT_DIR
# Needs CIFAR-10 as Parquet in data/cifar10 (or CIFAR10=FOLDER) and, beside torch, the packages of the extra `train`,
# tensorboardX among them. Writes as it goes; each part has a time limit, so that a part that hangs does not take the
# others' results with it: nine minutes in all.
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
    timeout -k 15 "$limit" "$@" >>"$out/log.txt" 2>&1
    echo "=== $name ended with $?, $(date -u +%T)" >>"$out/log.txt"
}

nvidia-smi >"$out/log.txt" 2>&1
# a library that looks for the GPU when it is imported would break every fresh process, which are forked after it
part fork 40 python3 -c 'import torch; from cifar_tune.measuring.processes import in_fresh_process; print(in_fresh_process(torch.cuda.is_available))'
part tests 40 python3 -m pytest -q -p no:cacheprovider -m gpu tests
part study 320 python3 sweeps/distill_search.py --preset gpu --data "$data" --no-dashboard --storage "$runs" --name gpu
for file in report.md front.png comparison.csv latency.parquet trials.parquet study.json; do
    cp "$runs/gpu/$file" "$out/" 2>>"$out/log.txt"
done
(cd "$runs/gpu" && tar czf "$out/more.tar.gz" $(ls -d errors epochs.parquet front.parquet ledger 2>/dev/null)) 2>>"$out/log.txt"
part timer 40 python3 benchmarks/latency_protocol.py timer --device cuda --rounds 7
part events 25 python3 benchmarks/latency_protocol.py events --rounds 5
part step 50 python3 benchmarks/train_step.py --compile --device cuda --model speednet --rounds 3
part overhead 20 python3 benchmarks/latency_protocol.py overhead
rm -rf "$runs"
