"""The sections of the report: tables and decisions -> Markdown. No rule is applied here."""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.decide import MIN_LAYOUT_GAIN, Choice, Decision, compile_text, gain_text, grid_rows, is_measured
from analysis.effects import Effect
from analysis.frames import Row, Run, label, rows, select
from analysis.goals import Judged
from analysis.justify import percent
from analysis.markdown import MISSING, bullets, fixed, table
from analysis.paired import standard_error
from analysis.tables import OBJECTIVES, DistillationGain, Volume, known, zeroed_rows
from cifar_tune.config import DISTILL_ARM, MIN_SAMPLES, PATIENCE, PLAIN_ARM, REFERENCE, Variant

_UNSTABLE_SPREAD = 0.10
_COARSE_POINTS = 0.5
_BATCH1_AGREEMENT = 0.98
_NAMED_ROWS = 4

_DISTILL_RULES = {
    "always": "Rule `always`: the distillation search runs whatever the plain student reaches.",
    "never": "Rule `never`: no distillation search was run.",
    "auto": "Rule `auto` (R7): distillation runs where the plain student misses the constraint on validation data.",
}

LOADING = """## Load the data

```python
import pandas as pd

latency = pd.read_parquet("latency.parquet")  # a row per model, variant and stage, with raw samples
front = pd.read_parquet("front.parquet")  # the rows that compete: on_front, front_probability, feasible, candidate
front[front.on_front].sort_values("p50_ms")[["model", "arm", "variant", "test_accuracy", "p50_ms"]]
```"""


def question(run: Run) -> str:
    """What the study asks, and where."""
    asked = f"Lowest batch-1 latency with a test accuracy of at least {percent(run.min_accuracy)}"
    if not run.labelled:
        asked = "Batch-1 latency alone"
    return f"{asked}, on {run.study['data']['label']}, {run.study['environment']['device_name']}."


def answer(run: Run, choice: Choice) -> str:
    """Title, question and answer."""
    return f"# {run.study['run']}\n\n{question(run)}\n\n## Answer\n\n{choice.text}"


def take(card: dict[str, Any] | None) -> str:
    """Where the candidate lies, and what was found when it was checked; empty where there is none."""
    if card is None:
        return ""
    return (
        "## Take it\n\nThe folder `candidate/` holds the model as it was measured, with weights, preprocessing and "
        "class names, a model card, and an example that needs only the packages in its `requirements.txt`:\n\n"
        "```\npip install -r candidate/requirements.txt\npython candidate/example.py IMAGE...\n```\n\n"
        f"{verification(card)}"
    )


def verification(card: dict[str, Any]) -> str:
    """What the written candidate answered when a fresh process opened it."""
    found = card["verification"]
    if found["accuracy"] is None or found["agreement"] is None:
        return f"It could not be verified: {found['problem']}."
    read = (
        f"opened in a fresh process without this package, it has an accuracy of {percent(found['accuracy'])} on "
        f"{found['images']:,} test images and gives {percent(found['agreement'])} of them the class that FP32 eager "
        "gives"
    )
    return f"Verified: {read}." if found["ok"] else f"NOT verified, {found['problem']}: {read}."


def warnings(run: Run, confirmed: pd.DataFrame, card: dict[str, Any] | None) -> str:
    """What a reader must know before trusting the figures; empty where there is nothing."""
    lines = [*_row_warnings(grid_rows(run.latency)), *_data_warnings(run), *_confirm_warnings(confirmed)]
    if card is not None and not card["verification"]["ok"]:
        lines.insert(0, f"The folder `candidate/` does not do what its row promises. {verification(card)}")
    return f"## Warnings\n\n{bullets(lines)}" if lines else ""


def _row_warnings(grid: list[Row]) -> list[str]:
    lines = [
        f"{label(r)}, status {r['status']}: {r['error'] or 'no reason recorded'}" for r in grid if r["status"] != "ok"
    ]
    for text, troubled in (
        ("Other processes used the machine during the measurement of", [r for r in grid if r["contended"]]),
        (
            f"Unstable, the medians of the repeats differ by more than {100 * _UNSTABLE_SPREAD:.0f} % (R9)",
            [r for r in grid if (r["spread"] or 0) > _UNSTABLE_SPREAD],
        ),
        (
            "The warm-up did not become stable in",
            [r for r in grid if r["settled"] is False],
        ),
        (
            f"Slow: {PATIENCE} times the time limit ended the sampling before {MIN_SAMPLES} samples, in",
            [r for r in grid if r["samples_ms"] is not None and sum(map(len, r["samples_ms"])) < MIN_SAMPLES],
        ),
        (
            f"At batch 1 less than {100 * _BATCH1_AGREEMENT:.0f} % of the classes agree with those behind the accuracy",
            [r for r in grid if (1 if r["batch1_agreement"] is None else r["batch1_agreement"]) < _BATCH1_AGREEMENT],
        ),
    ):
        if troubled:
            lines.append(f"{text}: {_some(troubled)}")
    return lines


def _some(troubled: list[Row]) -> str:
    """Names of rows: all of a few, else how many and the first ones."""
    names = [label(row) for row in troubled]
    if len(names) <= _NAMED_ROWS:
        return "; ".join(names)
    return f"{len(names)} rows, {'; '.join(names[:_NAMED_ROWS])} and others"


def _data_warnings(run: Run) -> list[str]:
    lines: list[str] = []
    error = 100 * standard_error(run.min_accuracy, run.test_images)
    if run.labelled and error > _COARSE_POINTS:
        lines.append(
            f"The test set has {run.test_images:,} images: the standard error of an accuracy near the constraint "
            f"is {error:.2f} points, so smaller differences say little."
        )
    for column in ("env_host", "env_device_name", "env_torch"):
        values = sorted({str(value) for value in run.latency[column]})
        if len(values) > 1:
            lines.append(f"The latencies come from unlike environments ({column}: {', '.join(values)}).")
    notes = Counter(row["note"] for row in rows(run.trials) if row["note"])
    return lines + [f"{count} trials: {note}." for note, count in notes.items()]


def _confirm_warnings(confirmed: pd.DataFrame) -> list[str]:
    lines: list[str] = []
    for row in rows(confirmed):
        if row["agrees"] is not True or row["status"] != "ok":
            lines.append(f"{label(row)} was not confirmed by its fresh runs, see below.")
        elif row["spread"] > _UNSTABLE_SPREAD:
            lines.append(f"The fresh runs of {label(row)} differ by {100 * row['spread']:.0f} %.")
    return lines


def budget(run: Run) -> str:
    """What the latency budget let through, before any training."""
    limit = run.config.get("latency_budget_ms")
    measured = [r for r in rows(select(run.latency, run.latency["stage"] == "budget")) if r["p50_ms"] is not None]
    if limit is None or not measured:
        return ""
    lines: list[tuple[Any, ...]] = []
    for model in dict.fromkeys(row["model"] for row in measured):
        best = min((row for row in measured if row["model"] == model), key=lambda row: row["p50_ms"])
        low = best["p50_low_ms"]
        kept = "searched" if low is None or low <= limit else "dropped before the search"
        lines.append((model, best["variant"], fixed(best["p50_ms"], 3), kept))
    header = ("Model", "Fastest variant", "p50 ms", "Verdict")
    return f"## Latency budget of {limit:g} ms\n\n{table(header, lines)}\n\nMeasured with random weights."


def comparison(frame: pd.DataFrame) -> str:
    """The table of R14."""
    header = ("ID", "Variant", "Model", "Arm", "Accuracy %", "Mean ms", "p50 ms", "p95 ms", "Parameters")
    lines = [
        (
            *(row[key] for key in ("id", "variant", "model", "arm")),
            fixed(row["accuracy_percent"], 2),
            *(fixed(row[key], 3) for key in ("mean_ms", "p50_ms", "p95_ms")),
            MISSING if row["parameters"] is None else f"{int(row['parameters']):,}",
            *(fixed(row[key], 2) for key in ("parameters_mb", "checkpoint_mb", "speedup")),
            row["meets_constraint"],
            row["status"],
        )
        for row in rows(frame)
    ]
    note = "Speedup is over FP32 eager of the same model and arm, measured in the same run; sizes are MB = 10⁶ bytes."
    whole = table((*header, "Parameters MB", "Checkpoint MB", "Speedup", "Holds constraint", "Status"), lines)
    return f"## Comparison\n\n{whole}\n\n{note} The same table is in `comparison.csv`."


def quality(run: Run, choice: Choice) -> str:
    """What stands beside accuracy: classes of unlike size let accuracy flatter (R21)."""
    grid = [r for r in grid_rows(run.latency) if is_measured(r) and r["balanced_accuracy"] is not None]
    chosen = None if choice.index is None else run.latency.loc[choice.index]
    shown = [
        r
        for r in grid
        if r["variant"] == REFERENCE.name
        or (chosen is not None and (r["trial_id"], r["variant"]) == (chosen["trial_id"], chosen["variant"]))
    ]
    if not run.labelled or not shown:
        return ""
    figures = ("test_accuracy", "balanced_accuracy", "auroc", "precision_score", "recall_score")
    lines = [
        (*(row[key] for key in ("model", "arm", "variant")), *(fixed(_hundredfold(row[key]), 2) for key in figures))
        for row in shown
    ]
    header = ("Model", "Arm", "Variant", "Accuracy %", "Balanced %", "AUROC %", "Precision %", "Recall %")
    data = run.study["data"]
    classes = data["classes"]
    whose = f"of class `{classes[1]}`" if len(classes) == 2 else "means over the classes"
    return (
        f"## Beside accuracy\n\n{table(header, lines)}\n\nOn the test set; precision, recall and area under the ROC "
        f"curve are {whose}. Who always answers `{data['largest_class']}` has an accuracy of "
        f"{percent(data['largest_share'])}."
    )


def _hundredfold(share: float | None) -> float | None:
    return None if share is None else 100 * share


def optimizations(decisions: list[Decision]) -> str:
    """Each optimisation alone: measured beside expected, and the verdict (R10, R11, R13)."""
    lines = [
        (d.model, d.arm, d.optimization, _signed(d.gain), _expected(d.expected), _drop(d), d.verdict, d.reason)
        for d in decisions
    ]
    header = ("Model", "Arm", "Optimization", "Gain", "Expected", "Accuracy drop (points, 95 %)", "Verdict", "Why")
    note = (
        "Gain is the reduction of latency in paired rounds, against FP32 eager, or, under a whole variant's name, "
        "against the same variant without its last part. `refine`: the measurement decides nothing yet."
    )
    return f"## Optimizations, each alone\n\n{table(header, lines)}\n\n{note}" if lines else ""


def goals(judged: list[Judged]) -> str:
    """What was hoped of dynamic INT8 and of ONNX Runtime, row by row (R23, R24)."""
    lines = [
        (
            *(j.row[key] for key in ("model", "arm", "variant")),
            fixed(j.row["artifact_mb"], 2),
            _speedup(j.row),
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
    chosen = [d for d in decisions if d.verdict == verdict]
    return "; ".join(f"{d.optimization} on {d.model} ({d.arm}), {_cause(d)}" for d in chosen)


def _cause(decision: Decision) -> str:
    """What decided: the gain, unless there was one and it was not enough."""
    if decision.gain is None or decision.verdict == "refine":
        return decision.reason
    if decision.verdict == "keep" or (decision.verdict == "drop" and decision.gain <= 0):
        return gain_text(decision.gain)
    return re.split("[:;]", decision.reason)[0]


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
            _speedup(r),
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


def serving(run: Run) -> str:
    """What the shipped candidate does behind HTTP, beside its latency without a server (R25)."""
    if run.card is None:
        return ""
    shipped = (run.card["trial_id"], Variant(**run.card["variant"]).name)
    loads = [r for r in rows(run.serving) if (r["trial_id"], r["variant"]) == shipped]
    if not loads:
        return ""
    first = loads[0]
    lines = [
        (
            row["users"],
            fixed(row["throughput"], 1),
            *(fixed(row[key], 2) for key in ("p50_ms", "p95_ms", "p99_ms")),
            row["failures"],
            row["meets"],
        )
        for row in loads
    ]
    header = ("Users", "Images/s", "p50 ms", "p95 ms", "p99 ms", "Failed", f"p95 within {first['p95_limit_ms']:g} ms")
    return (
        f"## Behind HTTP\n\n{serving_answer(loads)}\n\n{table(header, lines)}\n\nWhat is shipped, "
        f"{first['variant']}, takes {run.card['p50_ms']:.3f} ms without a server. {first['replicas']} process(es) "
        "answered; users sent PNG files from the same machine, each the next as soon as the last was answered, so they "
        f"share its cores ({first['env_device_name']}) with the server."
    )


def serving_answer(loads: Sequence[Row]) -> str:
    """The highest load that keeps the limit of p95, in a sentence."""
    limit = loads[0]["p95_limit_ms"]
    kept = [row for row in loads if row["meets"]]
    if not kept:
        return f"No load that was tried keeps p95 within {limit:g} ms without failures."
    best = max(kept, key=lambda row: row["throughput"])
    return (
        f"The highest load that keeps p95 within {limit:g} ms: {best['throughput']:.0f} images/s from "
        f"{best['users']} users, p50 {best['p50_ms']:.2f} ms, p95 {best['p95_ms']:.2f} ms."
    )


def confirmation(frame: pd.DataFrame) -> str:
    """Candidate and baseline, measured again in fresh processes (R16)."""
    if frame.empty:
        return ""
    lines = [
        (
            f"{row['model']} ({row['arm']})",
            row["variant"],
            fixed(row["grid_p50_ms"], 3),
            ", ".join(fixed(p50, 3) for p50 in row["p50_ms"]) or MISSING,
            fixed(row["spread"], 1, 100),
            row["agrees"],
            row["status"],
        )
        for row in rows(frame)
    ]
    header = ("Model", "Variant", "Grid p50 ms", "Fresh runs p50 ms", "Spread %", "Grid agrees", "Status")
    note = "The grid agrees where its p50 is within 10 % of the median of the fresh runs."
    return f"## Confirmation\n\n{table(header, lines)}\n\n{note}"


def front(frame: pd.DataFrame, volume: Volume | None) -> str:
    """The Pareto front with the probability of each row to be on it, and its hypervolume."""
    likely = [row for row in rows(frame) if row["on_front"] or row["front_probability"] >= 0.05]
    lines = [
        (
            label(row),
            fixed(row["test_accuracy"], 2, 100),
            fixed(row["p50_ms"], 3),
            f"{row['paired_ms']:.3f} ({row['paired_low_ms']:.3f} to {row['paired_high_ms']:.3f})",
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
    note = (
        "Paired ms, of which the front is made: the ratio to FP32 eager in paired rounds, times the median of FP32 "
        "eager of that model over the whole grid, with its 95 % interval. The machine's drift between rows is not in "
        "it. "
        "Probability: share of bootstrap draws (test images, repeats, rounds) with the row on the front."
    )
    if volume is not None:
        note += (
            f" Hypervolume: {100 * volume.share:.1f} % ({100 * volume.low:.1f} to {100 * volume.high:.1f}) of what "
            f"lies below {volume.baseline_ms:.3f} ms ({volume.baseline}) and above the constraint."
        )
    wide = [label(row) for row in rows(frame) if row["on_wide_front"] and not row["on_front"]]
    if wide:
        counted = ", ".join(name for name in OBJECTIVES if known(frame, name))
        note += f" Where {counted} count as well, the front has {len(wide)} more: {'; '.join(wide)}."
    return f"## Pareto front\n\n{table(header, lines)}\n\n{note}" if lines else ""


def grid(latency: pd.DataFrame) -> str:
    """Every row of the variant grid."""
    lines = [
        (
            f"{row['model']} ({row['arm']})",
            row["variant"],
            *(fixed(row[key], 3) for key in ("p50_ms", "p95_ms", "p99_ms", "std_ms")),
            _speedup(row),
            *(fixed(row[key], 2, 100) for key in ("test_accuracy", "agreement")),
            compile_text(row) or MISSING,
            row["status"],
        )
        for row in grid_rows(latency)
    ]
    header = ("Model", "Variant", "p50 ms", "p95 ms", "p99 ms", "Std ms", "Speedup", "Accuracy %", "Agreement %")
    note = (
        "Speedup is the median over paired rounds of FP32 eager of the same weights, taken in the same process, "
        "divided by the variant, with its 95 % interval. A percentile that the samples cannot bound is left out."
    )
    return f"## All variants\n\n{table((*header, 'Build', 'Status'), lines)}\n\n{note}"


def _speedup(row: Row) -> str:
    if row["speedup"] is None:
        return MISSING
    low, high = row["speedup_low"], row["speedup_high"]
    return f"{row['speedup']:.2f}" + ("" if low is None or high is None else f" ({low:.2f} to {high:.2f})")


def trials(frame: pd.DataFrame) -> str:
    """The search in one row a stage and model: how many trials, and the best."""
    if frame.empty:
        return ""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows(frame):
        groups.setdefault((row["stage"], row["arm"], row["model"]), []).append(row)
    lines = [(*key, *_trial_summary(group)) for key, group in groups.items()]
    header = ("Stage", "Arm", "Model", "Trials", "Validation %", "Test %", "Hyperparameters of the best", "Checkpoint")
    return f"## Trials\n\n{table(header, lines)}\n\nOnly finalists read the test set (stage `final`)."


def importance(frame: pd.DataFrame) -> str:
    """What each parameter of each search mattered."""
    if frame.empty:
        return ""
    lines = [(r["model"], r["arm"], r["parameter"], fixed(r["importance"], 0, 100), r["trials"]) for r in rows(frame)]
    header = ("Model", "Arm", "Parameter", "Share of the variance %", "Finished trials")
    text = "Share of the variance of validation accuracy (fANOVA); with few trials, a hint and no more."
    return f"## What the parameters mattered\n\n{table(header, lines)}\n\n{text}"


def _trial_summary(group: list[Row]) -> tuple[Any, ...]:
    counts = ", ".join(f"{n} {status}" for status, n in Counter(row["status"] for row in group).items())
    finished = [row for row in group if row["val_accuracy"] is not None]
    if not finished:
        return (counts, MISSING, MISSING, MISSING, MISSING)
    best = max(finished, key=lambda row: row["val_accuracy"])
    names = ("optimizer", "lr", "schedule", "temperature", "alpha", "weight_decay", "batch_size", "seed")
    settings = [f"{name} {_setting(best[name])}" for name in names if best[name] is not None]
    settings.append(f"epochs {best['epochs_run']} of {best['epochs']}")
    accuracies = (fixed(best["val_accuracy"], 2, 100), fixed(best["test_accuracy"], 2, 100))
    return (counts, *accuracies, ", ".join(settings), best["checkpoint"])


def _setting(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def machine(run: Run) -> str:
    """What the figures were measured with, and how to run it again."""
    study, data = run.study, run.study["data"]
    images = ", ".join(f"{data[f'{split}_images']:,} {split}" for split in ("train", "validation", "test"))
    lines = [
        ("created", study["created_utc"]),
        ("command", f"`{study['command']}`"),
        ("data", f"{data['label']}, {len(data['classes'])} classes: {images} images"),
        ("data fingerprint", data["fingerprint"]),
        *study["environment"].items(),
    ]
    return f"## Machine and versions\n\n{table(('', ''), lines)}\n\nThe whole configuration is in `study.json`."
