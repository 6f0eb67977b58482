"""What cutting whole channels costs and gains (R33)."""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.frames import Row, label, rows
from analysis.markdown import fixed, table


def pruned_rows(trials: pd.DataFrame, front: pd.DataFrame) -> list[tuple[Row, Row]]:
    """The fastest competing row of each model that was narrowed, with the same variant of the whole one (R33).

    Args:
        front: see `front.front_table`.
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


def text(found: Sequence[tuple[Row, Row]], trials: pd.DataFrame) -> str:
    """What cutting whole channels costs and gains: each narrowed model beside the one it was cut from."""
    ids = {row["trial_id"] for row, _ in found}
    taught = [trial["alpha"] > 0 for trial in rows(trials) if trial["trial_id"] in ids]
    trained = "with the teacher's answers" if all(taught) else "on labels only"
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
        f"Whole channels are cut off, then the model is trained further, {trained}. The number behind @ is about the "
        "share of the multiplications that is left. Each narrowed model stands in its fastest variant, beside the same "
        "variant of the model that it was cut from. Parameters and Latency are shares of that model's figures. The "
        "milliseconds are free of the drift between rows."
    )
    return f"## Structured pruning\n\n{table(header, lines)}\n\n{note}" if lines else ""
