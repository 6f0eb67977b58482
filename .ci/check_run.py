"""Check that a finished run left what it must: python .ci/check_run.py RUN [VARIANTS]."""

import sys
from pathlib import Path

import pandas as pd

FILES = (
    "study.json", "trials.parquet", "epochs.parquet", "latency.parquet", "front.parquet", "comparison.csv", "report.md",
    "front.png",
)  # fmt: skip
CANDIDATE = ("model.safetensors", "candidate.json", "example.py")


def main(run: Path, variants: int) -> None:
    for name in FILES:
        assert (run / name).stat().st_size > 0, f"{name} is missing or empty"
    latency = pd.read_parquet(run / "latency.parquet")
    grid = latency[latency.stage == "grid"]
    per_subject = grid.groupby(["model", "arm"]).variant.nunique()
    assert (per_subject == variants).all(), f"not {variants} variants for each model and arm: {per_subject.to_dict()}"
    assert set(grid.arm) == {"teacher", "plain", "distill"}, f"arms are {set(grid.arm)}"
    wrong = grid[~grid.status.isin(["ok", "unsupported"])]
    assert wrong.empty, wrong[["model", "arm", "variant", "status", "error"]].to_string()
    samples = grid.samples_ms.dropna().map(lambda repeats: sum(len(r) for r in repeats))
    assert (samples >= 700).all(), "fewer than 700 samples"
    trials = pd.read_parquet(run / "trials.parquet")
    assert {"teacher", "plain", "distill", "final"} <= set(trials.stage)
    if pd.read_parquet(run / "front.parquet").candidate.any():
        for name in CANDIDATE:
            assert (run / "candidate" / name).stat().st_size > 0, f"candidate/{name} is missing"
    print(f"{run.name}: {len(trials)} trials, {len(grid)} grid rows, all files there")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 8)
