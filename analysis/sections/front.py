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
from analysis.pareto import pareto_mask
from analysis.race import key_of
from analysis.rivals import Rivals
from cifar_tune.blocks import SUMMARY_COLUMNS, summary
from cifar_tune.config import REFERENCE, TEACHER_ARM

_RAW_COLUMNS = ["correct", "samples_ms", "reference_ms"]
OBJECTIVES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "size": lambda front: front["artifact_mb"],
    "build": lambda front: front["compile_seconds"].fillna(0.0),  # none: nothing is built
    "energy": lambda front: front["gpu_power_w"] * front["place_ms"],  # millijoules a call; None without NVML
}
"""What can count beside latency and accuracy, each less being better."""
_SCREENED = """The front is made of paired milliseconds: the median ratio to FP32 eager in paired rounds, times the
median latency of FP32 eager of that model over the whole grid. So the machine's drift between rows is not in them.
Brackets hold their 95 % interval."""
_RACED = """The front is made of the rows that raced, by their ratio to the baseline in the race. Milliseconds and the
ratio are the best there are, and Figure says whose. Those of `confirm` come from new processes after the choice.
Brackets hold 95 % intervals. Rows that did not race are not on this front: the screen separated them, or there was no
place for them."""
_NOTE = """An accuracy that cannot be told from that of FP32 eager of the same weights counts as the same. So a point
can lie above the line without being on the front.

Probability is the share of bootstrap draws in which the row is on the front. Each draw resamples test images and
"""


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
    - `paired_ms`: latency of the screen free of drift, with its 95 % interval `paired_low_ms`, `paired_high_ms`;
    - `paired_accuracy`: that of FP32 eager of the same weights, where nothing tells them apart;
    - `accuracy_low`: the lower bound of the accuracy, corrected for the choice among sets of answers;
    - `figure`: the best kind of figure of the row (screen, race, confirm), whose `ratio`, `typical_ms`, … it has;
    - `place_ms`: by the race the ratio times the baseline's milliseconds, else `paired_ms`, with its 95 % interval;
    - `on_front`: of `place_ms` and `paired_accuracy`, among the rows that raced if any, with its `front_probability`;
    - `on_wide_front`: with every one of OBJECTIVES that is known of all rows as well;
    - `feasible`, `candidate`.

    Without raw samples `paired_low_ms`, `paired_high_ms` and `front_probability` are null.
    """
    draws, count = rivals.draws, len(rivals.frame)
    paired = [(np.nan, np.nan) if draws is None else draws.latency_interval(n) for n in range(count)]
    front = rivals.frame.drop(columns=[*_RAW_COLUMNS, *SUMMARY_COLUMNS]).assign(
        paired_low_ms=[low for low, _ in paired],
        paired_high_ms=[high for _, high in paired],
        accuracy_low=[rivals.accuracy_low(row) for row in rivals.rows],
        **_figures(rivals),
        **_places(rivals),
        feasible=rivals.frame["test_accuracy"] >= min_accuracy,
        candidate=rivals.frame.index == (-1 if choice.index is None else choice.index),
    )
    front = front.assign(on_wide_front=wide_front(front, [name for name in OBJECTIVES if known(front, name)]))
    return front.sort_values("place_ms")


def _figures(rivals: Rivals) -> dict[str, list[Any]]:
    """The kind of each row's best figure, and the columns that sum it up: None for the screen."""
    kinds = [rivals.figure(row).kind for row in rivals.rows]
    blocks = {"race": rivals.race.raced, "confirm": rivals.race.confirmed}
    found = [
        {} if kind == "screen" else summary(blocks[kind][key_of(row)])
        for kind, row in zip(kinds, rivals.rows, strict=True)
    ]
    return {"figure": kinds, **{name: [each.get(name) for each in found] for name in SUMMARY_COLUMNS}}


def _places(rivals: Rivals) -> dict[str, Any]:
    """What each row's place on the front is, and how sure; rows that did not race have none where others did."""
    draws = rivals.place_draws
    places = {row["index"]: n for n, row in enumerate(rivals.placed)}
    points = [[rivals.place_ms(row), -row["paired_accuracy"]] for row in rivals.placed]
    mask = pareto_mask(np.array(points, dtype=float).reshape(-1, 2))
    likely = None if draws is None else draws.front_probability()
    order = [places.get(row["index"]) for row in rivals.rows]
    intervals = [(np.nan, np.nan) if n is None or draws is None else draws.latency_interval(n) for n in order]
    return {
        "place_ms": [rivals.place_ms(row) for row in rivals.rows],
        "place_low_ms": [low for low, _ in intervals],
        "place_high_ms": [high for _, high in intervals],
        "on_front": [n is not None and bool(mask[n]) for n in order],
        "front_probability": [np.nan if n is None or likely is None else likely[n] for n in order],
    }


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
    columns = [front["place_ms"], -front["paired_accuracy"], *(OBJECTIVES[name](front) for name in objectives)]
    points = np.stack([column.to_numpy(float) for column in columns], axis=1)
    raced = (front["figure"] != "screen").to_numpy(bool)
    competes = raced if raced.any() else ~raced
    mask = np.zeros(len(front), dtype=np.bool_)
    mask[competes] = pareto_mask(points[competes])
    return mask


def volume(rivals: Rivals, min_accuracy: float) -> Volume | None:
    """How far the front gets beyond FP32 eager of the baseline: the teacher, or else the slowest model.

    None where no FP32 eager competes, or the table lacks the raw samples.
    """
    eager, draws = [row for row in rivals.placed if variant_of(row) == REFERENCE], rivals.place_draws
    if not eager or draws is None:
        return None
    baseline = max(eager, key=lambda row: (row["arm"] == TEACHER_ARM, rivals.place_ms(row)))
    level = rivals.place_ms(baseline)
    found = draws.hypervolumes(level, min_accuracy)
    low, middle, high = (float(value) for value in np.percentile(found, [2.5, 50, 97.5]))
    return Volume(share=middle, low=low, high=high, baseline=label(baseline), baseline_ms=level)


def text(frame: pd.DataFrame, volume: Volume | None) -> str:
    """The rows that may be on the front, each with its probability; empty where nothing competes.

    Args:
        frame: see `front_table`.
        volume: what the front gains over its baseline, None without one.
    """
    likely = [row for row in rows(frame) if row["on_front"] or (row["front_probability"] or 0) >= 0.05]
    raced = any(row["figure"] != "screen" for row in rows(frame))
    lines = [
        (
            label(row),
            fixed(row["test_accuracy"], 2, 100),
            *(_raced_cells(row) if raced else (fixed(row["p50_ms"], 3), _paired_cell(row))),
            row["on_front"],
            fixed(row["front_probability"], 2),
            row["feasible"],
            row["candidate"],
        )
        for row in likely
    ]
    measured = ("Typical ms", "Times the baseline", "Figure") if raced else ("p50 ms", "Paired ms")
    header = ("Variant", "Accuracy %", *measured, "On front", "Probability", "Holds constraint", "Candidate")
    unsampled = NO_SAMPLES if any(row["front_probability"] is None for row in likely) else ""
    made = f"{_NOTE.rstrip()} {'blocks of the race' if raced else 'repeats and rounds'}."
    notes = [_RACED if raced else _SCREENED, made, unsampled, _volume_text(volume), _wide_text(frame)]
    return "\n\n".join([f"## Pareto front\n\n{table(header, lines)}", *filter(None, notes)]) if lines else ""


def _raced_cells(row: Row) -> tuple[str, str, str]:
    """Of the best figure that there is."""
    typical = f"{fixed(row['typical_ms'], 3)}{between(row['typical_low_ms'], row['typical_high_ms'])}"
    return typical, f"{fixed(row['ratio'], 3)}{between(row['ratio_low'], row['ratio_high'])}", row["figure"]


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
