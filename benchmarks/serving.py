"""What serving adds to a model's latency: `python benchmarks/serving.py --run RUN`.

A no-op deployment of the same server, which reads and decodes the same uploads and classifies nothing, and the
candidate, in turns, one user. Target: the median of a request is at most 2 ms above the no-op's and the candidate's
own latency together.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from analysis.frames import find_run
from cifar_tune.runs.locks import exclusive_device
from cifar_tune.tuning.endpoint import Limits, read_card, serving
from sweeps.serve_candidate import RAMP_SECONDS, send

TARGET_MS = 2.0
PORT = 8123


def median_ms(folder: Path | None, side: int, seconds: float) -> float:
    """Of the requests of one user, in milliseconds; those of the first second do not count."""
    with serving(folder, Limits(), port=PORT, side=side) as address:
        requests = send(address, side, 1, seconds)
    assert all(request.ok for request in requests), "a request failed"
    begun = min(request.end for request in requests) + RAMP_SECONDS
    return statistics.median(request.ms for request in requests if request.end >= begun)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="a run with a candidate")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn")
    options = parser.parse_args(arguments)
    folder = find_run(options.run) / "candidate"
    card = read_card(folder)
    above: list[float] = []
    with exclusive_device(card["device"], wait=True, purpose="(serving)"):
        for number in range(options.rounds):
            turns = [None, folder] if number % 2 == 0 else [folder, None]
            found = {turn: median_ms(turn, card["image_size"], options.seconds) for turn in turns}
            above.append(found[folder] - found[None] - card["p50_ms"])
            print(
                f"no-op {found[None]:.2f} ms, candidate {found[folder]:.2f} ms, offline {card['p50_ms']:.3f} ms: "
                f"{above[-1]:+.2f} ms",
                flush=True,
            )
    middle = statistics.median(above)
    print(f"above no-op and offline together: {middle:+.2f} ms ({min(above):+.2f} to {max(above):+.2f}), target 2 ms")
    return 0 if middle <= TARGET_MS else 1


if __name__ == "__main__":
    raise SystemExit(main())
