"""Two runs beside each other: which rows moved, whether beyond noise, and what else differs.
Command: `python -m analysis compare RUN_A RUN_B`.

Runs are hours or commits apart, and the machine was not the same in both. So what is compared is what each row says of
itself against FP32 eager of its own weights, in paired rounds. FP32 eager itself is shown too, but counts only where
the user asks for it: nothing tells a slower model from a slower machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from analysis.choose import choose
from analysis.decide import grid_rows, is_measured
from analysis.frames import Row, Run, label, variant_of
from analysis.markdown import MISSING, bullets, fixed, table
from analysis.paired import Z95, PairedDifference, paired_difference, standard_error
from analysis.rivals import Rivals, rivals_of
from analysis.uncertain import reference_levels
from cifar_tune.config import REFERENCE

Moved = Literal["better", "worse", "same", "gone", "new"]

LATENCY_THRESHOLD = 0.05
"""Share by which a row must be slower, beyond noise, to count as a regression."""
ACCURACY_THRESHOLD = 0.5
"""Points by which a row must be less accurate, beyond noise."""
_RUN_SETTINGS = ("name", "storage", "resume", "verbose", "dashboard")
"""Settings that differ from run to run and change no result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """One row in both runs."""

    name: str
    moved: Moved
    accuracy: PairedDifference | None
    """Of the second run minus the first, in points; None where one has none."""
    speed: tuple[float, float, float] | None
    """Speedup of the second over that of the first, with its 95 % interval."""
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What `compare` hands back."""

    text: str
    """What differs, as Markdown; ends with the verdict."""
    regressions: list[Move]
    """Rows that are worse in the second run beyond noise and threshold, or are measured no more."""


def compare(
    first: Run, second: Run, latency_threshold: float = LATENCY_THRESHOLD, *, absolute: bool = False
) -> Comparison:
    """Two runs beside each other.

    Args:
        latency_threshold: share by which a row must be slower, beyond noise, to count as a regression.
        absolute: whether a slower FP32 eager counts, too.
    """
    moves = moves_of(first, second, latency_threshold, absolute=absolute)
    worse = [m for m in moves if m.moved in ("worse", "gone")]
    count = f"{len(worse)} regression{'s' if len(worse) > 1 else ''}"
    rivals = [rivals_of(run.latency, run.test_images) for run in (first, second)]
    candidates = bullets(_candidate(run, found) for run, found in zip((first, second), rivals, strict=True))
    parts = [
        f"# {first.study['run']} and {second.study['run']}",
        f"## Candidate\n\n{candidates}",
        f"## Rows\n\n{_table(moves)}",
        f"## FP32 eager\n\n{_levels(rivals)}",
        f"## What else differs\n\n{_differences(first, second)}",
        f"## Verdict\n\n{count}: {'; '.join(m.name for m in worse)}." if worse else "## Verdict\n\nNo regression.",
    ]
    return Comparison(text="\n\n".join(parts), regressions=worse)


def moves_of(first: Run, second: Run, latency_threshold: float, *, absolute: bool) -> list[Move]:
    """Every row of the grid that was measured in one of the runs."""
    before, after = _named_rows(first), _named_rows(second)
    images = first.test_images if first.study["data"]["fingerprint"] == second.study["data"]["fingerprint"] else None
    counts = (first.test_images, second.test_images)
    return [
        _move(name, before.get(name), after.get(name), images, counts, latency_threshold, absolute=absolute)
        for name in dict.fromkeys([*before, *after])
    ]


def _named_rows(run: Run) -> dict[str, Row]:
    return {label(row): row for row in grid_rows(run.latency) if is_measured(row)}


def _move(
    name: str,
    a: Row | None,
    b: Row | None,
    images: int | None,
    counts: tuple[int, int],
    limit: float,
    *,
    absolute: bool,
) -> Move:
    if a is None or b is None:
        moved: Moved = "new" if a is None else "gone"
        return Move(name=name, moved=moved, accuracy=None, speed=None, reason=f"measured in one of the runs: {moved}")
    accuracy, speed = _accuracy(a, b, images, counts), _speed(a, b, absolute=absolute)
    reasons: list[tuple[Moved, str]] = []
    if accuracy is not None and accuracy.high < 0 and accuracy.points <= -ACCURACY_THRESHOLD:
        reasons.append(("worse", f"accuracy {accuracy}"))
    if accuracy is not None and accuracy.low > 0 and accuracy.points >= ACCURACY_THRESHOLD:
        reasons.append(("better", f"accuracy {accuracy}"))
    if speed is not None and speed[2] < 1 and speed[0] <= 1 - limit:
        reasons.append(("worse", f"{speed[0]:.3f} times the speed ({speed[1]:.3f} to {speed[2]:.3f})"))
    if speed is not None and speed[1] > 1 and speed[0] >= 1 + limit:
        reasons.append(("better", f"{speed[0]:.3f} times the speed ({speed[1]:.3f} to {speed[2]:.3f})"))
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


def _speed(a: Row, b: Row, *, absolute: bool) -> tuple[float, float, float] | None:
    """How much faster the second is, with an interval."""
    if variant_of(a) == REFERENCE:
        if not absolute:
            return None
        return _ratio(
            (a["p50_ms"], a["p50_low_ms"], a["p50_high_ms"]), (b["p50_ms"], b["p50_low_ms"], b["p50_high_ms"])
        )
    if not a["speedup"] or not b["speedup"]:
        return None
    names = ("speedup", "speedup_low", "speedup_high")
    return _ratio(tuple(b[name] for name in names), tuple(a[name] for name in names))


def _ratio(above: tuple[Any, ...], below: tuple[Any, ...]) -> tuple[float, float, float]:
    """Quotient of two positive figures with 95 % intervals, and its interval: their logarithms are independent."""
    middle = math.log(above[0] / below[0])
    halves = [0.5 * math.log(high / low) if low and high else 0.0 for _, low, high in (above, below)]
    half = math.hypot(*halves)
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


# --- text -------------------------------------------------------------------------------------------------------


def _candidate(run: Run, rivals: Rivals) -> str:
    return f"{run.study['run']}: {choose(rivals, run.min_accuracy, run.latency_budget_ms).text}"


def _table(moves: list[Move]) -> str:
    lines = [
        (
            m.name,
            MISSING if m.accuracy is None else str(m.accuracy),
            MISSING if m.speed is None else f"{m.speed[0]:.3f} ({m.speed[1]:.3f} to {m.speed[2]:.3f})",
            m.moved,
            m.reason,
        )
        for m in moves
    ]
    note = "Relative speed is the speedup over FP32 eager in the second run, divided by that in the first."
    return f"{table(('Row', 'Accuracy', 'Relative speed', 'Moved', 'Why'), lines)}\n\n{note}"


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
