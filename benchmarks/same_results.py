"""Whether two versions of the code give the same results: the same weights to the bit, and the same rows.

    python sweeps/distill_search.py --preset chaos --storage DIR --name before     # of one version
    python sweeps/distill_search.py --preset chaos --storage DIR --name after      # of the other
    python benchmarks/same_results.py DIR/before DIR/after

The preset `chaos` is deterministic on a CPU. Times, samples and what the machine did meanwhile differ from run to run,
and so does the candidate that rests on them: only rows of the grid are compared. Exit code 1: something differs.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import pandas as pd

KEYS = {
    "trials.parquet": ["trial_id", "stage"],
    "epochs.parquet": ["trial_id", "epoch"],
    "latency.parquet": ["trial_id", "variant"],
}
"""What names a row of each table."""
MEASURED = re.compile(
    "run|.*seconds|.*_ms|images_per_second|started_at|spread|speedup.*|settled|contended|windows.*|foreign_cpu|steal_cpu"
    "|load_average|gpu_.*|compile_cold|compile_beside|round_calls|env_git_commit"
)
"""Columns that hold times, samples or evidence, or name the run."""


def table(run: Path, name: str) -> pd.DataFrame:
    """The rows of a table that must be the same, in the order of their keys."""
    frame = pd.read_parquet(run / name)
    if name == "latency.parquet":
        frame = frame[frame["stage"] == "grid"]
    kept = [column for column in frame if not MEASURED.fullmatch(column)]
    return frame[kept].sort_values(KEYS[name]).reset_index(drop=True)


def differences(before: Path, after: Path) -> list[str]:
    """What differs between two runs, a line each."""
    found: list[str] = []
    for name, keys in KEYS.items():
        first, second = table(before, name), table(after, name)
        if only := sorted(set(first) ^ set(second)):
            found.append(f"{name}: columns that only one has: {', '.join(only)}")
        if not first[keys].equals(second[keys]):
            found.append(f"{name}: rows differ: {len(first)} before, {len(second)} after")
            continue
        for column in [c for c in first if c in second]:
            same = (first[column] == second[column]) | (first[column].isna() & second[column].isna())
            found += [f"{name}: {column} of {dict(first.loc[i, keys])}" for i in first.index[~same]]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    given = parser.parse_args()
    found = differences(given.before, given.after)
    print("\n".join(found) or "the same weights, to the bit, and the same rows")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
