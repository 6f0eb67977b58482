"""The tables of the report as DataFrames: comparison (R14), front, distillation gain (R7), confirmation (R16)."""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.choose import Choice
from analysis.decide import grid_rows, is_measured
from analysis.frames import Row, label, rows, select, variant_of
from analysis.paired import PairedDifference, lower_bound, paired_difference
from analysis.pareto import pareto_mask
from analysis.rivals import Rivals
from cifar_tune.config import DISTILL_ARM, PLAIN_ARM, REFERENCE, TEACHER_ARM, Variant
from cifar_tune.records import recipe_of

CONFIRM_TOLERANCE = 0.10
"""The grid's p50 agrees with the fresh runs when it is within this share of their median."""

COMPARISON_COLUMNS = (
    *("id", "variant", "model", "arm", "accuracy_percent", "mean_ms", "p50_ms", "p95_ms", "parameters"),
    *("parameters_mb", "checkpoint_mb", "artifact_mb", "speedup", "meets_constraint", "status"),
)
_RAW_COLUMNS = ["correct", "samples_ms", "reference_ms"]
OBJECTIVES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "size": lambda front: front["artifact_mb"],
    "build": lambda front: front["compile_seconds"].fillna(0.0),  # none: nothing is built
    "energy": lambda front: front["gpu_power_w"] * front["paired_ms"],  # millijoules a call; None without NVML
}
"""What can count beside latency and accuracy, each less being better."""
_BYTES_PER_PARAMETER = 4
_FP16 = Variant(precision="fp16")

_Wanted = tuple[str, str, str, Variant]
"""ID, text, arm and variant of a row that R14 asks for."""

_TEACHER_ROW: _Wanted = ("B2", "teacher, FP32", TEACHER_ARM, REFERENCE)
_STUDENT_ROWS: tuple[_Wanted, ...] = (
    ("B1", "light model, FP32", PLAIN_ARM, REFERENCE),
    ("O1", "light model, FP16", PLAIN_ARM, _FP16),
    ("O2", "light model, FP16 + compile", PLAIN_ARM, Variant(precision="fp16", compile="default")),
    ("O3", "light model, channels_last", PLAIN_ARM, Variant(channels_last=True)),
    ("D1", "distilled student, FP16", DISTILL_ARM, _FP16),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SeedGain:
    """Mean test accuracy of the distilled recipe over its seeds minus that of the control, in points."""

    points: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    seeds: tuple[int, int]
    """How many of each arm."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillationGain:
    """Test accuracy of a distilled student against its control that was trained on labels alone (FP32)."""

    model: str
    plain_accuracy: float
    distill_accuracy: float
    difference: PairedDifference
    """Of the measured weights, in pairs over the test images: what another seed would give is not in it."""
    seeds: SeedGain | None
    """Of the recipes over their seeds; None where these give no interval."""


def comparison_table(
    latency: pd.DataFrame, teacher: str, students: tuple[str, ...], min_accuracy: float, choice: Choice
) -> pd.DataFrame:
    """The rows that R14 asks for, measured or not, the candidate `C`, then the other rows that failed: `F1`, `F2`, …

    The rows of the first student have the plain IDs, those of the second end in `.2`, and so on. `speedup` is over
    FP32 eager of the same model and arm; sizes are MB = 10**6 bytes, `parameters_mb` at four bytes each.
    """
    grid = grid_rows(latency)
    if not any(row["arm"] in (TEACHER_ARM, PLAIN_ARM, DISTILL_ARM) for row in grid):  # a model that a user brought
        lines = [_line(f"V{n}", row["variant"], row, min_accuracy) for n, row in enumerate(grid, start=1)]
        lines += [_line("C", f"candidate: {r['variant']}", r, min_accuracy) for r in grid if r["index"] == choice.index]
        return pd.DataFrame(lines, columns=list(COMPARISON_COLUMNS))
    lines = [_wanted(grid, teacher, _TEACHER_ROW, min_accuracy)]
    for number, student in enumerate(students, start=1):
        suffix = f".{number}" if number > 1 else ""
        lines += [_wanted(grid, student, wanted, min_accuracy, suffix) for wanted in _STUDENT_ROWS]
    lines.sort(key=lambda line: ("BOD".index(line["id"][0]), line["id"]))
    chosen = [row for row in grid if row["index"] == choice.index]
    lines += [_line("C", f"candidate: {row['variant']}", row, min_accuracy) for row in chosen]
    shown = {line.get("index") for line in lines}
    failed = [row for row in grid if row["status"] != "ok" and row["index"] not in shown]
    lines += [_line(f"F{n}", row["variant"], row, min_accuracy) for n, row in enumerate(failed, start=1)]
    return pd.DataFrame(lines, columns=list(COMPARISON_COLUMNS))


def _wanted(grid: list[Row], model: str, wanted: _Wanted, min_accuracy: float, suffix: str = "") -> Row:
    name, text, arm, variant = wanted
    same_model = (row for row in grid if (row["model"], row["arm"]) == (model, arm))
    row = next((row for row in same_model if variant_of(row) == variant), None)
    if row is None:
        return {"id": name + suffix, "variant": text, "model": model, "arm": arm, "status": "not measured"}
    return _line(name + suffix, text, row, min_accuracy)


def _line(name: str, text: str, row: Row, min_accuracy: float) -> Row:
    accuracy, parameters = row["test_accuracy"], row["parameters"]
    figures = ("mean_ms", "p50_ms", "p95_ms", "checkpoint_mb", "artifact_mb", "speedup")
    return {
        **{key: row[key] for key in ("index", "model", "arm", *figures, "status")},
        "id": name,
        "variant": text,
        "accuracy_percent": None if accuracy is None else 100 * accuracy,
        "parameters": parameters,
        "parameters_mb": None if parameters is None else parameters * _BYTES_PER_PARAMETER / 1e6,
        "meets_constraint": None if accuracy is None else accuracy >= min_accuracy,
    }


def front_table(rivals: Rivals, min_accuracy: float, choice: Choice) -> pd.DataFrame:
    """The competing rows without raw samples, with what makes them a front and how sure that is.

    Columns besides those of the rows: `paired_ms` (latency free of drift) with its 95 % interval `paired_low_ms`,
    `paired_high_ms`, `paired_accuracy` (that of FP32 eager of the same weights, where nothing tells them apart), the
    lower bound of the accuracy `accuracy_low`, `on_front` (of paired_ms and paired_accuracy), `front_probability`,
    `feasible` and `candidate`; `on_wide_front`: on the front where every one of OBJECTIVES that is known of all rows
    counts as well. Without raw samples `paired_low_ms`, `paired_high_ms` and `front_probability` are null.
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


def zeroed_rows(latency: pd.DataFrame) -> list[Row]:
    """Measured rows of magnitude pruning, each model's and arm's in order of the rate, after its FP32 eager."""
    grid = [r for r in grid_rows(latency) if is_measured(r)]
    kinds = {(r["model"], r["arm"]) for r in grid if r["zeroed"]}
    shown = [r for r in grid if (r["model"], r["arm"]) in kinds and (r["zeroed"] or variant_of(r) == REFERENCE)]
    return sorted(shown, key=lambda r: (r["model"], r["arm"], r["zeroed_by_layer"], r["zeroed"]))


def zeroed_curves(latency: pd.DataFrame) -> dict[str, list[Row]]:
    """The same as curves: model, arm and where the smallest weights were looked for -> rows, from no zeros on."""
    curves: dict[str, list[Row]] = {}
    for row in zeroed_rows(latency):
        for by_layer in (False, True):  # no zeros at all is where both begin
            if not row["zeroed"] or row["zeroed_by_layer"] == by_layer:
                where = "each layer" if by_layer else "whole model"
                curves.setdefault(f"{row['model']} ({row['arm']}), smallest of {where}", []).append(row)
    return curves


ZEROED_FIGURES = (
    ("accuracy", "accuracy (%)", "test_accuracy", 100),
    ("size", "deflated size (MB)", "compressed_mb", 1),
    ("latency", "p50 (ms)", "p50_ms", 1),
)
"""Name, title of the axis, column and factor of the three charts of R30."""


def pruned_rows(trials: pd.DataFrame, front: pd.DataFrame) -> list[tuple[Row, Row]]:
    """The fastest competing row of each model that was narrowed, with the same variant of the whole one (R33).

    Args:
        front: see `front_table`.
    """
    if trials.empty:
        return []
    started = {t["trial_id"]: t["start_sha256"] for t in rows(trials) if t["start_sha256"]}
    competing_rows = rows(front)
    wholes = {(r["checkpoint_sha256"], r["variant"]): r for r in competing_rows}
    fastest: dict[str, tuple[Row, Row]] = {}
    for row in competing_rows:  # fastest first
        whole = wholes.get((started.get(row["trial_id"]), row["variant"]))
        if whole is not None:
            fastest.setdefault(row["trial_id"], (row, whole))
    return list(fastest.values())


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


def distillation_gains(
    latency: pd.DataFrame, trials: pd.DataFrame, students: tuple[str, ...], images: int
) -> list[DistillationGain]:
    """For each student with both arms evaluated in FP32: the gain of distillation.

    Of the measured weights in pairs over the test images, and over the seeds of the recipes they come from.
    """
    evaluated = [r for r in grid_rows(latency) if r["correct"] is not None and variant_of(r) == REFERENCE]
    by_arm = {(row["model"], row["arm"]): row for row in evaluated}
    gains: list[DistillationGain] = []
    for model in students:
        plain, distill = by_arm.get((model, PLAIN_ARM)), by_arm.get((model, DISTILL_ARM))
        if plain is not None and distill is not None:
            gains.append(
                DistillationGain(
                    model=model,
                    plain_accuracy=plain["test_accuracy"],
                    distill_accuracy=distill["test_accuracy"],
                    difference=paired_difference(distill["correct"], plain["correct"], images),
                    seeds=_seed_gain(_of_recipe(trials, distill), _of_recipe(trials, plain)),
                )
            )
    return gains


def _of_recipe(trials: pd.DataFrame, row: Row) -> list[float]:
    """Test accuracies of all seeds of the recipe whose weights the row measured."""
    if trials.empty:
        return []
    same = (trials["trial_id"].map(recipe_of) == recipe_of(row["trial_id"])) & (trials["status"] == "ok")
    return [float(a) for a in trials.loc[same, "test_accuracy"].dropna()]


def _seed_gain(distill: list[float], plain: list[float]) -> SeedGain | None:
    """Difference of the means with Welch's 95 % interval.

    None with fewer than two seeds of each, or where all of each reach the same: nothing then tells how they vary.
    """
    if min(len(distill), len(plain)) < 2:
        return None
    if len(set(distill)) == len(set(plain)) == 1:
        return None
    from scipy.stats import ttest_ind  # a second of import that only this needs

    with warnings.catch_warnings():  # scipy doubts an arm whose seeds all reach the same; the other then varies
        warnings.simplefilter("ignore", RuntimeWarning)
        found = ttest_ind(distill, plain, equal_var=False).confidence_interval(0.95)
    points = 100 * float(np.mean(distill) - np.mean(plain))
    return SeedGain(
        points=points, low=100 * float(found.low), high=100 * float(found.high), seeds=(len(distill), len(plain))
    )


def confirm_table(latency: pd.DataFrame) -> pd.DataFrame:
    """A row for each variant that fresh processes measured again (R16); no rows where none was.

    Columns: model, arm, variant, status (of the runs), p50_ms (of each run, in order), spread ((largest - smallest)
    / smallest), grid_p50_ms, agrees (whether the grid's p50 is within 10 % of the median of the runs).
    """
    grid = grid_rows(latency)
    confirm = select(latency, latency["stage"] == "confirm").sort_values("repeat")
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows(confirm):
        groups.setdefault((row["trial_id"], row["model"], row["arm"], row["variant"]), []).append(row)
    columns = ["model", "arm", "variant", "status", "p50_ms", "spread", "grid_p50_ms", "agrees"]
    return pd.DataFrame([_confirmed(grid, runs) for runs in groups.values()], columns=columns)


def _confirmed(grid: list[Row], runs: list[Row]) -> Row:
    first = runs[0]
    identity = ("trial_id", "model", "arm", "variant")
    in_grid = next((r["p50_ms"] for r in grid if all(r[key] == first[key] for key in identity)), None)
    p50 = [row["p50_ms"] for row in runs if row["p50_ms"] is not None]
    return {
        **{key: first[key] for key in ("model", "arm", "variant")},
        "status": ", ".join(sorted({row["status"] for row in runs})),
        "p50_ms": p50,
        "spread": (max(p50) - min(p50)) / min(p50) if p50 else None,
        "grid_p50_ms": in_grid,
        "agrees": _agrees(in_grid, p50) if p50 and in_grid is not None else None,
    }


def _agrees(figure: float, runs: list[float]) -> bool:
    return abs(figure / float(np.median(runs)) - 1) <= CONFIRM_TOLERANCE
