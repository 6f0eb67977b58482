"""Sections of the report on what each optimisation, and distillation, gained; each a function that gives Markdown."""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.decide import MIN_LAYOUT_GAIN, Decision, grid_rows, is_measured
from analysis.effects import Effect
from analysis.frames import Row, Run, label, rows
from analysis.goals import Judged
from analysis.justify import percent, speedup_cell
from analysis.markdown import MISSING, bullets, fixed, table
from analysis.tables import DistillationGain, zeroed_rows
from cifar_tune.config import DISTILL_ARM, PLAIN_ARM

MOST_NAMED = 4
"""Optimisations that are named where more have the same cause: the table above has them all."""
_DISTILL_RULES = {
    "always": "Rule `always`: the distillation search runs whatever the plain student reaches.",
    "never": "Rule `never`: no distillation search was run.",
    "auto": "Rule `auto` (R7): distillation runs where the plain student misses the constraint on validation data.",
}


def optimizations(decisions: list[Decision]) -> str:
    """Each optimisation alone: measured beside expected, and the verdict (R10, R11, R13)."""
    lines = [
        (d.model, d.arm, d.optimization, _signed(d.gain), _expected(d.expected), _drop(d), d.verdict, d.reason)
        for d in decisions
    ]
    header = ("Model", "Arm", "Optimization", "Gain", "Expected", "Accuracy drop (points, 95 %)", "Verdict", "Why")
    note = (
        "Gain is the reduction of latency in paired rounds, against FP32 eager, or, under a whole variant's name, "
        "against the same variant without its last part. `refine`: the measurement decides nothing yet. Expected is "
        "what the requirements hope for (docs/requirements.md)."
    )
    return f"## Optimizations, each alone\n\n{table(header, lines)}\n\n{note}" if lines else ""


def goals(judged: list[Judged]) -> str:
    """What was hoped of dynamic INT8 and of ONNX Runtime, row by row (R23, R24)."""
    lines = [
        (
            *(j.row[key] for key in ("model", "arm", "variant")),
            fixed(j.row["artifact_mb"], 2),
            speedup_cell(j.row),
            MISSING if j.points is None else f"{j.points:+.2f}",
            fixed(j.row["test_accuracy"], 2, 100),
            _outcome(j),
            j.row["note"] or "",
        )
        for j in judged
    ]
    header = ("Model", "Arm", "Variant", "MB", "Speedup", "Points lost", "Accuracy %", "Goals", "Note")
    note = (
        "Hoped of dynamic INT8: less than 30 MB, 1.5 to 3 times the speed, less than a point of accuracy lost, and "
        "more than 95 % (R23); of ONNX Runtime in FP32: 1.5 to 3 times the speed within half a point (R24). Speedup is "
        "over FP32 eager of the same weights; on a machine of the same price an inference costs as much less. What "
        "dynamic INT8 adds to ONNX Runtime's own speed is told under the optimizations. Open is what was not measured, "
        "was disturbed, or has the bound within its interval."
    )
    return f"## Goals\n\n{table(header, lines)}\n\n{note}" if lines else ""


def _outcome(judged: Judged) -> str:
    """Which goals a row missed, and of which nothing is known."""
    found = {"missed": judged.missed, "open": judged.open}
    return "; ".join(f"{name}: {', '.join(bounds)}" for name, bounds in found.items() if bounds) or "met"


def _signed(gain: float | None) -> str:
    return MISSING if gain is None else f"{100 * gain:+.1f} %"


def _expected(bounds: tuple[float, float] | None) -> str:
    return MISSING if bounds is None else f"{100 * bounds[0]:.0f} to {100 * bounds[1]:.0f} %"


def _drop(decision: Decision) -> str:
    if decision.accuracy_drop_points is None or decision.interval is None:
        return MISSING
    low, high = decision.interval
    return f"{decision.accuracy_drop_points:+.2f} ({low:+.2f} to {high:+.2f})"


def effects(found: list[Effect]) -> str:
    """What each factor does over the whole grid, and what R10 and R13 make of it."""
    lines = [
        (e.model, e.arm, e.term, f"{100 * e.change:+.1f} ({100 * e.low:+.1f} to {100 * e.high:+.1f})", _effect_text(e))
        for e in found
    ]
    header = ("Model", "Arm", "Factor", "Latency % (95 %)", "Says")
    note = (
        "A linear model of log-latency over the eight variants of the grid, one observation a repeat, paired with "
        "FP32 eager. A factor's effect is the average over the settings of the others; an interaction (x) is what "
        "factors do together beyond what each does alone. What differs from build to build is not in the intervals."
    )
    return f"## Factor effects\n\n{table(header, lines)}\n\n{note}" if lines else ""


def _effect_text(effect: Effect) -> str:
    if not effect.clear:
        return "not clear of zero"
    if effect.term == "channels_last":
        enough = effect.high < -MIN_LAYOUT_GAIN
        return "on average lower by more than 5 % (R13)" if enough else "on average not clearly 5 % lower (R13)"
    if effect.term == "fp16":
        return "slower: nothing to gain" if effect.low > 0 else "faster: kept where accuracy holds (R10)"
    return "lower" if effect.high < 0 else "higher"


def worked(run: Run, decisions: list[Decision]) -> str:
    """What worked and what did not (R15)."""
    lines = [f"{_heading(v)}: {_named(decisions, v)}." for v in ("keep", "drop", "refine") if _named(decisions, v)]
    grid = grid_rows(run.latency)
    for model, arm in dict.fromkeys((r["model"], r["arm"]) for r in grid):
        measured = [r for r in grid if (r["model"], r["arm"]) == (model, arm) and is_measured(r) and r["speedup"]]
        if measured:
            best = max(measured, key=lambda r: r["speedup"])
            lines.append(f"Fastest of {model} ({arm}): {best['variant']}, {best['speedup']:.2f} times its FP32 eager.")
    return f"## What worked and what did not\n\n{bullets(lines)}" if lines else ""


def _heading(verdict: str) -> str:
    return {"keep": "Worked", "drop": "Did not work", "refine": "Open"}[verdict]


def _named(decisions: list[Decision], verdict: str) -> str:
    """What has a verdict, with its cause; what shares one is told together."""
    causes: dict[str, list[str]] = {}
    for d in (d for d in decisions if d.verdict == verdict):
        causes.setdefault(d.cause, []).append(f"{d.optimization} on {d.model} ({d.arm})")
    return "; ".join(f"{_few(names)}, {cause}" for cause, names in causes.items())


def _few(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:MOST_NAMED])} and {more} more"


def magnitude(latency: pd.DataFrame) -> str:
    """What setting the smallest weights to zero costs and gains (R30)."""
    found = zeroed_rows(latency)
    lines = [
        (
            r["model"],
            r["arm"],
            "each layer" if r["zeroed_by_layer"] else "whole model" if r["zeroed"] else "-",
            f"{100 * r['zeroed']:.0f}",
            fixed(r["test_accuracy"], 2, 100),
            fixed(r["artifact_mb"], 2),
            fixed(r["compressed_mb"], 2),
            fixed(r["p50_ms"], 3),
            speedup_cell(r),
        )
        for r in found
    ]
    header = ("Model", "Arm", "Smallest of", "Zero %", "Accuracy %", "Dense MB", "Deflated MB", "p50 ms", "Speedup")
    note = (
        "Weights set to zero by magnitude, without training on. Dense kernels multiply zeros as fast as others, and "
        "a file holds them as it holds others: size falls only where weights are compressed, latency not at all. What "
        "shortens latency is cutting whole channels (`--prune`)."
    )
    return f"## Magnitude pruning\n\n{table(header, lines)}\n\n{note}" if lines else ""


def pruned(found: Sequence[tuple[Row, Row]], trials: pd.DataFrame) -> str:
    """What cutting whole channels costs and gains (R33): each narrowed model beside the one it was cut from."""
    ids = {row["trial_id"] for row, _ in found}
    taught = [trial["alpha"] > 0 for trial in rows(trials) if trial["trial_id"] in ids]
    trained = "with the teacher's answers" if all(taught) else "on labels alone"
    if any(taught) and not all(taught):
        trained = "some with the teacher's answers"
    lines = [
        (
            f"{row['model']} ({row['arm']})",
            label(whole),
            f"{row['parameters'] / whole['parameters']:.2f}",
            *(fixed(r["artifact_mb"], 2) for r in (row, whole)),
            *(fixed(r["test_accuracy"], 2, 100) for r in (row, whole)),
            *(fixed(r["paired_ms"], 3) for r in (row, whole)),
            f"{row['paired_ms'] / whole['paired_ms']:.2f}",
        )
        for row, whole in found
    ]
    header = ("Narrowed", "From", "Parameters", "MB", "MB before", "Accuracy %", "Before", "ms", "ms before", "Latency")
    note = (
        f"Whole channels cut off, then trained on, {trained}; behind @ is about the share of the multiplications that "
        "is left. Each in its fastest variant, beside the same variant of the model that it was cut from; Parameters "
        "and Latency are shares of that model's, ms are free of the drift between rows."
    )
    return f"## Structured pruning\n\n{table(header, lines)}\n\n{note}" if lines else ""


def distillation(run: Run, gains: list[DistillationGain]) -> str:
    """The gain of distillation over its control, and the rule that decided whether it ran (R7)."""
    if run.trials.empty:
        return ""
    rule = str(run.config["distill"])
    lines = [_DISTILL_RULES.get(rule, f"Rule `{rule}`.")]
    if rule == "auto":
        lines += [_auto_text(run, model) for model in run.config["students"]]
    for gain in gains:
        clear = "clear of zero" if gain.difference.low > 0 or gain.difference.high < 0 else "not clear of zero"
        lines.append(
            f"{gain.model}: {percent(gain.distill_accuracy)} distilled, {percent(gain.plain_accuracy)} on labels alone "
            f"(control, alpha = 0): {gain.difference}, {clear}."
        )
        if gain.seeds is None:
            lines.append(f"{gain.model}: its seeds give no interval (too few of an arm, or all reach the same).")
            continue
        low, high = gain.seeds.low, gain.seeds.high
        clear = "clear of zero" if low > 0 or high < 0 else "not clear of zero"
        counts = " and ".join(map(str, gain.seeds.seeds))
        lines.append(
            f"{gain.model}, over {counts} seeds: {gain.seeds.points:+.2f} points ({low:+.2f} to {high:+.2f}, Welch's "
            f"95 % interval of the difference of the means), {clear}."
        )
    if not gains:
        lines.append("No student has both arms, so there is no gain to report.")
    return f"## Distillation\n\n{bullets(lines)}"


def _auto_text(run: Run, model: str) -> str:
    mine = [row for row in rows(run.trials) if row["model"] == model]
    reached = [r["val_accuracy"] for r in mine if r["stage"] == PLAIN_ARM and r["val_accuracy"] is not None]
    ran = "ran" if any(r["stage"] == DISTILL_ARM for r in mine) else "did not run"
    plain = f"plain validates in its search at {percent(max(reached))}" if reached else "no plain trial finished"
    return f"{model}: {plain}; distillation {ran}."
