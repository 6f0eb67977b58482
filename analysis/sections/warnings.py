"""What a reader must know before trusting the figures."""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd

from analysis.choose import Choice
from analysis.decide import grid_rows
from analysis.frames import Row, Run, label, rows
from analysis.justify import unconfirmed
from analysis.markdown import bullets
from analysis.paired import standard_error
from analysis.race import key_of
from analysis.rivals import Rivals
from analysis.sections.take import verification
from cifar_tune.config import MIN_SAMPLES, PATIENCE

_UNSTABLE_SPREAD = 0.10
"""R9: medians of the repeats that differ by more than this share are unstable."""
_COARSE_POINTS = 0.5
_BATCH1_AGREEMENT = 0.98
_NAMED_ROWS = 4


def text(run: Run, rivals: Rivals, choice: Choice, confirmed: pd.DataFrame, card: dict[str, Any] | None) -> str:
    """The warnings, one a line; empty where there is nothing to warn of.

    Args:
        run: the run.
        rivals: what competes in it.
        choice: its candidate.
        confirmed: see `confirmation.confirm_table`; empty for a run of today's protocol.
        card: the candidate's own card, None without one.
    """
    lines = [
        *_race_warnings(rivals, choice),
        *_row_warnings(grid_rows(run.latency)),
        *_data_warnings(run),
        *_confirm_warnings(confirmed),
    ]
    if card is not None and not card["verification"]["ok"]:
        lines.insert(0, f"The folder `candidate/` does not do what its row promises. {verification(card)}")
    return f"## Warnings\n\n{bullets(lines)}" if lines else ""


def _race_warnings(rivals: Rivals, choice: Choice) -> list[str]:
    """What race and confirmation say against the candidate, and which contenders lost blocks or were disturbed."""
    lines: list[str] = []
    for row in rivals.rows:
        found = rivals.race.confirmation(key_of(row)) if row["index"] == choice.index else None
        if found is not None and not found.agrees:
            lines.append(f"The candidate {label(row)} is not confirmed: {unconfirmed(found)}.")
    raced = [(row, rivals.race.raced[key_of(row)]) for row in rivals.grid if key_of(row) in rivals.race.raced]
    lines += [f"{label(row)} did not finish the race: {found.lost}." for row, found in raced if found.lost is not None]
    disturbed = [row for row, found in raced if found.disturbed]
    if disturbed:
        lines.append(f"Other processes used the machine in most blocks of these in the race: {_some(disturbed)}.")
    return lines


def _row_warnings(grid: list[Row]) -> list[str]:
    lines = [f"{_unmeasured(r)}: {r['error'] or 'no reason recorded'}" for r in grid if r["status"] != "ok"]
    for says, troubled in (
        ("Other processes used the machine while these were measured", [r for r in grid if r["contended"]]),
        (
            f"Unstable, with medians of the repeats that differ by more than {100 * _UNSTABLE_SPREAD:.0f} %",
            [r for r in grid if (r["spread"] or 0) > _UNSTABLE_SPREAD],
        ),
        ("The warm-up did not become stable", [r for r in grid if r["settled"] is False]),
        (
            f"Slow, so sampling ended at {PATIENCE} times the time limit with fewer than {MIN_SAMPLES} samples",
            [r for r in grid if r["samples_ms"] is not None and sum(map(len, r["samples_ms"])) < MIN_SAMPLES],
        ),
        (
            f"At batch 1 fewer than {100 * _BATCH1_AGREEMENT:.0f} % of the predictions equal those behind the accuracy",
            [r for r in grid if (1 if r["batch1_agreement"] is None else r["batch1_agreement"]) < _BATCH1_AGREEMENT],
        ),
    ):
        if troubled:
            lines.append(f"{says}: {_some(troubled)}.")
    return lines


def _unmeasured(row: Row) -> str:
    """What became of a row that has no measurement of its own."""
    fates = {"fallback": "fell back to another variant", "unsupported": "is unsupported", "skipped": "was skipped"}
    return f"{label(row)} {fates.get(row['status'], row['status'])}"


def _some(troubled: list[Row]) -> str:
    """Names of rows: all of a few, else how many and the first ones."""
    names = [label(row) for row in troubled]
    more = len(names) - _NAMED_ROWS
    if more <= 0:
        return "; ".join(names)
    return f"{len(names)} rows; {'; '.join(names[:_NAMED_ROWS])}; and {more} more"


def _data_warnings(run: Run) -> list[str]:
    lines: list[str] = []
    error = 100 * standard_error(run.min_accuracy, run.test_images)
    if run.labelled and error > _COARSE_POINTS:
        lines.append(
            f"The test set has {run.test_images:,} images, so an accuracy near the constraint has a standard error of "
            f"{error:.2f} points. Smaller differences say little."
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
            lines.append(f"The fresh runs of {label(row)} did not confirm its latency: see Confirmation.")
        elif row["spread"] > _UNSTABLE_SPREAD:
            lines.append(f"The fresh runs of {label(row)} differ by {100 * row['spread']:.0f} %.")
    return lines
