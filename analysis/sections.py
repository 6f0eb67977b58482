"""The sections of the report: tables and decisions -> Markdown. No rule is applied here."""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.choose import Choice
from analysis.decide import compile_text, grid_rows, is_measured
from analysis.frames import Row, Run, label, rows, select
from analysis.justify import NO_SAMPLES, between, percent, speedup_cell
from analysis.markdown import MISSING, bullets, fixed, table
from analysis.paired import standard_error
from analysis.tables import OBJECTIVES, Volume, known
from cifar_tune.config import MIN_SAMPLES, PATIENCE, REFERENCE, Variant

_UNSTABLE_SPREAD = 0.10
_COARSE_POINTS = 0.5
_BATCH1_AGREEMENT = 0.98
_NAMED_ROWS = 4

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
            *(fixed(row[key], 2) for key in ("parameters_mb", "checkpoint_mb", "artifact_mb", "speedup")),
            row["meets_constraint"],
            row["status"],
        )
        for row in rows(frame)
    ]
    note = (
        "Speedup is over FP32 eager of the same model and arm, measured in the same run; sizes are MB = 10⁶ bytes, of "
        "FP32 parameters, of their checkpoint, and of what is deployed."
    )
    sizes = ("Parameters MB", "Checkpoint MB", "Deployed MB")
    whole = table((*header, *sizes, "Speedup", "Holds constraint", "Status"), lines)
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
            fixed(row["together"], 1),
        )
        for row in loads
    ]
    kept = f"p95 within {first['p95_limit_ms']:g} ms"
    header = ("Users", "Images/s", "p50 ms", "p95 ms", "p99 ms", "Failed", kept, "Taken together")
    return (
        f"## Behind HTTP\n\n{serving_answer(loads)}\n\n{table(header, lines)}\n\nWhat is shipped, "
        f"{first['variant']}, takes {run.card['p50_ms']:.3f} ms without a server. {first['replicas']} process(es) "
        "answered; users sent PNG files from the same machine, each the next as soon as the last was answered, so they "
        f"share its cores ({first['env_device_name']}) with the server. Images that wait are taken up to "
        f'{first["batch"]} at a time, on average as many as stand under "taken together"; the program answers them one '
        "by one."
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
    likely = [row for row in rows(frame) if row["on_front"] or (row["front_probability"] or 0) >= 0.05]
    lines = [
        (
            label(row),
            fixed(row["test_accuracy"], 2, 100),
            fixed(row["p50_ms"], 3),
            f"{row['paired_ms']:.3f}{between(row['paired_low_ms'], row['paired_high_ms'])}",
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
        "it. An accuracy that nothing tells from that of FP32 eager of the same weights counts as the latter's, so "
        "that a point above the line need not be on it. "
        "Probability: share of bootstrap draws (test images, repeats, rounds) with the row on the front."
    )
    if any(row["front_probability"] is None for row in likely):
        note += f" {NO_SAMPLES}"
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
            speedup_cell(row),
            *(fixed(row[key], 2, 100) for key in ("test_accuracy", "agreement")),
            fixed(row["artifact_mb"], 2),
            compile_text(row) or MISSING,
            row["status"],
        )
        for row in grid_rows(latency)
    ]
    header = ("Model", "Variant", "p50 ms", "p95 ms", "p99 ms", "Std ms", "Speedup", "Accuracy %", "Agreement %", "MB")
    note = (
        "Speedup is the median over paired rounds of FP32 eager of the same weights, taken in the same process, "
        "divided by the variant, with its 95 % interval. A percentile that the samples cannot bound is left out. MB is "
        "the size of what is deployed: a file, or the weights as held in memory."
    )
    return f"## All variants\n\n{table((*header, 'Build', 'Status'), lines)}\n\n{note}"


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
