"""Whether the latency protocol can be believed. All figures are ratios within one run.

    python benchmarks/latency_protocol.py timer       # our mean beside torch.utils.benchmark's, rounds alternated
    python benchmarks/latency_protocol.py overhead    # what the harness adds to a call
    python benchmarks/latency_protocol.py pairs       # A/A and a 3 % slowdown, under a load that comes and goes
    python benchmarks/latency_protocol.py rows        # seconds that a row of the grid takes with default settings
    python benchmarks/latency_protocol.py events      # on a GPU: our event time beside Triton's do_bench

`timer` takes --device cuda: the statement then ends in a synchronisation. Each prints its figures and targets, and
exits with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import Target, alternate, finish, parser
from torch.utils.benchmark import Timer

from cifar_tune.config import LatencyConfig
from cifar_tune.device import usable_cpus
from cifar_tune.measuring.latency import Timed, measure, median_interval
from cifar_tune.measuring.measurement import event_ms
from cifar_tune.models.registry import build_model
from cifar_tune.rounds import round_ratios
from cifar_tune.runtimes.base import wait_for

TIMER = Target("at most", 0.03, ".0%")
OVERHEAD = Target("below", 1.0, unit=" us")
ROW = Target("at most", 20.0, unit=" s")
RUNS = 100
NEEDED = 90
HALF_WIDTH = Target("at most", 0.02, ".0%")
SLOWDOWN = 0.03


def model_call(name: str, threads: int, device: str = "cpu") -> Callable[[object], object]:
    torch.set_num_threads(threads)
    model = build_model(name, 10).eval().to(device)
    image = torch.randn(1, 3, 32, 32, device=device)

    def call(_: object) -> object:
        with torch.inference_mode():
            return model(image)

    return call


def protocol(samples: int, repeats: int = 1) -> LatencyConfig:
    per_repeat = max(samples, -(-700 // repeats))
    return LatencyConfig(iterations=per_repeat, max_iterations=per_repeat, repeats=repeats, time_limit=1000.0)


def timer(args: argparse.Namespace) -> bool:
    """Means of alternated rounds: both are means over all calls of the same callable with the same threads."""
    call = model_call(args.model, args.threads, args.device)
    wait = wait_for(args.device)
    statement = "call(None); wait()" if args.device == "cuda" else "call(None)"
    torch_timer = Timer(statement, globals={"call": call, "wait": wait}, num_threads=args.threads)
    # short rounds, many of them: the machine drifts by more than the tolerance within seconds
    config, rng = (
        LatencyConfig(iterations=100, max_iterations=100, repeats=7, time_limit=1000.0),
        np.random.default_rng(0),
    )

    def ours() -> float:
        timed = Timed(call=call, inputs=[None], synchronize=wait)
        return float(np.mean(measure(timed, None, config, rng)[0].samples_ms))

    def theirs() -> float:
        return torch_timer.blocked_autorange(min_run_time=args.seconds).mean * 1e3

    ratios: list[float] = []
    for ms in alternate({"theirs": theirs, "ours": ours}, args.rounds, "swapped"):
        ratios.append(ms["ours"] / ms["theirs"])
        print(f"round {len(ratios)}: ours {ms['ours']:.3f} ms, torch {ms['theirs']:.3f} ms", flush=True)
    middle, (low, high) = float(np.median(ratios)), median_interval(ratios)
    print(f"{args.model}, {args.threads} thread(s): ours / blocked_autorange = {middle:.3f} ({low:.3f} to {high:.3f}),")
    print(f"median and its 95 % interval of {len(ratios)} rounds")
    return TIMER.judge("how far it is from 1", abs(middle - 1), ".1%")


def overhead(_: argparse.Namespace) -> bool:
    """Samples of a call that does nothing."""
    timed = Timed(call=lambda given: given, inputs=[None])
    samples = measure(timed, timed, protocol(2000), np.random.default_rng(0))[0].samples_ms
    middle = 1e3 * float(np.median(samples))
    return OVERHEAD.judge(f"a call that does nothing, median of {len(samples)}", middle)


def come_and_go(stop: Event) -> None:
    """Load one core for a random while, then leave it for another."""
    rng = random.Random(0)
    while not stop.is_set():
        end = time.perf_counter() + rng.uniform(0.1, 0.6)
        while time.perf_counter() < end:
            pass
        time.sleep(rng.uniform(0.1, 0.6))


def pairs(args: argparse.Namespace) -> bool:
    """100 runs of a callable against itself, and 100 against itself made 3 % slower by waiting in the call."""
    call = model_call(args.model, args.threads)
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    load = context.Process(target=come_and_go, args=(stop,), daemon=True)
    load.start()
    same = [speedup(call, call, number, args.samples) for number in range(args.runs)]
    slower = [speedup(slowed(call), call, number, args.samples) for number in range(args.runs)]
    stop.set()
    load.join()
    held = sum(low <= 1 <= high for _, low, high in same)
    width = float(np.median([(high - low) / 2 for _, low, high in same]))
    found = sum(high < 1 for _, _, high in slower)
    ratio = float(np.median([middle for middle, _, _ in slower]))
    needed = Target("at least", NEEDED * args.runs // RUNS, unit=" runs")
    print(f"{args.model}, {args.threads} thread(s), beside a load that comes and goes, {args.runs} runs each:")
    verdicts = [
        needed.judge("A/A: the 95 % interval holds 1 in", held, "d"),
        HALF_WIDTH.judge("its median half-width", width, ".2%"),
        needed.judge("3 % slower: found in", found, "d"),
    ]
    print(f"median speedup of what is slower {ratio:.4f} (expected {1 / (1 + SLOWDOWN):.4f})")
    return all(verdicts)


def speedup(
    variant: Callable[[object], object], call: Callable[[object], object], seed: int, samples: int
) -> tuple[float, float, float]:
    rng = np.random.default_rng(seed)
    config = protocol(samples, repeats=3)
    taken = measure(as_timed(variant), as_timed(call), config, rng, repeats=3)
    ratios = np.concatenate([1 / round_ratios(r.samples_ms, r.reference_ms, config.round_calls) for r in taken])
    return float(np.median(ratios)), *median_interval(ratios)


def as_timed(call: Callable[[object], object]) -> Timed:
    return Timed(call=call, inputs=[None])


def slowed(call: Callable[[object], object]) -> Callable[[object], object]:
    """The same call, longer by 3 % of its own time, whatever that is at the moment."""

    def slow(given: object) -> object:
        started = time.perf_counter()
        answer = call(given)
        end = started + (time.perf_counter() - started) * (1 + SLOWDOWN)
        while time.perf_counter() < end:
            pass
        return answer

    return slow


def rows(args: argparse.Namespace) -> bool:
    """What each row of a model's grid took, with the settings of the preset `cpu`, building aside."""
    with tempfile.TemporaryDirectory() as storage:
        given = ["--model", args.model, "--storage", storage, "--name", "rows", "--no-dashboard"]
        grid = [sys.executable, "sweeps/variant_grid.py", *given, "--runtimes", "onnxruntime", "openvino"]
        subprocess.run(grid, check=True, stdout=subprocess.DEVNULL)
        table = pd.read_parquet(Path(storage, "rows", "latency.parquet")).query("measure_seconds.notna()")
    for row in table.sort_values("measure_seconds").itertuples():
        again = f"{row.windows_discarded} windows taken again"
        loading = f"{row.load_seconds:.1f} s to load in a fresh process"
        print(f"{row.variant}: {row.measure_seconds:.1f} s, of which {loading}, p50 {row.p50_ms:.2f} ms, {again}")
    for name, seconds in (
        ("whole", table.measure_seconds),
        ("loading aside", table.measure_seconds - table.load_seconds),
    ):
        print(
            f"{args.model}, {len(table)} rows, {name}: median {seconds.median():.1f} s, at most {seconds.max():.1f} s"
        )
    print("what torch.compile loads from its cache it traces again")
    return ROW.judge("slowest row, the whole of it", float(table.measure_seconds.max()), ".1f")


def events(args: argparse.Namespace) -> bool:
    """Medians of the time between two CUDA events, the cache emptied before each call in both.

    `do_bench` does not wait for all launches of a call, so of many small kernels it counts the host's share as well.
    """
    from triton.testing import do_bench

    call = model_call(args.model, args.threads, "cuda")

    def ours() -> float:
        return event_ms(lambda: call(None))

    def theirs() -> float:
        return float(do_bench(lambda: call(None), return_mode="median"))

    ratios: list[float] = []
    for ms in alternate({"ours": ours, "theirs": theirs}, args.rounds):
        ratios.append(ms["ours"] / ms["theirs"])
        print(f"round {len(ratios)}: ours {ms['ours']:.3f} ms, do_bench {ms['theirs']:.3f} ms", flush=True)
    low, high = median_interval(ratios)
    print(f"{args.model}: our event time / do_bench = {np.median(ratios):.3f} ({low:.3f} to {high:.3f})")
    return True


def main() -> None:
    flags = parser(__doc__)
    commands = {"timer": timer, "overhead": overhead, "pairs": pairs, "rows": rows, "events": events}
    flags.add_argument("command", choices=commands)
    flags.add_argument("--model", default="resnet_narrow")
    flags.add_argument("--threads", type=int, default=usable_cpus())
    flags.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    flags.add_argument("--rounds", type=int, default=41, help="of timer and events")
    flags.add_argument("--seconds", type=float, default=0.4, help="of a round of torch's timer")
    flags.add_argument("--samples", type=int, default=350, help="of each of the three repeats of a run of pairs")
    flags.add_argument("--runs", type=int, default=RUNS, help="of pairs")
    args = flags.parse_args()
    met = commands[args.command](args)
    runs = {"timer": args.rounds, "events": args.rounds, "pairs": args.runs}.get(args.command, 1)
    finish(met=met, runs=runs, device="cuda" if args.command == "events" else args.device)


if __name__ == "__main__":
    main()
