"""How often the rerun interval of one race holds the figure of the next, on runs that were measured.

    python benchmarks/race_rerun.py RUN RUN... [--stage race|confirm]

The runs are races of the same contenders on the same machine, in the order of their time. Of each race and the one
after it, each contender that both have is a case; the baseline, which is 1 by definition, is none. Contenders of one
race share its machine, so the share's interval is by races, not by cases: a bootstrap over them, beside the exact
interval of the races in which all contenders held. It takes seconds; the races take hours.
"""

from __future__ import annotations

import itertools

import numpy as np
from common import Target, finish, parser, share, spread

from analysis.frames import Row, Run, label, load_run, rows, select

HELD = Target("at least", 0.90)
HALF_WIDTH = Target("at most", 5.0, unit=" %")
ALIKE = 0.04
"""Standard deviation between processes up to which the half-width counts."""


def stated(run: Run, stage: str) -> dict[str, list[Row]]:
    """The blocks of each contender beside a baseline, by name."""
    found: dict[str, list[Row]] = {}
    for row in rows(select(run.latency, run.latency["stage"] == stage)):
        if row["ratio"] is not None and row["ratio_low"] != row["ratio_high"]:
            found.setdefault(label(row), []).append(row)
    return found


def cases(first: dict[str, list[Row]], second: dict[str, list[Row]]) -> dict[str, bool]:
    """Contender -> whether the first race's rerun interval holds the second's ratio."""
    both = [name for name in first if name in second]
    return {name: first[name][0]["rerun_low"] <= second[name][0]["ratio"] <= first[name][0]["rerun_high"]
            for name in both}  # fmt: skip


def half_width(its: list[Row]) -> float:
    """Half of the rerun interval, in percent of the ratio."""
    return 50 * (its[0]["rerun_high"] - its[0]["rerun_low"]) / its[0]["ratio"]


def between(its: list[Row]) -> float:
    """Standard deviation over blocks of the logarithm of the ratio, of one process: two differ in a ratio."""
    return float(np.std(log_ratios(its), ddof=1) / np.sqrt(2))


def log_ratios(its: list[Row]) -> np.ndarray:
    """Logarithm of the ratio to the baseline in each block, (blocks,)."""
    return np.log([np.median(row["samples_ms"][0]) / np.median(row["reference_ms"][0]) for row in its])


def beyond(races: list[dict[str, list[Row]]]) -> float:
    """Standard deviation between races, of logarithms of ratios, beyond what their blocks explain; at least 0.

    By moments, over contenders that two races in a row have: the mean square of the difference of their means is twice
    that variance and what the blocks explain.
    """
    excess: list[float] = []
    for one, other in itertools.pairwise(races):
        for name in one.keys() & other.keys():
            first, second = log_ratios(one[name]), log_ratios(other[name])
            explained = first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second)
            excess.append(float((first.mean() - second.mean()) ** 2 - explained))
    return float(np.sqrt(max(0.0, np.mean(excess) / 2)))


def clustered(races: list[dict[str, bool]], draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the share that held, by races."""
    rng = np.random.default_rng(0)
    held, of = np.array([sum(race.values()) for race in races]), np.array([len(race) for race in races])
    drawn = rng.integers(0, len(races), (draws, len(races)))
    low, high = np.percentile(held[drawn].sum(axis=1) / of[drawn].sum(axis=1), [2.5, 97.5])
    return float(low), float(high)


def report(races: list[dict[str, list[Row]]]) -> bool:
    """Print coverage and half-widths; whether both are as wanted."""
    pairs = [found for one, other in itertools.pairwise(races) if (found := cases(one, other))]
    if not pairs:
        raise SystemExit("no contender was in two races that follow each other")
    for number, pair in enumerate(pairs, 1):
        missed = ", ".join(name for name, held in pair.items() if not held) or "none"
        print(f"race {number} and the next: {sum(pair.values())} of {len(pair)} held; not: {missed}")
    held = [one for pair in pairs for one in pair.values()]
    low, high = clustered(pairs)
    print(f"{len(pairs)} pairs of races, {len(held)} cases: {share(held)} if cases were independent;")
    print(f"by races {low:.3f} to {high:.3f}; all of a race held in {share([all(p.values()) for p in pairs])}")
    print(f"between races, beyond what their blocks explain: {beyond(races):.1%}")
    met = HELD.judge("the rerun interval holds the next race's figure in", float(np.mean(held)))
    alike = [half_width(its) for race in races for its in race.values() if between(its) <= ALIKE]
    print(f"half-widths of all: {spread([half_width(its) for race in races for its in race.values()]):.1f} %")
    if alike:
        met &= HALF_WIDTH.judge(f"those where processes differ by {ALIKE:.0%} at most", spread(alike), ".1f")
    return met


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("runs", nargs="+", metavar="RUN")
    flags.add_argument("--stage", choices=["race", "confirm"], default="race")
    options = flags.parse_args()
    if len(options.runs) < 2:
        flags.error("two runs or more are needed")
    races = [stated(load_run(run), options.stage) for run in options.runs]
    finish(met=report(races), runs=len(races))


if __name__ == "__main__":
    main()
