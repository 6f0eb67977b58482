"""Whether what a race says holds: 1,000 synthetic races for each claim, with the variances that were measured.

    python benchmarks/race_statistics.py [--races 1000]

Blocks differ by drift, which all contenders share, processes by 1.6 to 10 %, and the baseline by 3 % from race to race.
Shown is

- how often the confidence interval holds the true ratio, and the rerun interval the next race's: after 5, 10 and 20
  blocks, and where a race stops at the first look that leaves one contender;
- how often ten blocks find a slowdown of 5 %;
- how often `compare` alarms on two runs that are alike, and how often it names a row as slower or faster.

It takes about a minute.
"""

from __future__ import annotations

import math

import numpy as np
from common import Target, finish, parser, share

from analysis.compare import ERROR, holm, speeds_of
from cifar_tune.between import Level, level
from cifar_tune.blocks import BETWEEN_RACES, LOOKS, ratio, tied_with_fastest

BETWEEN = 0.016, 0.10
"""Least and largest standard deviation between processes, of logarithms, that was measured."""
SPREADS = (0.016, 0.03, 0.045, 0.10)
DRIFT = 0.10
CONTENDERS, ROWS, PROCESSES = 8, 54, 3
THRESHOLD = 0.05
LEAST, MOST = Target("at least", 0.93), Target("at most", 0.97)
FINDS = Target("at least", 0.90)
ALARMS = Target("at most", ERROR)
LOSES = Target("at most", 0.05)


def race(
    rng: np.random.Generator, levels: np.ndarray, spread: float, blocks: int, between: float = BETWEEN_RACES
) -> np.ndarray:
    """Milliseconds of each contender in each block, (contenders, blocks).

    Args:
        between: by how much the first, the baseline, is another one in each race: a standard deviation of logarithms.
    """
    drift, others = rng.normal(0, DRIFT, blocks), np.zeros(len(levels) - 1)
    levels = levels + np.concatenate([[rng.normal(0, between)], others])
    return np.exp(levels[:, None] + drift + rng.normal(0, spread, (len(levels), blocks)))


def judged(what: str, held: list[bool]) -> bool:
    """Whether a coverage is within 93 to 97 %."""
    print(f"{what}: {share(held)} of {len(held)}")
    figure = float(np.mean(held))
    return all([LEAST.judge("  its share", figure), MOST.judge("  its share", figure)])


def coverage(rng: np.random.Generator, races: int) -> bool:
    """Of both intervals after a fixed number of blocks."""
    verdicts: list[bool] = []
    for blocks in (5, 10, 20):
        truth, rerun = [], []
        for _ in range(races):
            levels = np.array([0.0, rng.uniform(-3, 0)])
            spread = float(np.exp(rng.uniform(*np.log(BETWEEN))))
            first, second = (ratio(*race(rng, levels, spread, blocks)[::-1]) for _ in range(2))
            truth.append(first.low <= math.exp(levels[1]) <= first.high)
            rerun.append(first.rerun_low <= second.middle <= first.rerun_high)
        verdicts += [
            judged(f"{blocks} blocks: the confidence interval holds the true ratio", truth),
            judged(f"{blocks} blocks: the rerun interval holds the next race's ratio", rerun),
        ]
    return all(verdicts)


def stop(rng: np.random.Generator, levels: np.ndarray, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """A race up to the look that leaves one contender, or the last: its blocks, and who is tied."""
    whole = race(rng, levels, spread, LOOKS[-1])
    for look in LOOKS:
        tied = tied_with_fastest(whole[:, :look], len(LOOKS))
        if tied.sum() == 1 or look == LOOKS[-1]:
            return whole[:, :look], tied
    raise AssertionError("unreachable")


def stopping(rng: np.random.Generator, races: int) -> bool:
    """Of the winner's and of a fixed contender's interval where the race stops by what it sees, and of the true best's
    being among those that are tied."""
    kept, fixed, winner, rerun = [], [], [], []
    for _ in range(races):
        levels = np.concatenate([[1.0], rng.uniform(-0.2, 0.0, CONTENDERS - 1)])
        spread = float(np.exp(rng.uniform(*np.log(BETWEEN))))
        seen, tied = stop(rng, levels, spread)
        fastest = int(np.argmin(np.median(seen, axis=1)))
        kept.append(bool(tied[int(np.argmin(levels))]))
        ratios = {n: ratio(seen[n], seen[0]) for n in {1, fastest}}
        fixed.append(ratios[1].low <= math.exp(levels[1] - levels[0]) <= ratios[1].high)
        winner.append(ratios[fastest].low <= math.exp(levels[fastest] - levels[0]) <= ratios[fastest].high)
        fresh = race(rng, levels, spread, seen.shape[1])
        rerun.append(ratios[1].rerun_low <= ratio(fresh[1], fresh[0]).middle <= ratios[1].rerun_high)
    print(f"the winner's own interval, luck in it: {share(winner)}; so it is confirmed by new blocks")
    return all([
        judged("stopped at a look: the confidence interval holds the true ratio", fixed),
        judged("stopped at a look: the rerun interval holds the next race's ratio", rerun),
        LOSES.judge("the truly fastest is out in", 1 - float(np.mean(kept))),
    ])  # fmt: skip


def power(rng: np.random.Generator, races: int) -> bool:
    """How often ten blocks find what is 5 % slower; above 3 % between processes, what they do find."""
    met = True
    for spread in SPREADS:
        found = finds(rng, races, spread, 0.05)
        what = f"{spread:.1%} between processes: ten blocks find 5 % more time in"
        if spread <= 0.03:
            met &= FINDS.judge(what, found)
            continue
        print(f"{what} {found:.3f}; nine times in ten they find {detectable(rng, races, spread):.1%}")
    return met


def finds(rng: np.random.Generator, races: int, spread: float, slowdown: float) -> float:
    """Share of races of ten blocks that find one of two contenders slower."""
    levels = np.array([math.log1p(slowdown), 0.0])
    return float(np.mean([not tied_with_fastest(race(rng, levels, spread, 10, between=0))[0] for _ in range(races)]))


def detectable(rng: np.random.Generator, races: int, spread: float) -> float:
    """The least slowdown that ten blocks find nine times in ten."""
    slowdowns = np.arange(0.05, 1.0, 0.01)
    return next(s for s in slowdowns if finds(rng, races, spread, s) >= FINDS.limit)


def alarms(rng: np.random.Generator, races: int) -> bool:
    """Of `compare` on two runs that are alike, 54 screened rows or 8 raced ones each."""
    raced, screened = [], []
    for _ in range(races):
        spreads = np.exp(rng.uniform(*np.log(BETWEEN), ROWS))
        screened.append(named([run(rng, spreads, PROCESSES) for _ in range(2)]))
        raced.append(named([run(rng, spreads[:CONTENDERS], LOOKS[0]) for _ in range(2)]))
    met = True
    for kind, moves in (("screened", screened), ("raced", raced)):
        worse, either = ["worse" in found for found in moves], [bool(found) for found in moves]
        print(f"like runs of {kind} rows: `compare` alarms in {share(worse)}, names a row in {share(either)}")
        met &= ALARMS.judge("its alarms", float(np.mean(worse)))
    return met


def run(rng: np.random.Generator, spreads: np.ndarray, processes: int) -> list[Level]:
    """The levels of rows that all have the same true one."""
    return [level(row, fresh=True) for row in rng.normal(0, 1, (len(spreads), processes)) * spreads[:, None]]


def named(runs: list[list[Level]]) -> set[str]:
    """Whether rows are named that are slower, or faster, by the threshold or more."""
    speeds = speeds_of(list(zip(*runs, strict=True)))
    clear = [chance <= ERROR for chance in holm([speed.chance for speed in speeds])]
    moved = [speed for speed, sure in zip(speeds, clear, strict=True) if sure and abs(speed.times - 1) >= THRESHOLD]
    return {"worse" if speed.times < 1 else "better" for speed in moved}


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--races", type=int, default=1000)
    flags.add_argument("--seed", type=int, default=0)
    options = flags.parse_args()
    rng = np.random.default_rng(options.seed)
    met = [claim(rng, options.races) for claim in (coverage, stopping, power, alarms)]
    finish(met=all(met), runs=options.races)


if __name__ == "__main__":
    main()
