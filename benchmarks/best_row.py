"""The best row for a model beside FP32 eager, ONNX Runtime with its best session options, and OpenVINO's own tool.

    python benchmarks/best_row.py [--model mobilenet_v3_small] [--rounds 7]

Ours are the callables that the variant grid measures, with its protocol. Beside them: ONNX Runtime's session with
each of its own options, called directly on a NumPy array in a plain loop, and `benchmark_app -hint latency -api sync`,
all in alternating rounds of one run. Targets: the best row at least 4 times as fast as FP32 eager, and within 3 % of,
or faster than, the better of the two.
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from common import Target, alternate, finish, parser, spread

from cifar_tune.config import LatencyConfig, Variant
from cifar_tune.device import usable_cpus
from cifar_tune.measuring.latency import Timed, measure
from cifar_tune.models.registry import build_model
from cifar_tune.runtimes import RUNTIMES, Runnable, Source

CALLS = 300
SPEEDUP = Target("at least", 4.0)
BESIDE_RIVAL = Target("at most", 1.03)
OURS = [v for name in ("onnxruntime", "openvino") for v in RUNTIMES[name].variants if v.precision == "fp32"]


def load(model: str, size: int, variant: Variant, folder: Path) -> Runnable:
    threads = 1 if variant.single_thread else usable_cpus()
    source = Source(
        model=build_model(model, 10).eval(), variant=variant, device="cpu", example=torch.zeros(1, 3, size, size),
        threads=threads, folder=folder / variant.built.name,
    )  # fmt: skip
    export = RUNTIMES[variant.runtime].export
    if export is not None and not source.folder.exists():
        source.folder.mkdir(parents=True)
        export(source)
    return RUNTIMES[variant.runtime].load(source)


def our_p50(runnable: Runnable, image: torch.Tensor) -> float:
    timed = Timed(call=runnable.call, inputs=[runnable.prepare_input(image)], scope=runnable.scope)
    config = LatencyConfig(iterations=700, max_iterations=700, repeats=1, time_limit=1000.0)
    return float(np.median(measure(timed, None, config, np.random.default_rng(0))[0].samples_ms))


def plain_p50(call: Callable[[], object]) -> float:
    for _ in range(50):
        call()
    samples = []
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        samples.append(time.perf_counter() - started)
    return 1e3 * float(np.median(samples))


def ort_sessions(onnx: Path) -> dict[str, ort.InferenceSession]:
    """ONNX Runtime with every combination of threads, spinning and optimisation level that a user would try."""
    levels = {
        "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
        "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    }
    sessions = {}
    for threads, spin, level in itertools.product((1, usable_cpus()), ("0", "1"), levels):
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.graph_optimization_level = threads, levels[level]
        options.add_session_config_entry("session.intra_op.allow_spinning", spin)
        name = f"threads {threads}, spinning {spin}, optimisation {level}"
        sessions[name] = ort.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
    return sessions


def openvino_p50(tool: str, xml: Path, seconds: int) -> float:
    command = [tool, "-m", str(xml), "-hint", "latency", "-api", "sync", "-t", str(seconds), "-infer_precision", "f32"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Median:\s+([\d.]+) (us|ms)", said)
    assert found, said[-2000:]
    return float(found[1]) / (1000 if found[2] == "us" else 1)


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--model", default="mobilenet_v3_small")
    flags.add_argument("--size", type=int, default=32)
    flags.add_argument("--rounds", type=int, default=7)
    args = flags.parse_args()
    torch.set_num_threads(usable_cpus())
    image = torch.randn(1, 3, args.size, args.size)
    tool = shutil.which("benchmark_app", path=str(Path(sys.executable).parent))
    if tool is None:
        sys.exit("benchmark_app is not there: pip install openvino")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        calls: dict[str, Callable[[], float]] = {}
        for variant in (Variant(), *OURS):
            runnable = load(args.model, args.size, variant, folder)
            calls[f"ours {variant.name}"] = lambda runnable=runnable: our_p50(runnable, image)
        array = image.numpy()
        for name, session in ort_sessions(folder / "onnxruntime-fp32" / "model.onnx").items():
            calls[f"ONNX Runtime, {name}"] = lambda s=session: plain_p50(lambda: s.run(None, {"images": array}))
        calls["OpenVINO benchmark_app"] = lambda: openvino_p50(tool, folder / "openvino-fp32" / "model.xml", 2)
        rounds = list(alternate(calls, args.rounds, "shuffled"))
    met = report(args.model, {name: np.array([figures[name] for figures in rounds]) for name in calls})
    finish(met=met, runs=args.rounds)


def report(model: str, figures: dict[str, np.ndarray]) -> bool:
    """Print all figures, and judge the best row."""
    for name, values in sorted(figures.items(), key=lambda item: float(np.median(item[1]))):
        print(f"{spread(values):.3f} ms  {name}")
    ours = {n: v for n, v in figures.items() if n.startswith("ours") and n != f"ours {Variant().name}"}
    others = {n: v for n, v in figures.items() if not n.startswith("ours")}
    best = min(ours, key=lambda name: float(np.median(ours[name])))
    rival = min(others, key=lambda name: float(np.median(others[name])))
    speedup = spread(figures[f"ours {Variant().name}"] / ours[best])
    verdicts = [
        SPEEDUP.judge(f"{model}, best row {best}, times as fast as FP32 eager", speedup, ".2f"),
        BESIDE_RIVAL.judge(f"its time over that of {rival}", spread(ours[best] / others[rival])),
    ]
    return all(verdicts)


if __name__ == "__main__":
    main()
