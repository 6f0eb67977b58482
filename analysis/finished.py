"""A finished run for who analyses it from Python: its tables, and the front that follows from them."""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pandas as pd

from analysis import frames
from analysis.choose import choose
from analysis.rivals import rivals_of
from analysis.sections.front import front_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinishedRun(frames.Run):
    """What a run left behind, as DataFrames: `trials`, `epochs`, `latency` and `front`."""

    @functools.cached_property
    def front(self) -> pd.DataFrame:
        """The latency rows that compete, fastest first, as the report's `front.parquet` holds them.

        Computed where it is asked for: its columns `on_front`, `front_probability`, `feasible` and `candidate` follow
        from the rows and the question of the study. Raises ValueError where rows come from unlike devices.
        """
        rivals = rivals_of(self.latency, self.test_images)
        return front_table(rivals, self.min_accuracy, choose(rivals, self.min_accuracy, self.latency_budget_ms))


def load_run(run: str | Path, storage: str | Path) -> FinishedRun:
    """See `analysis.load_run`."""
    read = frames.load_run(run, storage)
    return FinishedRun(**{f.name: getattr(read, f.name) for f in dataclasses.fields(read)})
