"""From the Parquet files of a finished run to its answer; needs neither torch nor Ray nor Optuna.

    from analysis import load_run

    run = load_run("docs/results/quick")
    run.front[["model", "arm", "variant", "test_accuracy", "p50_ms", "candidate"]]

`load_run` gives the run's tables as DataFrames: `trials`, `epochs`, `latency`, and the competing rows as `front`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.finished import FinishedRun

__all__ = ["load_run"]


def load_run(run: str | Path, storage: str | Path = "ray_results") -> FinishedRun:
    """Read the run at a path or `s3://` URI, or of that name under `storage`.

    Raises:
        ValueError: there is no such run (its message lists those there are), or a file of it is missing or empty.
    """
    from analysis import finished  # pandas takes half a second to import, and `--help` does without

    return finished.load_run(run, storage)
