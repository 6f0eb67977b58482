"""What a shorter spinning of OpenMP's threads does to FP32 eager, and what waiting for these threads costs then.

    python benchmarks/drained_rounds.py [--pairs 16] [--threads 2] [--spins 10000]

After each run of calls the protocol waits until the threads of these calls sleep. PyTorch's OpenMP library (libgomp)
lets them spin 300,000 times first, which is 25 ms on a Xeon: more than the calls took. The server of fresh processes
therefore asks it for fewer (GOMP_SPINCOUNT). Each pair is two new processes, one with the library's own count and one
with ours, that take turns: calls in a row, then the wait after a few of them. A pair's ratio is that of the processes'
medians over their turns; pairs are what varies. Targets: FP32 eager's time with our count is within 1 % of that with
the library's own; a wait takes at most 3 ms.
"""

from __future__ import annotations

import functools
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
WARM_UP_SECONDS, TURN_SECONDS, TURNS, RUN_CALLS = 0.3, 0.15, 12, 3
UNCHANGED = Target("at most", 0.01)
WAIT = Target("at most", 3.0, unit=" ms")
Turn = tuple[float, float]
"""Median of calls in a row, and the wait after a few more; milliseconds."""
Figures = dict[str, Turn]


def take_turns(threads: int) -> None:
    """In a process of a pair: for each name of a model on standard input a turn, as a line of JSON."""
    torch.set_num_threads(threads)
    calls: dict[str, Callable[[], object]] = {}
    with torch.inference_mode():
        for name, size in MODELS.items():
            calls[name] = functools.partial(build_model(name, 10).eval(), torch.zeros(1, 3, size, size))
            _milliseconds(calls[name], WARM_UP_SECONDS)
        print("ready", flush=True)
        for line in sys.stdin:
            call = calls[line.strip()]
            median = float(np.median(_milliseconds(call, TURN_SECONDS)))
            for _ in range(RUN_CALLS):
                call()
            print(json.dumps((median, _milliseconds(drain, 0.0)[0])), flush=True)


def _milliseconds(call: Callable[[], object], seconds: float) -> list[float]:
    """Of calls in a row, one at least, until they have taken so long together."""
    taken: list[float] = []
    while not taken or sum(taken) < seconds * 1e3:
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1e3)
    return taken


def begun(spins: int | None, threads: int) -> subprocess.Popen[str]:
    """A new process whose OpenMP library spins so often; None: as often as it likes."""
    own = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment = own if spins is None else {**own, "GOMP_SPINCOUNT": str(spins)}
    command = [sys.executable, __file__, "--one-of-a-pair", "--threads", str(threads)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def pair(spins: int, threads: int) -> dict[int | None, Figures]:
    """The medians of the turns of two new processes, by the count and the model."""
    processes = {count: begun(count, threads) for count in (None, spins)}
    for process in processes.values():
        _line(process)
    figures: dict[int | None, Figures] = {None: {}, spins: {}}
    for model in MODELS:
        turns = {count: functools.partial(_asked, process, model) for count, process in processes.items()}
        taken = list(alternate(turns, TURNS, "swapped"))
        for count, found in figures.items():
            calls, waits = zip(*(turn[count] for turn in taken), strict=True)
            found[model] = float(np.median(calls)), float(np.median(waits))
    for process in processes.values():
        process.communicate()  # the end of its input ends it
    return figures


def _asked(process: subprocess.Popen[str], model: str) -> Turn:
    assert process.stdin is not None
    print(model, file=process.stdin, flush=True)
    median, wait = json.loads(_line(process))
    return median, wait


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=16)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--spins", type=int, default=SPIN_COUNT)
    options.add_argument("--one-of-a-pair", action="store_true")
    args = options.parse_args()
    if args.one_of_a_pair:
        take_turns(args.threads)
        return
    pairs: list[dict[int | None, Figures]] = []
    for number in range(args.pairs):
        pairs.append(pair(args.spins, args.threads))
        print(f"pair {number + 1}: {pairs[-1]}", file=sys.stderr, flush=True)
    verdicts: list[bool] = []
    for model in MODELS:
        own, ours = ([taken[spins][model] for taken in pairs] for spins in (None, args.spins))
        found = ratio([ms for ms, _ in ours], [ms for ms, _ in own])
        print(f"{model}: {spread([ms for ms, _ in own]):.3f} ms; {args.spins} spins / the library's own: ", end="")
        print(f"{found.middle:.4f} ({found.low:.4f} to {found.high:.4f})")
        print(f"{model}: the wait with the library's own count: {spread([wait for _, wait in own]):.2f} ms")
        verdicts.append(UNCHANGED.judge(f"{model}: distance from 1", abs(found.middle - 1), ".4f"))
        verdicts.append(WAIT.judge(f"{model}: the wait", spread([wait for _, wait in ours]), ".2f"))
    finish(met=all(verdicts), runs=2 * args.pairs)


if __name__ == "__main__":
    main()
