"""The rows that compete for the front and the candidate: collected, paired and drawn once a report."""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.decide import grid_rows
from analysis.frames import Row, rows, select
from analysis.paired import unpack_correct
from analysis.uncertain import Draws, draw, paired_correct, paired_ms, reference_levels


@dataclass(frozen=True, kw_only=True, slots=True)
class Rivals:
    """What competes, and what it is compared by."""

    frame: pd.DataFrame
    """See `competing`."""
    rows: list[Row]
    """The rows of `frame`, in their order."""
    grid: list[Row]
    """All rows of the grid, measured or not."""
    draws: Draws | None
    """Bootstrap draws of `rows`, in their order; None where the table lacks the raw samples of one of them."""
    images: int
    """Test images behind `correct`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """Why a row that competes cannot be the candidate."""

    reason: str
    """A clause with figures, for a sentence."""
    certain: bool
    """Whether a rule is broken; False: only the lower bound of the accuracy is below the constraint."""


def rivals_of(latency: pd.DataFrame, images: int) -> Rivals:
    """Collect what competes. Deterministic: the bootstrap has a fixed seed.

    Args:
        latency: the rows of `latency.parquet`.
        images: test images behind `correct`.

    Raises:
        ValueError: the rows come from unlike devices.
    """
    frame, grid = competing(latency, images), grid_rows(latency)
    found = rows(frame)
    sampled = all(row["samples_ms"] is not None for row in found)
    return Rivals(
        frame=frame, rows=found, grid=grid, draws=draw(found, grid, images) if sampled else None, images=images
    )


def competing(latency: pd.DataFrame, images: int) -> pd.DataFrame:
    """The grid rows that have both an accuracy and a latency, with the index they had.

    With what they are compared by: `paired_ms` and `paired_accuracy`, see `analysis.uncertain`. A fallback does not
    compete under the name of the variant that failed.
    """
    check_one_device(latency)
    measured = (latency["status"] == "ok") & latency["p50_ms"].notna() & latency["test_accuracy"].notna()
    rivals = select(latency, measured & (latency["stage"] == "grid"))
    grid = grid_rows(latency)
    levels = reference_levels(grid)
    return rivals.assign(
        paired_ms=[paired_ms(row, levels) for row in rows(rivals)],
        paired_accuracy=[
            float(unpack_correct(paired_correct(row, grid, images), images).mean()) for row in rows(rivals)
        ],
    )


def check_one_device(latency: pd.DataFrame) -> None:
    """ValueError where rows come from unlike devices: their latencies do not compare."""
    devices = sorted({str(row["env_device_name"]) for row in rows(select(latency, latency["p50_ms"].notna()))})
    if len(devices) > 1:
        raise ValueError(f"rows of unlike devices share no front: {', '.join(devices)}")
