"""`analysis` as a library: what an import costs, and the DataFrames of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import analysis_data as data
import pandas as pd
import pytest

from analysis import load_run
from analysis.__main__ import main
from analysis.compare import LATENCY_THRESHOLD
from analysis.report import analyse
from analysis.sections.front import OBJECTIVES
from cifar_tune.config import Variant

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("plotly", "statsmodels", "matplotlib", "scipy.stats", "pandas", "torch", "ray", "optuna")


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("analysis", HEAVY),
        ("analysis.__main__", HEAVY),  # so that --help answers at once
        ("cifar_tune.measuring.latency", ("scipy.stats",)),  # every process that measures imports it
    ],
)
def test_import_does_not_load_what_it_does_not_use(module: str, heavy: tuple[str, ...]) -> None:
    asked = f"import sys, {module}; sys.exit(' '.join(set({heavy!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.stderr.strip() == ""


def test_help_of_front_names_all_objectives(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["front", "--help"])
    assert ", ".join(OBJECTIVES) in " ".join(capsys.readouterr().out.split())


def test_help_of_compare_says_the_threshold(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["compare", "--help"])
    assert f"(default: {LATENCY_THRESHOLD:g})" in " ".join(capsys.readouterr().out.split())


def test_a_run_is_four_frames(tmp_path: Path) -> None:
    rows = [data.latency(), data.latency(Variant(precision="fp16"), p50=1.0)]
    run = load_run(data.write_run(tmp_path / "run", rows))
    assert run.trials["trial_id"].tolist() == ["t1"]
    assert run.epochs.empty
    assert run.latency["p50_ms"].tolist() == [2.0, 1.0]
    assert run.front[["p50_ms", "on_front", "feasible", "candidate"]].to_numpy().tolist() == [
        [1.0, True, True, True],
        [2.0, False, True, False],
    ]


def test_a_run_is_found_by_its_name(tmp_path: Path) -> None:
    data.write_run(tmp_path / "run", [data.latency()])
    assert load_run("run", storage=tmp_path).path == tmp_path / "run"


def test_the_front_of_a_run_is_that_of_its_report(tmp_path: Path) -> None:
    run = load_run(data.write_run(tmp_path / "run", data.full_latency()))
    pd.testing.assert_frame_equal(run.front, analyse(run).front)
