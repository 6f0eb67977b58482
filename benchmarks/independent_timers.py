"""Whether timers that know nothing of us find the latency that we state.

    python benchmarks/independent_timers.py RUN [--blocks 20] [--threads 1]

The model is the candidate of a run, as ONNX. Plain scripts load it in ONNX Runtime and OpenVINO as their manuals say,
and time calls in a loop. Ours load it as a deployment does, and time it by the protocol of a row. Each is a process of
its own, a fresh one each block; turns alternate. Shown is ours over theirs with its 95 % interval over the blocks, and
what the run states. Target: the interval within 0.95 to 1.05 above 0.3 ms, within 0.90 to 1.10 below. It takes about
5 minutes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import Target, alternate, finish, parser, spread

from analysis.frames import load_run, rows
from cifar_tune.blocks import ratio

SLOW_MS, NEAR, NEAR_BELOW = 0.3, 0.05, 0.10

PLAIN = """
import sys, time, numpy as np
kind, model, threads, shape = sys.argv[1], sys.argv[2], int(sys.argv[3]), eval(sys.argv[4])
image = np.random.default_rng(0).random(shape, dtype=np.float32)
if kind == "onnxruntime":
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    call = lambda: session.run(None, {name: image})
else:
    import openvino as ov
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(model, "CPU", settings)
    call = lambda: compiled([image])
for _ in range(200):
    call()
taken = []
for _ in range(1000):
    started = time.perf_counter()
    call()
    taken.append(time.perf_counter() - started)
print(1e3 * sorted(taken)[500])
"""

OURS = """
import importlib, sys
from pathlib import Path
import numpy as np
from cifar_tune.config import LatencyConfig
from cifar_tune.measuring.latency import Timed, measure
kind, model, threads, shape = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), eval(sys.argv[4])
card = {"device": "cpu", "threads": threads, "variant": {"precision": "fp32"}}
call = importlib.import_module(f"cifar_tune.deployed.{kind}").load(card, model.parent)
images = list(np.random.default_rng(0).random((256, *shape), dtype=np.float32))
config = LatencyConfig(iterations=1000, max_iterations=1000, repeats=1, time_limit=100.0)
taken = measure(Timed(call=call, inputs=images), None, config, np.random.default_rng(0))
print(float(np.median(taken[0].samples_ms)))
"""


def milliseconds(script: str, kind: str, model: Path, threads: int, shape: tuple[int, ...]) -> float:
    """What a script says in a process of its own."""
    command = [sys.executable, "-c", script, kind, str(model), str(threads), repr(shape)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def exported(source: Path, folder: Path) -> dict[str, Path]:
    """The candidate as each runtime's own file: runtime -> path."""
    import openvino as ov

    xml = folder / "model.xml"
    ov.save_model(ov.Core().read_model(source), xml, compress_to_fp16=False)
    return {"onnxruntime": source, "openvino": xml} if source.suffix == ".onnx" else {"openvino": xml}


def input_shape(model: Path) -> tuple[int, ...]:
    """Of one image with its batch."""
    import openvino as ov

    given = ov.Core().read_model(model).input(0).partial_shape
    return tuple(1 if length.is_dynamic else length.get_length() for length in given)


def judged(kind: str, ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether the interval of ours over theirs lies near 1."""
    found = ratio(ours, theirs, between=0)  # blocks of the same minutes: no races of different hours
    near = NEAR if np.median(ours) > SLOW_MS else NEAR_BELOW
    print(f"{kind}: ours {spread(ours):.4f} ms, a plain loop {spread(theirs):.4f} ms, {len(ours)} blocks")
    print(f"{kind}: ours / plain = {found.middle:.3f} ({found.low:.3f} to {found.high:.3f})")
    verdicts = [
        Target("at least", 1 - near).judge(f"{kind}: lower end", found.low),
        Target("at most", 1 + near).judge(f"{kind}: upper end", found.high),
    ]
    return all(verdicts)


def stated(path: str) -> str:
    """What the run says of its candidate, for a reader: it was measured at another time."""
    run = load_run(path)
    card: dict[str, Any] = run.card or {}
    mine = [r for r in rows(run.latency) if r["trial_id"] == card.get("trial_id") and r["typical_ms"] is not None]
    return "; ".join(sorted({f"{r['stage']} {r['variant']} typical {r['typical_ms']:.4f} ms" for r in mine})) or "none"


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("run", metavar="RUN")
    flags.add_argument("--blocks", type=int, default=20)
    flags.add_argument("--threads", type=int, default=1)
    options = flags.parse_args()
    folder = load_run(options.run).path / "candidate"
    sources = [folder / name for name in ("model.onnx", "model.xml") if (folder / name).is_file()]
    if not sources:
        sys.exit(f"{folder} has no model.onnx and no model.xml: the candidate is of another runtime")
    print(f"the run states: {stated(options.run)}")
    with tempfile.TemporaryDirectory() as temporary:
        met = True
        for kind, model in exported(sources[0], Path(temporary)).items():
            shape = input_shape(model)
            calls = {
                name: lambda script=script, k=kind, m=model, s=shape: milliseconds(script, k, m, options.threads, s)
                for name, script in (("ours", OURS), ("plain", PLAIN))
            }
            blocks = list(alternate(calls, options.blocks, "shuffled"))
            ours, plain = (np.array([block[name] for block in blocks]) for name in ("ours", "plain"))
            met &= judged(kind, ours, plain)
    finish(met=met, runs=options.blocks)


if __name__ == "__main__":
    main()
