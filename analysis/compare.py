"""Two runs beside each other: which rows moved, whether beyond noise, and what else differs.
Command: `python -m analysis compare RUN_A RUN_B`.

Runs are hours or commits apart, and the machine was not the same in both. So what is compared is a row's ratio to FP32
eager: of race and confirmation to the baseline in the same blocks, of the screen to its own weights in paired rounds.
FP32 eager itself is shown too, but counts only where the user asks for it: nothing tells a slower model from a slower
machine.

A row's error is what its processes differ by. All rows share an error of 5 % (Holm), so that the command can guard a
CI. What is flagged can be measured again: `--again RUN_C` takes a third run, and only what it confirms counts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from analysis.choose import choose
from analysis.decide import grid_rows, is_measured
from analysis.frames import Row, Run, label, rows, select, variant_of
from analysis.markdown import MISSING, bullets, fixed, table
from analysis.paired import Z95, PairedDifference, paired_difference, standard_error
from analysis.rivals import Rivals, rivals_of
from analysis.uncertain import reference_levels, row_level
from cifar_tune.between import Level, change, level, moderated, two_sided
from cifar_tune.config import REFERENCE

Moved = Literal["better", "worse", "same", "refuted", "gone", "new"]
Figure = Literal["screen", "race", "confirm"]

FIGURES: tuple[Figure, ...] = ("screen", "race", "confirm")
"""What a row's latency may rest on, the best last."""
ERROR = 0.05
"""Share of comparisons of like runs that may name a row, over all rows together."""

LATENCY_THRESHOLD = 0.05
"""Share by which a row must be slower, beyond noise, to count as a regression."""
ACCURACY_THRESHOLD = 0.5
"""Points by which a row must be less accurate, beyond noise."""
_RUN_SETTINGS = ("name", "storage", "resume", "verbose", "dashboard")
"""Settings that differ from run to run and change no result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Speed of a row in the second run over that in the first."""

    times: float
    low: float
    """Lower end of its 95 % interval, of this row by itself."""
    high: float
    chance: float
    """Of so large a change where there is none, of this row by itself."""
    figure: Figure
    """What both runs' latencies rest on."""

    def __str__(self) -> str:
        return f"{self.times:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """One row in both runs."""

    name: str
    moved: Moved
    accuracy: PairedDifference | None
    """Of the second run minus the first, in points; None where one has none."""
    speed: Speed | None
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What `compare` hands back."""

    text: str
    """What differs, as Markdown; ends with the verdict."""
    regressions: list[Move]
    """Rows that are worse in the second run beyond noise and threshold, or are measured no more."""


def compare(
    first: Run,
    second: Run,
    latency_threshold: float = LATENCY_THRESHOLD,
    *,
    absolute: bool = False,
    again: Run | None = None,
) -> Comparison:
    """Two runs beside each other.

    Args:
        latency_threshold: share by which a row must be slower, beyond noise, to count as a regression.
        absolute: whether a slower FP32 eager counts, too.
        again: fresh figures of the second run. A row is a regression where these say so, too.
    """
    moves = moves_of(first, second, latency_threshold, absolute=absolute)
    if again is not None:
        moves = _confirmed(moves, first, again, latency_threshold, absolute=absolute)
    worse = [m for m in moves if m.moved in ("worse", "gone")]
    rivals = [rivals_of(run.latency, run.test_images) for run in (first, second)]
    candidates = bullets(_candidate(run, found) for run, found in zip((first, second), rivals, strict=True))
    parts = [
        f"# {first.study['run']} and {second.study['run']}",
        f"## Candidate\n\n{candidates}",
        f"## Rows\n\n{_table(moves)}",
        f"## FP32 eager\n\n{_levels(rivals)}",
        f"## What else differs\n\n{_differences(first, second)}",
        f"## Verdict\n\n{_verdict(worse, first, second, asked=again is None)}",
    ]
    return Comparison(text="\n\n".join(parts), regressions=worse)


def _confirmed(moves: list[Move], first: Run, again: Run, limit: float, *, absolute: bool) -> list[Move]:
    """The moves, of which those to the worse count that fresh figures confirm; one that has none stays as it is."""
    flagged = {m.name for m in moves if m.moved == "worse"}
    fresh = {m.name: m for m in moves_of(first, again, limit, absolute=absolute, only=flagged) if m.moved != "gone"}
    refuted = {name for name, move in fresh.items() if move.moved != "worse"}
    said = "measured again it is not worse; at first it was"
    return [replace(m, moved="refuted", reason=f"{said} {m.reason}") if m.name in refuted else m for m in moves]


def moves_of(
    first: Run, second: Run, latency_threshold: float, *, absolute: bool, only: Collection[str] | None = None
) -> list[Move]:
    """Every row of the grid that was measured in one of the runs; of `only` these, where it is given.

    A row moves where a test says so and the figure is beyond the threshold. All tests of the comparison, of latency and
    of accuracy, share an error of 5 % (Holm, "A simple sequentially rejective multiple test procedure", 1979). So of
    twenty comparisons of runs that are alike, one at most names a row.
    """
    before, after = _named_rows(first), _named_rows(second)
    names = [name for name in dict.fromkeys([*before, *after]) if only is None or name in only]
    same_images = first.study["data"]["fingerprint"] == second.study["data"]["fingerprint"]
    images = first.test_images if same_images else None
    counts = (first.test_images, second.test_images)
    speeds = _speeds(first, second, absolute=absolute)
    both = [name for name in names if name in before and name in after]
    accuracies = {name: _accuracy(before[name], after[name], images, counts) for name in both}
    chances = {("speed", name): speeds[name].chance for name in both if name in speeds}
    chances |= {("accuracy", name): _chance(found) for name, found in accuracies.items() if found is not None}
    clear = {test for test, chance in zip(chances, holm(list(chances.values())), strict=True) if chance <= ERROR}
    return [
        _move(
            name,
            speeds.get(name),
            accuracies[name],
            latency_threshold,
            clear={kind for kind, of in clear if of == name},
        )
        if name in both
        else _missing(name, new=name in after)
        for name in names
    ]


def holm(chances: Sequence[float]) -> list[float]:
    """Chances of false alarms, corrected for how many tests there are."""
    order = np.argsort(chances)
    steps = np.asarray(chances, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(chance) for chance in corrected]


def _named_rows(run: Run) -> dict[str, Row]:
    return {label(row): row for row in grid_rows(run.latency) if is_measured(row)}


def _missing(name: str, *, new: bool) -> Move:
    moved: Moved = "new" if new else "gone"
    return Move(name=name, moved=moved, accuracy=None, speed=None, reason=f"measured in one of the runs: {moved}")


def _move(
    name: str, speed: Speed | None, accuracy: PairedDifference | None, limit: float, *, clear: Collection[str]
) -> Move:
    reasons: list[tuple[Moved, str]] = []
    if accuracy is not None and "accuracy" in clear and abs(accuracy.points) >= ACCURACY_THRESHOLD:
        reasons.append(("worse" if accuracy.points < 0 else "better", f"accuracy {accuracy}"))
    if speed is not None and "speed" in clear and not 1 - limit < speed.times < 1 + limit:
        reasons.append(("worse" if speed.times < 1 else "better", f"{speed} times the speed"))
    moved = "worse" if any(m == "worse" for m, _ in reasons) else "better" if reasons else "same"
    text = "; ".join(reason for _, reason in reasons) or "within noise or threshold"
    return Move(name=name, moved=moved, accuracy=accuracy, speed=speed, reason=text)


def _accuracy(a: Row, b: Row, images: int | None, counts: tuple[int, int]) -> PairedDifference | None:
    """In pairs over the same test images, else of two independent samples of images."""
    if images is not None and a["correct"] is not None and b["correct"] is not None:
        return paired_difference(b["correct"], a["correct"], images)
    if a["test_accuracy"] is None or b["test_accuracy"] is None:
        return None
    points = 100 * (b["test_accuracy"] - a["test_accuracy"])
    errors = [standard_error(row["test_accuracy"], count) for row, count in zip((a, b), counts, strict=True)]
    half = 100 * Z95 * math.hypot(*errors)
    return PairedDifference(points=points, low=points - half, high=points + half)


def _chance(accuracy: PairedDifference) -> float:
    """Chance of so large a difference between accuracies that are the same."""
    error = (accuracy.high - accuracy.low) / (2 * Z95)
    return two_sided((accuracy.high + accuracy.low) / 2 / error, math.inf) if error else 1.0


def _speeds(first: Run, second: Run, *, absolute: bool) -> dict[str, Speed]:
    """How much faster each row of both runs is in the second: of figures of one kind, the best that both runs have."""
    found: dict[str, Speed] = {}
    for figure in FIGURES:
        a, b = (_levels_of(run, figure, absolute=absolute) for run in (first, second))
        if figure != "screen" and _baseline(first, figure) != _baseline(second, figure):
            continue  # ratios to unlike models
        both = [name for name in a if name in b]
        found |= dict(zip(both, speeds_of([(a[name], b[name]) for name in both], figure), strict=True))
    return found


def speeds_of(pairs: Sequence[tuple[Level, Level]], figure: Figure = "screen") -> list[Speed]:
    """Speed of the second of each pair of levels over that of the first; pairs tell each other how processes differ."""
    return [
        Speed(
            times=math.exp(faster.mean),
            low=faster.interval()[0],
            high=faster.interval()[1],
            chance=two_sided(faster.mean / faster.error, faster.degrees),
            figure=figure,
        )
        for faster in moderated([change(after, before) for before, after in pairs])
    ]


def _levels_of(run: Run, figure: Figure, *, absolute: bool) -> dict[str, Level]:
    """The level of each row that has a figure of that kind; of FP32 eager in milliseconds, where those count."""
    if figure == "screen":
        named = _named_rows(run)
        known = {name: row_level(row) for name, row in named.items()}
        eager = {name: row for name, row in named.items() if variant_of(row) == REFERENCE}
        known = {name: found for name, found in known.items() if name not in eager}
        bare = [{**row, "speedup": None} for row in eager.values()]  # its own milliseconds, not its ratio to itself
        return known | dict(zip(eager, map(row_level, bare), strict=True)) if absolute else known
    blocks = _blocks(run, figure)
    baseline = _baseline(run, figure)
    levels = {
        name: level([_block_log(row, alone=name == baseline) for row in its], fresh=True)
        for name, its in blocks.items()
        if absolute or name != baseline
    }
    return {name: known for name, known in levels.items() if known.processes > 1}


def _blocks(run: Run, figure: Figure) -> dict[str, list[Row]]:
    """The blocks of a race or a confirmation, by row. Rows of the older protocol had no baseline beside them."""
    found: dict[str, list[Row]] = {}
    for row in rows(select(run.latency, run.latency["stage"] == figure)):
        if is_measured(row) and row["ratio"] is not None and row["reference_ms"] is not None:
            found.setdefault(label(row), []).append(row)
    return found


def _block_log(row: Row, *, alone: bool = False) -> float:
    """The logarithm of a block's ratio to the baseline beside it; of its milliseconds, where it is the baseline."""
    own = math.log(np.median(row["samples_ms"][0]))
    return own if alone else own - math.log(np.median(row["reference_ms"][0]))


def _baseline(run: Run, figure: Figure) -> str | None:
    """The row that stands beside itself in all blocks."""
    blocks = _blocks(run, figure)
    return next((name for name, its in blocks.items() if all(_block_log(row) == 0 for row in its)), None)


# --- text -------------------------------------------------------------------------------------------------------


def _candidate(run: Run, rivals: Rivals) -> str:
    return f"{run.study['run']}: {choose(rivals, run.min_accuracy, run.latency_budget_ms).text}"


def _verdict(worse: list[Move], first: Run, second: Run, *, asked: bool) -> str:
    if not worse:
        return "No regression."
    text = f"{len(worse)} regression{'s' if len(worse) > 1 else ''}: {'; '.join(m.name for m in worse)}."
    if not asked:
        return text
    known = {**_named_rows(first), **_named_rows(second)}
    variants = " ".join(sorted({known[move.name]["variant"] for move in worse}))
    grid = f"python sweeps/variant_grid.py --run {second.path} --name RUN_C --variants {variants}"
    return f"{text}\n\nTo be sure, measure again and compare with `--again RUN_C`:\n\n    {grid}"


def _table(moves: list[Move]) -> str:
    lines = [
        (
            m.name,
            MISSING if m.accuracy is None else str(m.accuracy),
            MISSING if m.speed is None else str(m.speed),
            MISSING if m.speed is None else m.speed.figure,
            m.moved,
            m.reason,
        )
        for m in moves
    ]
    note = (
        "Relative speed is that over FP32 eager in the second run, divided by that in the first. Intervals are of each "
        "row by itself. A row moves where it does beyond the noise of all rows together, 5 %."
    )
    return f"{table(('Row', 'Accuracy', 'Relative speed', 'Figure', 'Moved', 'Why'), lines)}\n\n{note}"


def _levels(rivals: Sequence[Rivals]) -> str:
    before, after = (
        {model: sorted(level)[len(level) // 2] for model, level in reference_levels(found.grid).items()}
        for found in rivals
    )
    lines = [
        (model, fixed(before[model], 3), fixed(after[model], 3), fixed(after[model] / before[model], 3))
        for model in before
        if model in after
    ]
    note = "A machine that was slower in one run slows all models alike."
    return (
        f"{table(('Model', 'First, ms', 'Second, ms', 'Ratio'), lines)}\n\n{note}" if lines else "Nothing to compare."
    )


def _differences(first: Run, second: Run) -> str:
    lines = [
        f"{kind} {name}: {a!r}, then {b!r}"
        for kind, one, other in (
            ("setting", first.config, second.config),
            ("environment", first.study["environment"], second.study["environment"]),
            ("data", _about(first), _about(second)),
        )
        for name, a, b in _unlike(one, other)
        if name not in _RUN_SETTINGS
    ]
    return bullets(lines) if lines else "Nothing: configuration, environment and data are the same."


def _about(run: Run) -> dict[str, Any]:
    return {name: run.study["data"].get(name) for name in ("label", "fingerprint", "test_images")}


def _unlike(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    names = dict.fromkeys([*one, *other])
    return [(name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)]
