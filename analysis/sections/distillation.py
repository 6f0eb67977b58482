"""What distillation gains over its control, a student that is trained on labels only (R7)."""

# pandas' and Plotly's own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import html
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.decide import grid_rows
from analysis.frames import Row, Run, rows, variant_of
from analysis.justify import percent
from analysis.markdown import bullets
from analysis.paired import PairedDifference, paired_difference
from analysis.plots import Picture, chart
from cifar_tune.config import DISTILL_ARM, PLAIN_ARM, REFERENCE, TEACHER_ARM
from cifar_tune.records import recipe_of

_RULES = {
    "always": "Rule `always`: the distillation search runs in every case.",
    "never": "Rule `never`: no distillation search runs.",
    "auto": "Rule `auto`: distillation runs where the plain student misses the constraint on validation data.",
    "ahead": "Rule `ahead`: distillation runs where the teacher is a point ahead of the plain student on validation.",
}
"""What `--distill` says (R7)."""


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
class DistillationGain:
    """Test accuracy of a distilled student against its control that was trained on labels only (FP32)."""

    model: str
    plain_accuracy: float
    distill_accuracy: float
    difference: PairedDifference
    """Of the measured weights, in pairs over the test images: what another seed would give is not in it."""
    seeds: SeedGain | None
    """Of the recipes over their seeds; None where these give no interval."""
    control: SeedGain | None
    """Of the distilled recipe over its seeds, against the same recipe on labels only; None where that is what `seeds`
    compares with."""


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
            seeds = _seed_gain(_of_recipe(trials, distill), _of_recipe(trials, plain))
            control = _seed_gain(_of_recipe(trials, distill), _of_control(trials, distill))
            gains.append(
                DistillationGain(
                    model=model,
                    plain_accuracy=plain["test_accuracy"],
                    distill_accuracy=distill["test_accuracy"],
                    difference=paired_difference(distill["correct"], plain["correct"], images),
                    seeds=seeds,
                    control=None if control == seeds else control,
                )
            )
    return gains


def _of_recipe(trials: pd.DataFrame, row: Row) -> list[float]:
    """Test accuracies of all seeds of the recipe whose weights the row measured."""
    if trials.empty:
        return []
    same = (trials["trial_id"].map(recipe_of) == recipe_of(row["trial_id"])) & (trials["status"] == "ok")
    return [float(a) for a in trials.loc[same, "test_accuracy"].dropna()]


def _of_control(trials: pd.DataFrame, row: Row) -> list[float]:
    """Test accuracies of all seeds of a distilled row's recipe that were trained on labels only."""
    distilled = next((t for t in rows(trials) if t["trial_id"] == row["trial_id"]), None)
    if distilled is None:
        return []
    same = (trials["stage"] == "final") & (trials["arm"] == PLAIN_ARM) & (trials["status"] == "ok")
    for name in ("model", "lr", "schedule", "weight_decay", "epochs"):
        same &= trials[name] == distilled[name]
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


def text(run: Run, gains: list[DistillationGain]) -> str:
    """The gain of distillation over its control, and the rule that decided whether it ran (R7)."""
    if run.trials.empty:
        return ""
    rule = str(run.config["distill"])
    lines = [_RULES.get(rule, f"Rule `{rule}`.")]
    if rule == "auto":
        lines += [_auto_text(run, model) for model in run.config["students"]]
    if rule == "ahead":
        lines += [_ahead_text(run, model) for model in run.config["students"]]
    for gain in gains:
        lines += [_weights_text(gain), _seeds_text(gain), *_control_text(gain)]
    if not gains:
        lines.append("No student has both arms, so there is no gain to report.")
    return f"## Distillation\n\n{bullets(lines)}"


def _weights_text(gain: DistillationGain) -> str:
    """The gain of the measured weights."""
    return (
        f"{gain.model}: {percent(gain.distill_accuracy)} distilled, {percent(gain.plain_accuracy)} on labels only "
        f"(control, alpha = 0). The difference is {gain.difference}, {_clear(gain.difference)}."
    )


def _seeds_text(gain: DistillationGain) -> str:
    """The gain of the recipe over its seeds."""
    if gain.seeds is None:
        return (
            f"{gain.model}: its seeds give no interval. An arm has fewer than two, or all seeds of each arm reach the "
            "same accuracy."
        )
    distill, plain = gain.seeds.seeds
    return (
        f"{gain.model}, over {distill} distilled and {plain} plain seeds: the means differ by {gain.seeds.points:+.2f} "
        f"points (Welch's 95 % interval {gain.seeds.low:+.2f} to {gain.seeds.high:+.2f}), {_clear(gain.seeds)}."
    )


def _control_text(gain: DistillationGain) -> list[str]:
    """The gain over the same recipe without the teacher; nothing where that was not trained."""
    if gain.control is None:
        return []
    distilled, control = gain.control.seeds
    return [
        (
            f"{gain.model}, over {distilled} seeds with the teacher and {control} of the same recipe without: the "
            f"means differ by {gain.control.points:+.2f} points ({gain.control.low:+.2f} to {gain.control.high:+.2f}), "
            f"{_clear(gain.control)}."
        )
    ]


def _clear(gain: PairedDifference | SeedGain) -> str:
    return "clear of zero" if gain.low > 0 or gain.high < 0 else "not clear of zero"


def _auto_text(run: Run, model: str) -> str:
    return f"{model}: {_reached_text(_best(run, PLAIN_ARM, model), 'plain')}; distillation {_ran(run, model)}."


def _ahead_text(run: Run, model: str) -> str:
    teacher = _reached_text(_best(run, TEACHER_ARM, run.config["teacher"]), "teacher")
    plain = _reached_text(_best(run, PLAIN_ARM, model), "plain")
    return f"{model}: {teacher}, {plain}; distillation {_ran(run, model)}."


def _best(run: Run, stage: str, model: str) -> float | None:
    """The best validation accuracy of a search."""
    mine = [row for row in rows(run.trials) if (row["stage"], row["model"]) == (stage, model)]
    return max((row["val_accuracy"] for row in mine if row["val_accuracy"] is not None), default=None)


def _reached_text(accuracy: float | None, arm: str) -> str:
    return f"no {arm} trial finished" if accuracy is None else f"the best {arm} trial validates at {percent(accuracy)}"


def _ran(run: Run, model: str) -> str:
    ran = any((row["stage"], row["model"]) == (DISTILL_ARM, model) for row in rows(run.trials))
    return "ran" if ran else "did not run"


def weaker_teacher(run: Run) -> str | None:
    """What to say of a teacher that a student on labels only outdoes on validation data; None where none does."""
    teacher = _best(run, TEACHER_ARM, run.config["teacher"])
    plain = [row for row in rows(run.trials) if row["arm"] == PLAIN_ARM and row["val_accuracy"] is not None]
    best = max(plain, key=lambda row: row["val_accuracy"], default=None)
    taught = any(row["arm"] == DISTILL_ARM for row in rows(run.trials))
    if teacher is None or best is None or not taught or best["val_accuracy"] <= teacher:
        return None
    return (
        f"The teacher {run.config['teacher']} is weaker than a student on labels only: {percent(teacher)} against "
        f"{percent(best['val_accuracy'])} of {best['model']} on validation data. So distillation has little to give."
    )


def figures(found: Sequence[DistillationGain]) -> Iterator[Picture]:
    """Gain of distillation over its control: of the measured weights, and over seeds."""
    lines: list[tuple[str, float, float, float]] = []
    for gain in found:
        lines.append(
            (f"{gain.model}, these weights", gain.difference.points, gain.difference.low, gain.difference.high)
        )
        if gain.seeds is not None:
            lines.append((f"{gain.model}, over seeds", gain.seeds.points, gain.seeds.low, gain.seeds.high))
        if gain.control is not None:
            same = f"{gain.model}, over its recipe on labels"
            lines.append((same, gain.control.points, gain.control.low, gain.control.high))
    if not lines:
        return
    figure = chart(140 + 30 * len(lines), xaxis={"title": "gain of distillation (points), with 95 % interval"})
    figure.add_scatter(
        x=[points for _, points, _, _ in lines], y=[html.escape(name) for name, *_ in lines], mode="markers",
        marker={"size": 10}, showlegend=False,
        error_x={
            "type": "data", "symmetric": False,
            "array": [high - points for _, points, _, high in lines],
            "arrayminus": [points - low for _, points, low, _ in lines],
        },
    )  # fmt: skip
    figure.add_vline(x=0, line={"width": 1, "color": "#888"})
    figure.update_yaxes(automargin=True)
    yield Picture(name="distillation", alternative="Gain of distillation over its control", figure=figure)
