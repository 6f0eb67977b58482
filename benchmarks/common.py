"""What the benchmarks share: turns, the spread of a figure, a target with its verdict, and how a benchmark ends.

for seconds in alternate({"plain": plain, "cached": cached}, rounds=5):    # each called once a round
    ratios.append(seconds["cached"] / seconds["plain"])
met = AT_MOST_FIVE_PERCENT_MORE.judge("cached / plain epoch", spread(ratios))
finish(met=met, runs=5)                                                    # exits with 1 where a target is missed
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from cifar_tune.device import environment

N = TypeVar("N")
V = TypeVar("V")
Order = Literal["kept", "swapped", "shuffled"]


def alternate(calls: Mapping[N, Callable[[], V]], rounds: int, order: Order = "kept") -> Iterator[dict[N, V]]:
    """Make each call once a round, so that a machine that drifts moves all of them; yields a round's answers.

    Args:
        order: of the calls in a round: the same in all, backward in every second one, or drawn from its number.
    """
    names = list(calls)
    for number in range(rounds):
        turns = {
            "kept": list(range(len(names))),
            "swapped": list(range(len(names)))[:: -1 if number % 2 else 1],
            "shuffled": np.random.default_rng(number).permutation(len(names)),
        }[order]
        answers = {names[turn]: calls[names[turn]]() for turn in turns}
        yield {name: answers[name] for name in names}


@dataclass(frozen=True, slots=True)
class Spread:
    """Of a figure over some runs: formatted, it is its median with the lowest and the highest."""

    median: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


def spread(values: Sequence[float] | np.ndarray) -> Spread:
    """Median, lowest and highest of one or more values."""
    return Spread(float(np.median(values)), float(np.min(values)), float(np.max(values)))


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure must be."""

    kind: Literal["at most", "at least", "below"]
    limit: float
    spec: str = "g"
    """Format of the limit."""
    unit: str = ""
    """Behind the limit, with its space."""

    def met(self, figure: float) -> bool:
        """Whether the figure is as it must be; one that is not a number is not."""
        if self.kind == "below":
            return figure < self.limit
        return figure <= self.limit if self.kind == "at most" else figure >= self.limit

    def judge(self, what: str, figure: float | Spread, spec: str = ".3f") -> bool:
        """Print a figure, of a spread the median, beside its target; returns whether it is met."""
        met = self.met(figure.median if isinstance(figure, Spread) else figure)
        target = f"target {self.kind} {self.limit:{self.spec}}{self.unit}"
        print(f"{what}: {figure:{spec}}{self.unit}; {target}: {'met' if met else 'MISSED'}", flush=True)
        return met


def exact(found: int, of: int) -> tuple[float, float]:
    """Exact 95 % interval of a share (Clopper and Pearson, Biometrika 26, 1934)."""
    from scipy.special import betaincinv

    low = float(betaincinv(found, of - found + 1, 0.025)) if found else 0.0
    high = float(betaincinv(found + 1, of - found, 0.975)) if found < of else 1.0
    return low, high


def share(held: Sequence[bool]) -> str:
    """Of what holds, with its exact interval."""
    low, high = exact(sum(held), len(held))
    return f"{np.mean(held):.3f} ({low:.3f} to {high:.3f})"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Of a benchmark's own docstring, whose lines stay as they are."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def about(runs: int, device: str = "cpu") -> str:
    """Where, with which versions and how often a figure was made, in a line."""
    here = environment(device)
    versions = f"Python {here.python}, torch=={here.torch} ray=={here.ray} optuna=={here.optuna} {here.runtimes}"
    commit = "" if here.git_commit is None else f", commit {here.git_commit}"
    return f"{here.device_name}, {here.cpu_count} cores, {here.os}, {versions.strip()}{commit}; {runs} runs"


def finish(*, met: bool, runs: int, device: str = "cpu") -> None:
    """Print where and with what the figures were made; exit with 1 where a target is missed."""
    print(about(runs, device))
    if not met:
        sys.exit("a target is missed")
