"""The Pareto front of latency and accuracy: which rows are on it, how sure that is, and what it gains."""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.choose import Choice
from analysis.frames import Row, label, rows, variant_of
from analysis.justify import NO_SAMPLES, between
from analysis.markdown import fixed, table
from analysis.paired import lower_bound
from analysis.pareto import pareto_mask
from analysis.rivals import Rivals
from cifar_tune.config import REFERENCE, TEACHER_ARM

_RAW_COLUMNS = ["correct", "samples_ms", "reference_ms"]
OBJECTIVES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "size": lambda front: front["artifact_mb"],
    "build": lambda front: front["compile_seconds"].fillna(0.0),  # none: nothing is built
    "energy": lambda front: front["gpu_power_w"] * front["paired_ms"],  # millijoules a call; None without NVML
}
"""What can count beside latency and accuracy, each less being better."""
_NOTE = """The front is made of paired milliseconds: the median ratio to FP32 eager in paired rounds, times the median
latency of FP32 eager of that model over the whole grid. So the machine's drift between rows is not in them. Brackets
hold their 95 % interval.

An accuracy that cannot be told from that of FP32 eager of the same weights counts as the same. So a point can lie above
the line without being on the front.

Probability is the share of bootstrap draws in which the row is on the front. Each draw resamples test images, repeats
and rounds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """Hypervolume of the front, as a share of what there is below a baseline's latency and above the constraint."""

    share: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    baseline: str
    """Name of the row whose latency bounds it."""
    baseline_ms: float


def front_table(rivals: Rivals, min_accuracy: float, choice: Choice) -> pd.DataFrame:
    """The competing rows without raw samples, with what makes them a front and how sure that is.

    Columns besides those of the rows:
    - `paired_ms`: latency free of drift, with its 95 % interval `paired_low_ms`, `paired_high_ms`;
    - `paired_accuracy`: that of FP32 eager of the same weights, where nothing tells them apart;
    - `accuracy_low`: the lower bound of the accuracy;
    - `on_front`: of `paired_ms` and `paired_accuracy`, with its `front_probability`;
    - `on_wide_front`: with every one of OBJECTIVES that is known of all rows as well;
    - `feasible`, `candidate`.

    Without raw samples `paired_low_ms`, `paired_high_ms` and `front_probability` are null.
    """
    frame, draws, unknown = rivals.frame, rivals.draws, np.full(len(rivals.frame), np.nan)
    points = np.stack([frame["paired_ms"].to_numpy(float), -frame["paired_accuracy"].to_numpy(float)], axis=1)
    intervals = [(np.nan, np.nan) if draws is None else draws.latency_interval(n) for n in range(len(frame))]
    front = frame.drop(columns=_RAW_COLUMNS).assign(
        paired_low_ms=[low for low, _ in intervals],
        paired_high_ms=[high for _, high in intervals],
        accuracy_low=[lower_bound(accuracy, rivals.images) for accuracy in frame["test_accuracy"]],
        on_front=pareto_mask(points),
        front_probability=unknown if draws is None else draws.front_probability(),
        on_wide_front=wide_front(frame, [name for name in OBJECTIVES if known(frame, name)]),
        feasible=frame["test_accuracy"] >= min_accuracy,
        candidate=frame.index == (-1 if choice.index is None else choice.index),
    )
    return front.sort_values("paired_ms")


def known(front: pd.DataFrame, objective: str) -> bool:
    """Whether every row has a figure for it."""
    return bool(len(front)) and bool(OBJECTIVES[objective](front).notna().all())


def wide_front(front: pd.DataFrame, objectives: Sequence[str]) -> np.ndarray:
    """Which rows are on the front of latency, accuracy and these of OBJECTIVES: bool (rows,).

    ValueError: one of them is unknown, or not known of every row.
    """
    for name in objectives:
        if name not in OBJECTIVES:
            raise ValueError(f"objective is {name!r}; allowed are {', '.join(OBJECTIVES)}")
        if not known(front, name):
            raise ValueError(f"objective {name} is not known of every row that competes")
    columns = [front["paired_ms"], -front["paired_accuracy"], *(OBJECTIVES[name](front) for name in objectives)]
    return pareto_mask(np.stack([column.to_numpy(float) for column in columns], axis=1))


def volume(rivals: Rivals, min_accuracy: float) -> Volume | None:
    """How far the front gets beyond FP32 eager of the baseline: the teacher, or else the slowest model.

    None where no FP32 eager competes, or the table lacks the raw samples.
    """
    eager, draws = [row for row in rivals.rows if variant_of(row) == REFERENCE], rivals.draws
    if not eager or draws is None:
        return None
    baseline = max(eager, key=lambda row: (row["arm"] == TEACHER_ARM, row["paired_ms"]))
    found = draws.hypervolumes(baseline["paired_ms"], min_accuracy)
    low, middle, high = (float(value) for value in np.percentile(found, [2.5, 50, 97.5]))
    return Volume(share=middle, low=low, high=high, baseline=label(baseline), baseline_ms=baseline["paired_ms"])


def text(frame: pd.DataFrame, volume: Volume | None) -> str:
    """The rows that may be on the front, each with its probability; empty where nothing competes.

    Args:
        frame: see `front_table`.
        volume: what the front gains over its baseline, None without one.
    """
    likely = [row for row in rows(frame) if row["on_front"] or (row["front_probability"] or 0) >= 0.05]
    lines = [
        (
            label(row),
            fixed(row["test_accuracy"], 2, 100),
            fixed(row["p50_ms"], 3),
            _paired_cell(row),
            row["on_front"],
            fixed(row["front_probability"], 2),
            row["feasible"],
            row["candidate"],
        )
        for row in likely
    ]
    header = (
        "Variant",
        "Accuracy %",
        "p50 ms",
        "Paired ms",
        "On front",
        "Probability",
        "Holds constraint",
        "Candidate",
    )
    unsampled = NO_SAMPLES if any(row["front_probability"] is None for row in likely) else ""
    notes = [_NOTE, unsampled, _volume_text(volume), _wide_text(frame)]
    return "\n\n".join([f"## Pareto front\n\n{table(header, lines)}", *filter(None, notes)]) if lines else ""


def _paired_cell(row: Row) -> str:
    return f"{row['paired_ms']:.3f}{between(row['paired_low_ms'], row['paired_high_ms'])}"


def _volume_text(volume: Volume | None) -> str:
    if volume is None:
        return ""
    return (
        f"The front covers {100 * volume.share:.1f} % ({100 * volume.low:.1f} to {100 * volume.high:.1f}) of the area "
        f"below {volume.baseline_ms:.3f} ms and above the constraint (hypervolume). That latency is the one of "
        f"{volume.baseline}."
    )


def _wide_text(frame: pd.DataFrame) -> str:
    """Which rows are on the front only where more objectives count."""
    wide = [label(row) for row in rows(frame) if row["on_wide_front"] and not row["on_front"]]
    if not wide:
        return ""
    counted = " and ".join(name for name in OBJECTIVES if known(frame, name))
    return f"With {counted} as further objectives the front has {len(wide)} more rows: {'; '.join(wide)}."
