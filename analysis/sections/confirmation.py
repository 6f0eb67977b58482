"""Candidate and baseline, measured again in fresh processes (R16)."""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.decide import grid_rows
from analysis.frames import Row, rows, select
from analysis.markdown import MISSING, fixed, table

CONFIRM_TOLERANCE = 0.10
"""The grid's p50 agrees with the fresh runs when it is within this share of their median."""


def confirm_table(latency: pd.DataFrame) -> pd.DataFrame:
    """A row for each variant that fresh processes measured again (R16); no rows where none was.

    Columns: model, arm, variant, status (of the runs), p50_ms (of each run, in order), spread ((largest - smallest)
    / smallest), grid_p50_ms, agrees (whether the grid's p50 is within 10 % of the median of the runs).
    """
    grid = grid_rows(latency)
    confirm = select(latency, latency["stage"] == "confirm").sort_values("block")
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


def text(frame: pd.DataFrame) -> str:
    """The runs side by side; empty where there was none.

    Args:
        frame: see `confirm_table`.
    """
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
    note = (
        "Candidate and baseline are measured again in fresh processes. The grid agrees where its p50 is within 10 % of "
        "the median of these runs."
    )
    return f"## Confirmation\n\n{table(header, lines)}\n\n{note}"
