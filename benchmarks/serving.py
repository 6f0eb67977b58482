"""What serving adds to a model's latency: `python benchmarks/serving.py --run RUN`.

A no-op deployment of the same server, which reads and decodes the same uploads and classifies nothing, and the
candidate, in turns, one user. Target: the median of a request is at most 2 ms above the no-op's and the candidate's
own latency together.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from common import Target, alternate, finish, parser, spread

from analysis.frames import find_run
from cifar_tune.runs.locks import exclusive_device
from cifar_tune.tuning.endpoint import Limits, read_card, serving
from sweeps.serve_candidate import RAMP_SECONDS, send

ABOVE = Target("at most", 2.0, unit=" ms")
PORT = 8123


def median_ms(folder: Path | None, side: int, seconds: float) -> float:
    """Of the requests of one user, in milliseconds; those of the first second do not count."""
    with serving(folder, Limits(), port=PORT, side=side) as address:
        requests = send(address, side, 1, seconds)
    assert all(request.ok for request in requests), "a request failed"
    begun = min(request.end for request in requests) + RAMP_SECONDS
    return statistics.median(request.ms for request in requests if request.end >= begun)


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--run", required=True, help="a run with a candidate")
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--seconds", type=float, default=6.0, help="of each turn")
    options = flags.parse_args()
    folder = find_run(options.run) / "candidate"
    card = read_card(folder)
    served = {"no-op": None, "candidate": folder}
    turns = {n: lambda at=at: median_ms(at, card["image_size"], options.seconds) for n, at in served.items()}
    above: list[float] = []
    with exclusive_device(card["device"], wait=True, purpose="(serving)"):
        for ms in alternate(turns, options.rounds, "swapped"):
            above.append(ms["candidate"] - ms["no-op"] - card["p50_ms"])
            print(
                f"no-op {ms['no-op']:.2f} ms, candidate {ms['candidate']:.2f} ms, offline {card['p50_ms']:.3f} ms: "
                f"{above[-1]:+.2f} ms",
                flush=True,
            )
    met = ABOVE.judge("above no-op and offline together", spread(above), "+.2f")
    finish(met=met, runs=options.rounds, device=card["device"])


if __name__ == "__main__":
    main()
