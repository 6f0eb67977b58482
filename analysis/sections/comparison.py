"""The comparison of models and variants that R14 asks for: `comparison.csv` and its table."""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import pandas as pd

from analysis.choose import Choice
from analysis.decide import is_measured
from analysis.frames import Row, rows, variant_of
from analysis.markdown import MISSING, fixed, table
from analysis.rivals import Rivals
from cifar_tune.config import DISTILL_ARM, PLAIN_ARM, REFERENCE, TEACHER_ARM, Variant

COMPARISON_COLUMNS = (
    *("id", "variant", "model", "arm", "accuracy_percent", "mean_ms", "p50_ms", "p95_ms", "parameters"),
    *("parameters_mb", "checkpoint_mb", "artifact_mb", "speedup", "meets_constraint", "status"),
    *("figure", "latency_ms", "ratio"),
)
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


def comparison_table(
    rivals: Rivals, teacher: str, students: tuple[str, ...], min_accuracy: float, choice: Choice
) -> pd.DataFrame:
    """The rows that R14 asks for, measured or not, the candidate `C`, then the other rows that failed: `F1`, `F2`, …

    The rows of the first student have the plain IDs, those of the second end in `.2`, and so on. `figure` is the kind
    of the best figure that there is (screen, race, confirm), `latency_ms` its milliseconds, `ratio` how many times the
    baseline's they are. `mean_ms`, `p50_ms`, `p95_ms` and `speedup`, which is over FP32 eager of the same model and
    arm, are of the screen in every row. Sizes are MB = 10**6 bytes, `parameters_mb` at four bytes each.
    """
    lines = _compared(rivals.grid, teacher, students, min_accuracy, choice)
    by_index = {row["index"]: row for row in rivals.grid}
    for line in lines:
        row = by_index.get(line.get("index", -1))
        if row is not None and is_measured(row):
            figure = rivals.figure(row)
            line.update(figure=figure.kind, latency_ms=figure.ms, ratio=figure.ratio)
    return pd.DataFrame(lines, columns=list(COMPARISON_COLUMNS))


def _compared(
    grid: list[Row], teacher: str, students: tuple[str, ...], min_accuracy: float, choice: Choice
) -> list[Row]:
    if not any(row["arm"] in (TEACHER_ARM, PLAIN_ARM, DISTILL_ARM) for row in grid):  # a model that a user brought
        lines = [_line(f"V{n}", row["variant"], row, min_accuracy) for n, row in enumerate(grid, start=1)]
        chosen = [row for row in grid if row["index"] == choice.index]
        return lines + [_line("C", f"candidate: {row['variant']}", row, min_accuracy) for row in chosen]
    lines = [_wanted(grid, teacher, _TEACHER_ROW, min_accuracy)]
    for number, student in enumerate(students, start=1):
        suffix = f".{number}" if number > 1 else ""
        lines += [_wanted(grid, student, wanted, min_accuracy, suffix) for wanted in _STUDENT_ROWS]
    lines.sort(key=lambda line: ("BOD".index(line["id"][0]), line["id"]))
    chosen = [row for row in grid if row["index"] == choice.index]
    lines += [_line("C", f"candidate: {row['variant']}", row, min_accuracy) for row in chosen]
    shown = {line.get("index") for line in lines}
    failed = [row for row in grid if row["status"] != "ok" and row["index"] not in shown]
    return lines + [_line(f"F{n}", row["variant"], row, min_accuracy) for n, row in enumerate(failed, start=1)]


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


def text(frame: pd.DataFrame) -> str:
    """The table in Markdown.

    Args:
        frame: see `comparison_table`.
    """
    header = ("ID", "Variant", "Model", "Arm", "Accuracy %", "Latency ms", "Figure", "Mean ms", "p50 ms", "p95 ms")
    lines = [
        (
            *(row[key] for key in ("id", "variant", "model", "arm")),
            fixed(row["accuracy_percent"], 2),
            fixed(row["latency_ms"], 3),
            row["figure"],
            *(fixed(row[key], 3) for key in ("mean_ms", "p50_ms", "p95_ms")),
            MISSING if row["parameters"] is None else f"{int(row['parameters']):,}",
            *(fixed(row[key], 2) for key in ("parameters_mb", "checkpoint_mb", "artifact_mb", "speedup")),
            row["meets_constraint"],
            row["status"],
        )
        for row in rows(frame)
    ]
    note = (
        "Figure says where the latency comes from. `screen` is the grid, with the machine's drift removed; `race` and "
        "`confirm` are blocks of fresh processes. Figures of unlike kinds do not compare.\n\n"
        "Mean, p50, p95 and speedup are of the screen. Speedup is over FP32 eager of the same model and arm. One MB is "
        "10⁶ bytes. The sizes are those of the FP32 parameters, of their checkpoint and of what is deployed."
    )
    sizes = ("Parameters", "Parameters MB", "Checkpoint MB", "Deployed MB")
    whole = table((*header, *sizes, "Speedup", "Holds constraint", "Status"), lines)
    return f"## Comparison\n\n{whole}\n\n{note} The same table is in `comparison.csv`."
