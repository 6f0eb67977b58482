"""What a million images cost on each of several devices, and whether the goals of the study are met (R26).
Command: `python -m analysis cost RUN... --price-per-hour PRICE...`.

Each run is of one device, with a price. Images are answered one after another, so an hour holds 3,600,000 / ms
of them; a server that batches or answers several at a time pays less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.choose import choose
from analysis.decide import is_measured
from analysis.frames import Row, Run, label, variant_of
from analysis.markdown import fixed, table
from analysis.race import Figure, key_of
from analysis.rivals import Rivals, rivals_of
from cifar_tune.config import REFERENCE, TEACHER_ARM
from cifar_tune.store import replace_file

GOALS = {"time": 0.80, "cost": 0.70}
"""Reductions that R26 asks of the candidate, against FP32 eager of the baseline on the first device."""
_MILLISECONDS_AN_HOUR = 3_600_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """One row on one device, and what it costs there."""

    run: str
    device: str
    what: str
    """baseline or candidate."""
    row: Row
    figure: Figure
    """Of the same kind for baseline and candidate of one run: the best that both have."""
    verdict: str
    """Whether new processes confirmed it; empty where that is not known."""
    price_per_hour: float
    """Of the device, in whatever currency the user gave it in."""

    @property
    def per_million(self) -> float:
        """What a million images cost, one after another at the typical latency."""
        return 1e6 * self.figure.ms / _MILLISECONDS_AN_HOUR * self.price_per_hour

    def times(self, other: Offer) -> float:
        """Latency as a multiple of another's: in one run by the ratio to its baseline, which is free of drift."""
        mine, theirs = self.figure, other.figure
        if self.run == other.run and mine.kind == theirs.kind and mine.ratio and theirs.ratio:
            return mine.ratio / theirs.ratio
        return mine.ms / theirs.ms

    def saved(self, other: Offer) -> float:
        """Share of another's cost that is saved."""
        return 1 - self.times(other) * self.price_per_hour / other.price_per_hour


def offers(runs: Sequence[Run], prices: Sequence[float]) -> list[Offer]:
    """Baseline and candidate of each run, in the order of the runs: baseline first.

    The baseline is FP32 eager of the teacher, or, without one, of the slowest model; the candidate is the report's.

    Raises:
        ValueError: prices that are none, not one for each run, or a run without a measured baseline.
    """
    given, wanted = len(prices), len(runs)
    if given != wanted:
        raise ValueError(f"price per hour is given {given} times; allowed is once for each run, {wanted} times")
    for price in prices:
        if not 0 < price < math.inf:
            raise ValueError(f"price per hour is {price:g}; allowed is above 0")
    data = list(dict.fromkeys(str(run.study["data"].get("label")) for run in runs))
    if len(data) > 1:
        raise ValueError(f"runs are of {' and '.join(data)}; allowed are runs of the same images")
    return [offer for run, price in zip(runs, prices, strict=True) for offer in _offers_of(run, price)]


def _offers_of(run: Run, price: float) -> list[Offer]:
    name, rivals = str(run.study["run"]), rivals_of(run.latency, run.test_images)
    eager = [row for row in rivals.grid if is_measured(row) and variant_of(row) == REFERENCE]
    if not eager:
        raise ValueError(f"run {name} has no measured FP32 eager, so there is nothing to compare with")
    baseline = max(eager, key=lambda row: (row["arm"] == TEACHER_ARM, row["p50_ms"]))
    index = choose(rivals, run.min_accuracy, run.latency_budget_ms).index
    chosen = [("candidate", row) for row in rivals.grid if row["index"] == index]
    found = [("baseline", baseline), *chosen]
    figures = rivals.alike([row for _, row in found])
    return [
        Offer(
            run=name, device=str(row["env_device_name"]), what=what, row=row, figure=figure, price_per_hour=price,
            verdict=_verdict(rivals, row) if what == "candidate" else "",
        )
        for (what, row), figure in zip(found, figures, strict=True)
    ]  # fmt: skip


def _verdict(rivals: Rivals, row: Row) -> str:
    found = rivals.race.confirmation(key_of(row))
    return "" if found is None else "confirmed" if found.agrees else "not confirmed"


def cost(found: Sequence[Offer]) -> str:
    """The table and the goals, as Markdown.

    Args:
        found: see `offers`.
    """
    first = found[0]
    lines = [
        (
            offer.run,
            offer.device,
            offer.what if not offer.verdict else f"{offer.what}, {offer.verdict}",
            label(offer.row),
            fixed(offer.row["test_accuracy"], 2, 100),
            fixed(offer.figure.ms, 3),
            offer.figure.kind,
            fixed(1 / offer.times(first), 2),
            fixed(offer.price_per_hour, 2),
            f"{offer.per_million:.3g}",
            f"{100 * offer.saved(first):+.1f}",
        )
        for offer in found
    ]
    header = ("Run", "Device", "What", "Row", "Accuracy %", "ms", "Figure", "Speedup", "Price an hour")
    note = (
        "Speedup and saving are against the first line; within one run they are by the ratio to its baseline. Images "
        "are answered one after another at batch 1, so the cost of a million is 10⁶ x ms x price an hour. Figure says "
        "what the milliseconds come from: the screen, the race, or new processes after the choice (confirm)."
    )
    return (
        f"# Cost\n\n{table((*header, 'Cost of a million', 'Saved %'), lines)}\n\n{note}\n\n## Goals\n\n{_goals(found)}"
    )


def _goals(found: Sequence[Offer]) -> str:
    first, candidates = found[0], [offer for offer in found if offer.what == "candidate"]
    if not candidates:
        return "No run has a candidate."
    best = min(candidates, key=lambda offer: offer.per_million)
    saved = {"time": 1 - best.times(first), "cost": best.saved(first)}
    lines = [
        f"- {name}: {-100 * saved[name]:+.1f} % (goal {-100 * goal:.0f} %), "
        + ("met" if saved[name] >= goal else "missed")
        for name, goal in GOALS.items()
    ]
    cheapest = f"The cheapest candidate is {label(best.row)} of {best.run} ({best.device})"
    if best.verdict == "not confirmed":
        cheapest += ", not confirmed"
    return "\n".join([f"{cheapest}, against {label(first.row)} of {first.run} ({first.device}):", "", *lines])


def plot_cost(found: Sequence[Offer], path: Path) -> None:
    """Write a PNG: what a million images cost, a bar for each offer.

    Args:
        found: see `offers`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # only a picture needs it, and it is slow to import
    from matplotlib.figure import Figure

    from analysis.plots import COLOURS

    figure: Any = Figure(figsize=(9, 1.4 + 0.6 * len(found)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = {"baseline": "0.6", "candidate": COLOURS[0]}
    names = [f"{offer.run}, {offer.device}\n{offer.what}: {label(offer.row)}" for offer in found]
    bars = axes.barh(range(len(found)), [o.per_million for o in found], color=[colours[o.what] for o in found])
    axes.bar_label(bars, labels=[f"{o.per_million:.3g}  ({o.figure.ms:.3g} ms)" for o in found], padding=4)
    axes.set_yticks(range(len(found)), names, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set_xlabel("cost of a million images")
    axes.spines[["top", "right"]].set_visible(False)
    replace_file(path, lambda temporary: figure.savefig(temporary, format="png"))
