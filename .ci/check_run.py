"""Check that a finished run with ONNX Runtime left what it must: python .ci/check_run.py RUN."""

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from cifar_tune.config import MIN_SAMPLES, PATIENCE

FILES = (
    "study.json", "trials.parquet", "epochs.parquet", "latency.parquet", "front.parquet", "comparison.csv", "report.md",
    "report.html", "front.png", "front.svg", "importance.parquet", "optuna.journal",
)  # fmt: skip
CANDIDATE = ("model.safetensors", "candidate.json", "example.py", "model.py", "MODEL_CARD.md", "requirements.txt")
VARIANTS = 13
"""Of each model and arm: eight of the grid, five of ONNX Runtime."""


def main(run: Path) -> None:
    for name in FILES:
        assert (run / name).stat().st_size > 0, f"{name} is missing or empty"
    latency = pd.read_parquet(run / "latency.parquet")
    grid = latency[latency.stage == "grid"]
    per_subject = grid.groupby(["model", "arm"]).variant.nunique()
    assert (per_subject == VARIANTS).all(), f"not {VARIANTS} variants for each model and arm: {per_subject.to_dict()}"
    assert (grid[grid.runtime == "torch"].groupby(["model", "arm"]).variant.nunique() >= 8).all(), (
        "the grid is not whole"
    )
    assert set(grid.arm) == {"teacher", "plain", "distill"}, f"arms are {set(grid.arm)}"
    wrong = grid[~grid.status.isin(["ok", "unsupported", "fallback"])]
    assert wrong.empty, wrong[["model", "arm", "variant", "status", "error"]].to_string()
    check_samples(grid[grid.status == "ok"], json.loads((run / "study.json").read_text())["config"]["latency"])
    trials = pd.read_parquet(run / "trials.parquet")
    assert {"teacher", "plain", "distill", "final"} <= set(trials.stage)
    if pd.read_parquet(run / "front.parquet").candidate.any():
        assert {"race", "confirm"} <= set(latency.stage), f"stages are {set(latency.stage)}"
        for name in CANDIDATE:
            assert (run / "candidate" / name).stat().st_size > 0, f"candidate/{name} is missing"
        verification = json.loads((run / "candidate" / "candidate.json").read_text())["verification"]
        assert verification["ok"], verification
    print(f"{run.name}: {len(trials)} trials, {len(grid)} grid rows, all files there")


def check_samples(measured: pd.DataFrame, protocol: dict[str, Any]) -> None:
    """Each repeat has its samples, or its share of 700 when its time was up, or all patience with it was used up.

    What the repeats that ended early must have taken together, the row has taken.
    """
    repeats = protocol["repeats"]
    share_ms = 1e3 * protocol["time_limit"] / repeats
    for row in measured.itertuples():
        name = f"{row.trial_id} {row.variant}"
        assert len(row.samples_ms) == repeats, f"{name}: {len(row.samples_ms)} repeats"
        least_ms = 0.0
        for samples, reference in zip(row.samples_ms, row.reference_ms, strict=True):
            assert len(samples) * 3 == len(reference) * row.round_calls, f"{name}: rounds are not paired"
            if len(samples) < protocol["iterations"]:
                least_ms += share_ms if len(samples) * repeats >= MIN_SAMPLES else PATIENCE * share_ms
        taken_ms = 1e3 * row.measure_seconds
        assert taken_ms >= least_ms, f"{name}: ended after {taken_ms:.0f} ms, may do so after {least_ms:.0f}"
        count = sum(len(repeat) for repeat in row.samples_ms)
        assert pd.notna(row.p99_ms) == (count >= 662), f"{name}: p99 with {count} samples"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
