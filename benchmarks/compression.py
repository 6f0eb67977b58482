"""What INT8, structured pruning and ONNX Runtime gain, in one run: python benchmarks/compression.py [int8|prune|vit].

int8: the fastest static INT8 row of a model over its fastest FP32 row, by their speedups over FP32 eager in paired
rounds, and the size of the artifact. prune: the model at half of its multiplications against the whole one, both in
the whole one's fastest variant, and both in its fastest FP32 one; the two alternate. vit: Vision Transformers in ONNX
Runtime over FP32 eager, in paired rounds: one for small images and one for large ones. Weights are random, which take
as long.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from cifar_tune.config import Variant
from cifar_tune.data.datasets import random_images
from cifar_tune.models.registry import build_model
from cifar_tune.runtimes import RUNTIMES, Source
from cifar_tune.runtimes.quantisation import calibration_data, calibration_images

LEAST_GAIN = 1.5
MOST_SIZE = 0.30
MOST_PRUNED = 0.65
LEAST_GAIN_VIT = 1.5
VITS = {"vit_tiny_patch8_64": 64, "vit_tiny_patch16_224": 224}
"""Model -> side of its images."""
VARIANTS = [
    *(Variant(runtime=r, single_thread=one) for r in ("onnxruntime", "openvino") for one in (False, True)),
    Variant(runtime="aotinductor"),
]


def measured(model: str, variant: Variant, precision: str, seconds: float, side: int = 32) -> tuple[float, float]:
    """p50 in ms, and the speedup over FP32 eager in paired rounds."""
    command = [sys.executable, "-m", "cifar_tune", "bench", "--model", model, "--runtime", variant.runtime]
    command += ["--precision", precision, "--time-limit", str(seconds), "--input-shape", "3", str(side), str(side)]
    command += ["--single-thread"] if variant.single_thread else []
    line = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(line.strip(), flush=True)
    p50, speedup = (re.search(pattern, line) for pattern in (r"p50_ms ([\d.]+)", r"FP32 eager ([\d.]+)"))
    assert p50 is not None
    assert speedup is not None
    return float(p50[1]), float(speedup[1])


def artifact_mb(model: str, precision: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        source = Source(
            model=build_model(model, 10).eval(), variant=Variant(runtime="onnxruntime", precision=precision),
            device="cpu", example=torch.zeros(1, 3, 32, 32), threads=1, folder=Path(folder),
            calibration=calibration_images(calibration_data(random_images((3, 32, 32)))),
        )  # fmt: skip
        RUNTIMES["onnxruntime"].export(source)
        return RUNTIMES["onnxruntime"].load(source).artifact_mb


def int8(model: str, seconds: float, _: int) -> bool:
    best = {p: max(measured(model, v, p, seconds)[1] for v in VARIANTS) for p in ("fp32", "int8")}
    gain = best["int8"] / best["fp32"]
    size = artifact_mb(model, "int8") / artifact_mb(model, "fp32")
    print(f"{model}: best INT8 row {gain:.2f} times the best FP32 row (target {LEAST_GAIN});")
    print(f"its ONNX file {size:.3f} of the size (target at most {MOST_SIZE:.2f})")
    return gain >= LEAST_GAIN and size <= MOST_SIZE


def prune(model: str, seconds: float, rounds: int) -> bool:
    p50 = {(v, p): measured(model, v, p, seconds)[0] for v in VARIANTS for p in ("fp32", "int8")}
    fastest = min(p50, key=lambda made: p50[made])
    fastest_fp32 = min((made for made in p50 if made[1] == "fp32"), key=lambda made: p50[made])
    ratio = {made: pruned_share(model, *made, seconds, rounds) for made in {fastest, fastest_fp32}}[fastest]
    print(f"target at most {MOST_PRUNED}, in the fastest")
    return ratio <= MOST_PRUNED


def pruned_share(model: str, variant: Variant, precision: str, seconds: float, rounds: int) -> float:
    """Median over some rounds of a pruned model's p50 over the whole one's."""
    shares = []
    for _ in range(rounds):
        before = measured(model, variant, precision, seconds)[0]
        shares.append(measured(f"{model}@0.5", variant, precision, seconds)[0] / before)
    share = statistics.median(shares)
    threads = ", one thread" if variant.single_thread else ""
    where = f"{variant.runtime} {precision}{threads}"
    print(f"{model}@0.5 / {model}, {where}: {share:.3f} ({min(shares):.3f} to {max(shares):.3f}, {rounds} rounds)")
    return share


def vit(_: str, seconds: float, __: int) -> bool:
    own = [v for v in VARIANTS if v.runtime == "onnxruntime"]
    gains = {
        (model, precision): max(measured(model, v, precision, seconds, side)[1] for v in own)
        for model, side in VITS.items()
        for precision in ("fp32", "int8")
    }
    for model, side in VITS.items():
        print(
            f"{model}, {side} pixels: ONNX Runtime {gains[model, 'fp32']:.2f} times FP32 eager (target "
            f"{LEAST_GAIN_VIT}), with static INT8 {gains[model, 'int8']:.2f} times"
        )
    return all(gains[model, "fp32"] >= LEAST_GAIN_VIT for model in VITS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["int8", "prune", "vit"])
    parser.add_argument("--model", default="resnet18", help="of int8 and prune")
    parser.add_argument("--seconds", type=float, default=3.0, help="time limit of a row's rounds")
    parser.add_argument("--rounds", type=int, default=3, help="of prune")
    options = parser.parse_args()
    met = {"int8": int8, "prune": prune, "vit": vit}[options.part](options.model, options.seconds, options.rounds)
    if not met:
        sys.exit("a target is missed")


if __name__ == "__main__":
    main()
