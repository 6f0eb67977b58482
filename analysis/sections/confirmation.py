"""Candidate and baseline, measured again in new processes after the choice (R16)."""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.choose import Choice
from analysis.decide import grid_rows
from analysis.frames import Row, label, rows, select
from analysis.justify import between
from analysis.markdown import MISSING, fixed, table
from analysis.plots import Picture, chart
from analysis.race import CONFIRM_TOLERANCE, key_of
from analysis.rivals import Rivals
from cifar_tune.blocks import Blocks

_OLDER = (
    "This run is of the older protocol: it had no race, and its confirmation is three fresh runs of candidate and "
    "baseline, compared by milliseconds. The grid agrees where its p50 is within 10 % of the median of these runs."
)
_NOTE = """New processes of candidate and baseline took turns after the choice. What counts is the ratio to the baseline
of the same block, so the machine's drift cancels. A candidate is confirmed where the new ratio lies within what the
race foretold at 95 %, and within 10 % of the race's. A block in which others used the machine was taken again once;
where five undisturbed ones were measured, only those count.

Typical is the median of the blocks with its 95 % interval. The floor is the best block."""
_STAGES = (("race", "race"), ("confirm", "confirmation"))


def confirm_table(latency: pd.DataFrame) -> pd.DataFrame:
    """A row for each variant that fresh processes measured again by the older protocol; no rows where none was.

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


def text(rivals: Rivals, choice: Choice, older: pd.DataFrame) -> str:
    """The confirmation of the candidate, and how steady the machine was; empty where there was none.

    Args:
        older: see `confirm_table`; empty for a run of today's protocol.
    """
    if rivals.race.is_older:
        return _older_text(older)
    found = [_line(row, rivals, choice) for row in rivals.grid if key_of(row) in rivals.race.confirmed]
    if not found:
        return ""
    header = (
        "Row", "What", "Ratio in the race", "Foretold", "Ratio in new processes", "Typical ms", "Floor ms", "Blocks",
        "Verdict",
    )  # fmt: skip
    parts = [f"## Confirmation\n\n{table(header, found)}", _NOTE, _range_text(rivals)]
    return "\n\n".join(part for part in parts if part)


def _line(row: Row, rivals: Rivals, choice: Choice) -> Sequence[Any]:
    key, baseline = key_of(row), rivals.race.baseline
    confirmation, figure = rivals.race.confirmation(key), rivals.figure(row)
    what = {choice.index: "candidate", choice.refuted: "chosen first"}.get(row["index"], "")
    names = [name for name in (what, "baseline" if key == baseline else "") if name]
    ratios = [MISSING] * 3
    verdict = MISSING
    if key != baseline and confirmation is not None:
        foretold = f"{confirmation.low:.3f} to {confirmation.high:.3f}"
        now = f"{fixed(figure.ratio, 3)}{between(figure.ratio_low, figure.ratio_high)}"
        ratios = [f"{confirmation.before:.3f}", foretold, now]
        verdict = "confirmed" if confirmation.agrees else "not confirmed"
    return (
        label(row),
        " and ".join(names),
        *ratios,
        f"{figure.ms:.3f}{between(figure.low_ms, figure.high_ms)}",
        fixed(figure.floor_ms, 3),
        _blocks_text(rivals.race.confirmed[key]),
        verdict,
    )


def _blocks_text(blocks: Blocks) -> str:
    disturbed = f", {blocks.disturbed_blocks} disturbed" if blocks.disturbed_blocks else ""
    return f"{len(blocks.numbers)}{disturbed}"


def _baseline_blocks(rivals: Rivals) -> list[tuple[str, int, float]]:
    """Name of the stage, block and milliseconds of the baseline, in the order of time."""
    stages = {"race": rivals.race.raced, "confirm": rivals.race.confirmed}
    found = [(name, stages[stage].get(rivals.race.baseline or ("", ""))) for stage, name in _STAGES]
    return [
        (name, number, float(ms))
        for name, blocks in found
        if blocks is not None
        for number, ms in zip(blocks.numbers, blocks.ms, strict=True)
    ]


def _range_text(rivals: Rivals) -> str:
    found = [ms for _, _, ms in _baseline_blocks(rivals)]
    if len(found) < 2:
        return ""
    return (
        f"The baseline took {min(found):.3f} to {max(found):.3f} ms over {len(found)} blocks of race and confirmation. "
        "That is the machine's own range during the run."
    )


def figures(rivals: Rivals) -> Iterator[Picture]:
    """The baseline's milliseconds over time: what the machine itself did during the run."""
    found = _baseline_blocks(rivals)
    if len(found) < 2:
        return
    figure = chart(260, xaxis={"title": "block, in the order of time", "showticklabels": False})
    figure.update_yaxes(title="baseline (ms)", rangemode="tozero")
    for _, name in _STAGES:
        mine = [(place, number, ms) for place, (stage, number, ms) in enumerate(found) if stage == name]
        figure.add_scatter(
            x=[place for place, _, _ in mine], y=[ms for _, _, ms in mine], mode="lines+markers", name=name,
            text=[f"{name}, block {number}: {ms:.3f} ms" for _, number, ms in mine], hoverinfo="text",
        )  # fmt: skip
    took = [ms for _, _, ms in found]
    words = f"The baseline over time: {min(took):.3f} to {max(took):.3f} ms in {len(took)} blocks"
    yield Picture(name="baseline", alternative=words, figure=figure)


def _older_text(frame: pd.DataFrame) -> str:
    """The runs of the older protocol side by side."""
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
    return f"## Confirmation\n\n{table(header, lines)}\n\n{_OLDER}"
