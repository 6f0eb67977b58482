"""What a shorter spinning of OpenMP's threads does to FP32 eager, and what waiting for these threads costs then.

    python benchmarks/drained_rounds.py [--pairs 12] [--threads 2] [--spins 10000]

After each run of calls the protocol waits until the threads of these calls sleep. PyTorch's OpenMP library (libgomp)
lets them spin 300,000 times first, which is 25 ms on a Xeon: more than the calls took. The server of fresh processes
therefore asks it for fewer (GOMP_SPINCOUNT). Each pair is two new processes, one with the library's own count and one
with ours, in swapped order. Each measures the median of calls in a row, then how long the wait after a few of them is.
Targets: FP32 eager's time with our count is within 1 % of that with the library's own; a wait takes at most 3 ms.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from common import Target, alternate, finish, parser, spread

from cifar_tune.blocks import ratio
from cifar_tune.measuring.drain import drain
from cifar_tune.measuring.processes import SPIN_COUNT
from cifar_tune.models.registry import build_model

MODELS = {"resnet_narrow": 32, "resnet18": 32, "resnet_tiny": 8}
"""With the size of their images."""
WARM_UP_SECONDS, CALL_SECONDS, RUNS, RUN_CALLS = 0.3, 1.0, 10, 3
UNCHANGED = Target("at most", 0.01)
WAIT = Target("at most", 3.0, unit=" ms")
Figures = dict[str, tuple[float, float]]


def one_process(threads: int) -> Figures:
    """Of each model here: median of its calls, and of the waits after a run of them; milliseconds."""
    torch.set_num_threads(threads)
    found: Figures = {}
    for name, size in MODELS.items():
        model, image = build_model(name, 10).eval(), torch.zeros(1, 3, size, size)
        with torch.inference_mode():
            _milliseconds(lambda model=model, image=image: model(image), WARM_UP_SECONDS)
            calls = _milliseconds(lambda model=model, image=image: model(image), CALL_SECONDS)
            waits: list[float] = []
            for _ in range(RUNS):
                for _ in range(RUN_CALLS):
                    model(image)
                waits += _milliseconds(drain, 0.0)
        found[name] = float(np.median(calls)), float(np.median(waits))
    return found


def _milliseconds(call: Callable[[], object], seconds: float) -> list[float]:
    """Of calls in a row, one at least, until they have taken so long together."""
    taken: list[float] = []
    while not taken or sum(taken) < seconds * 1e3:
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1e3)
    return taken


def in_process(spins: int | None, threads: int) -> Figures:
    """The same of a new process whose OpenMP library spins so often; None: as often as it likes."""
    own = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment = own if spins is None else {**own, "GOMP_SPINCOUNT": str(spins)}
    command = [sys.executable, __file__, "--one-process", "--threads", str(threads)]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=12)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--spins", type=int, default=SPIN_COUNT)
    options.add_argument("--one-process", action="store_true")
    args = options.parse_args()
    if args.one_process:
        print(json.dumps(one_process(args.threads)))
        return
    calls = {spins: lambda spins=spins: in_process(spins, args.threads) for spins in (None, args.spins)}
    pairs: list[dict[int | None, Figures]] = []
    for pair in alternate(calls, args.pairs, "swapped"):
        pairs.append(pair)
        print(f"pair {len(pairs)}: {pair}", file=sys.stderr, flush=True)
    verdicts: list[bool] = []
    for model in MODELS:
        own, ours = ([pair[spins][model] for pair in pairs] for spins in (None, args.spins))
        found = ratio([ms for ms, _ in ours], [ms for ms, _ in own])
        print(f"{model}: {spread([ms for ms, _ in own]):.3f} ms; {args.spins} spins / the library's own: ", end="")
        print(f"{found.middle:.4f} ({found.low:.4f} to {found.high:.4f})")
        print(f"{model}: the wait with the library's own count: {spread([wait for _, wait in own]):.2f} ms")
        verdicts.append(UNCHANGED.judge(f"{model}: distance from 1", abs(found.middle - 1), ".4f"))
        verdicts.append(WAIT.judge(f"{model}: the wait", spread([wait for _, wait in ours]), ".2f"))
    finish(met=all(verdicts), runs=2 * args.pairs)


if __name__ == "__main__":
    main()
