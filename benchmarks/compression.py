"""What INT8, structured pruning and ONNX Runtime gain, in one run: python benchmarks/compression.py [int8|prune|vit].

int8: the fastest static INT8 row of a model over its fastest FP32 row, by their speedups over FP32 eager in paired
rounds, and the size of the artifact. prune: the model at half of its multiplications against the whole one, both in
the whole one's fastest variant, and both in its fastest FP32 one; the two alternate. vit: Vision Transformers in ONNX
Runtime over FP32 eager, in paired rounds: one for small images and one for large ones. Weights are random, which take
as long.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from common import Target, alternate, finish, parser, spread

from cifar_tune.config import Variant
from cifar_tune.data.datasets import random_images
from cifar_tune.models.registry import build_model
from cifar_tune.runtimes import RUNTIMES, Source
from cifar_tune.runtimes.quantisation import calibration_data, calibration_images

GAIN = Target("at least", 1.5)
SIZE = Target("at most", 0.30)
PRUNED = Target("at most", 0.65)
GAIN_VIT = Target("at least", 1.5)
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
    verdicts = [
        GAIN.judge(f"{model}, best INT8 row, times as fast as the best FP32 row", gain, ".2f"),
        SIZE.judge("size of its ONNX file over the FP32 one's", size),
    ]
    return all(verdicts)


def prune(model: str, seconds: float, rounds: int) -> bool:
    p50 = {(v, p): measured(model, v, p, seconds)[0] for v in VARIANTS for p in ("fp32", "int8")}
    fastest = min(p50, key=lambda made: p50[made])
    fastest_fp32 = min((made for made in p50 if made[1] == "fp32"), key=lambda made: p50[made])
    ratio = {made: pruned_share(model, *made, seconds, rounds) for made in {fastest, fastest_fp32}}[fastest]
    return PRUNED.judge(f"{model}@0.5 / {model}, in the fastest", ratio)


def pruned_share(model: str, variant: Variant, precision: str, seconds: float, rounds: int) -> float:
    """Median over some rounds of a pruned model's p50 over the whole one's."""
    pruned = f"{model}@0.5"
    calls = {name: lambda name=name: measured(name, variant, precision, seconds)[0] for name in (model, pruned)}
    share = spread([p50[pruned] / p50[model] for p50 in alternate(calls, rounds)])
    threads = ", one thread" if variant.single_thread else ""
    where = f"{variant.runtime} {precision}{threads}"
    print(f"{pruned} / {model}, {where}: {share:.3f}, {rounds} rounds")
    return share.median


def vit(_: str, seconds: float, __: int) -> bool:
    own = [v for v in VARIANTS if v.runtime == "onnxruntime"]
    gains = {
        (model, precision): max(measured(model, v, precision, seconds, side)[1] for v in own)
        for model, side in VITS.items()
        for precision in ("fp32", "int8")
    }
    for model in VITS:
        print(f"{model}: with static INT8 {gains[model, 'int8']:.2f} times as fast as FP32 eager")
    what = "ONNX Runtime, times as fast as FP32 eager"
    verdicts = [GAIN_VIT.judge(f"{m}, {side} pixels, {what}", gains[m, "fp32"], ".2f") for m, side in VITS.items()]
    return all(verdicts)


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("part", choices=["int8", "prune", "vit"])
    flags.add_argument("--model", default="resnet18", help="of int8 and prune")
    flags.add_argument("--seconds", type=float, default=3.0, help="time limit of a row's rounds")
    flags.add_argument("--rounds", type=int, default=3, help="of prune")
    options = flags.parse_args()
    met = {"int8": int8, "prune": prune, "vit": vit}[options.part](options.model, options.seconds, options.rounds)
    finish(met=met, runs=options.rounds if options.part == "prune" else 1)


if __name__ == "__main__":
    main()
