"""The main job from data to answer, run as a user runs it, on a machine without a C++ compiler.

Without one the compile variants must become rows and the run must go on, and the test is short. The builds
themselves are shown by `.ci/run`, which checks the same files.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sweeps import distill_search, variant_grid

pytestmark = pytest.mark.timeout(1200)  # three minutes where nothing else runs
SMALL = (
    "--preset", "quick", "--epochs", "2", "--batch-size", "2",  # small steps, so that trials last
    "--search-images", "60", "--teacher-epochs", "1", "--num-samples", "2", "--teacher-samples", "1",
    "--min-accuracy", "0.01", "--name", "run", "--no-dashboard", "--grace-epochs", "1",
    "--latency-time-limit", "60",  # a machine busy with other work has the time to take all samples
)  # fmt: skip


def start(cwd: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CXX": "no-such-compiler"}
    command = [sys.executable, distill_search.__file__, *argv]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=1100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own image folder: three classes, grey PNGs of several sizes."""
    root = tmp_path_factory.mktemp("own") / "shapes"
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("test", 10)):
        for brightness, name in enumerate(("dark", "grey", "light")):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (12 + i % 5, 14), dtype=np.uint8) + np.uint8(80 * brightness)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    cwd = tmp_path_factory.mktemp("job")
    ended = start(cwd, *SMALL, "--data", str(folder), "--image-size", "8")
    assert ended.returncode == 0, ended.stderr[-3000:]
    return cwd / "ray_results" / "run", ended


def table(finished: tuple[Path, object], name: str) -> pd.DataFrame:
    return pd.read_parquet(finished[0] / f"{name}.parquet")


def test_last_line_of_stdout_is_a_report_that_exists(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    run, ended = finished
    assert Path(ended.stdout.strip().splitlines()[-1]) == run / "report.html"
    assert "## " in (run / "report.md").read_text()


def test_a_plan_is_printed_before_the_start(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    said = finished[1].stderr
    assert said.index("2 trials of 2 epochs on 60 images") < said.index("teacher resnet_narrow: done")


def test_every_file_of_the_contract_is_there(finished: tuple[Path, object]) -> None:
    names = {p.name for p in finished[0].iterdir()}
    expected = {
        "study.json", "optuna.journal", "importance.parquet",
        "trials.parquet", "epochs.parquet", "latency.parquet", "front.parquet", "comparison.csv",
        "report.md", "report.html", "front.png", "checkpoints", "candidate", "ray",
    }  # fmt: skip
    assert expected <= names


def test_every_trial_is_a_row(finished: tuple[Path, object]) -> None:
    counts = table(finished, "trials").groupby("stage").size().to_dict()
    assert counts == {"teacher": 1, "plain": 2, "distill": 2, "final": 5}  # the teacher, and two seeds of each arm


def test_every_trial_says_in_which_arithmetic_it_was_trained(finished: tuple[Path, object]) -> None:
    assert (table(finished, "trials").precision == "fp32").all()  # of 8x8 images, whatever the processor


def test_first_distillation_trial_starts_at_the_authors_defaults(finished: tuple[Path, object]) -> None:
    trials = table(finished, "trials").query("stage == 'distill'")
    assert ((trials.temperature == 4.0) & (trials.alpha == 0.7) & (trials.lr == 0.01)).any()


def test_only_finalists_read_the_test_set(finished: tuple[Path, object]) -> None:
    trials = table(finished, "trials")
    assert (trials.test_accuracy.notna() == (trials.stage == "final")).all()


def test_finalists_have_the_best_recipe_of_their_arm_and_new_seeds(finished: tuple[Path, object]) -> None:
    trials = table(finished, "trials")
    for arm in ("plain", "distill"):
        searched = trials[trials.stage == arm]
        best = searched.loc[searched.val_accuracy.idxmax()]
        finals = trials[(trials.stage == "final") & (trials.arm == arm)]
        assert (finals.lr == best.lr).all()
        assert sorted(finals.seed) == [1, 2]


def test_search_trains_on_its_subset_and_finalists_on_all_images(finished: tuple[Path, object]) -> None:
    """A distilled student's teacher answers for each image that it trains on, half floats of three classes."""
    digest, image = 32, 3 * 2
    folders = [p for p in (finished[0] / "teacher_logits").iterdir() if p.is_dir()]
    images = {(path.stat().st_size - digest) // image for folder in folders for path in folder.glob("*.logits")}
    assert images == {60, 81}


def test_the_best_seed_by_validation_is_measured(finished: tuple[Path, object]) -> None:
    trials, latency = table(finished, "trials").set_index("trial_id"), table(finished, "latency")
    for arm in ("plain", "distill"):
        measured = latency[(latency.arm == arm) & (latency.stage == "grid")].trial_id.unique().item()
        finals = trials[(trials.stage == "final") & (trials.arm == arm)]
        assert trials.val_accuracy[measured] == finals.val_accuracy.max()


def test_every_trial_has_its_epochs(finished: tuple[Path, object]) -> None:
    epochs = table(finished, "epochs").groupby("trial_id").size()
    trials = table(finished, "trials").query("not trial_id.str.startswith('final-teacher')").set_index("trial_id")
    assert epochs.to_dict() == trials.epochs_run.to_dict()


def test_best_and_last_weights_are_kept(finished: tuple[Path, object]) -> None:
    run, trials = finished[0], table(finished, "trials")
    folders = [(run / c).parent for c in trials.checkpoint.dropna()]
    assert all({p.name for p in f.iterdir()} == {"best.safetensors", "last.safetensors"} for f in folders)


def test_weights_of_losing_trials_are_removed(finished: tuple[Path, object]) -> None:
    run, trials = finished[0], table(finished, "trials")
    kept = trials[trials.checkpoint.notna()]
    assert kept.groupby("stage").size().to_dict() == {"teacher": 1, "plain": 1, "distill": 1, "final": 5}
    assert {p.name for p in (run / "checkpoints").iterdir()} == {Path(c).parent.name for c in kept.checkpoint}


def test_a_run_takes_no_more_room_than_the_plan_says(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    said = re.search(r"Disk: at most (\d+) MB", finished[1].stderr)
    assert said is not None
    assert sum(p.stat().st_size for p in finished[0].rglob("*") if p.is_file()) < int(said[1]) * 1e6


def test_grid_has_eight_variants_for_each_model_and_arm(finished: tuple[Path, object]) -> None:
    grid = table(finished, "latency").query("stage == 'grid' and runtime == 'torch'")
    assert grid.groupby(["model", "arm"]).variant.nunique().to_dict() == {
        ("resnet_narrow", "teacher"): 8,
        ("resnet_tiny", "plain"): 8,
        ("resnet_tiny", "distill"): 8,
    }


def test_missing_compiler_makes_unsupported_rows_with_the_reason(finished: tuple[Path, object]) -> None:
    compiled = table(finished, "latency").query("compile != 'none'")
    assert (compiled.status == "unsupported").all()
    assert compiled.error.str.contains("C\\+\\+ compiler").all()
    assert compiled.p50_ms.isna().all()


def test_onnx_runtime_is_measured_beside_the_grid(finished: tuple[Path, object]) -> None:
    rows = table(finished, "latency").query("stage == 'grid' and runtime == 'onnxruntime'")
    names = ("fp32", "fp32-1-thread", "int8", "int8-1-thread", "int8_dynamic")
    assert sorted(set(rows.variant)) == [f"onnxruntime-{name}" for name in names]
    assert set(rows.status) == {"ok"}


def test_speedups_are_of_paired_rounds_and_have_intervals(finished: tuple[Path, object]) -> None:
    for row in table(finished, "latency").query("compile == 'none'").itertuples():
        assert [len(r) / 10 for r in row.samples_ms] == [len(r) / 3 for r in row.reference_ms]
        assert row.speedup_low <= row.speedup <= row.speedup_high


def test_measured_rows_have_samples_accuracy_and_statistics(finished: tuple[Path, object]) -> None:
    measured = table(finished, "latency").query("compile == 'none'")
    assert (measured.status == "ok").all(), measured.error.to_list()
    assert (measured.samples_ms.map(lambda repeats: sum(map(len, repeats))) >= 700).all()
    columns = ["test_accuracy", "agreement", "batch1_agreement", "mean_ms", "p50_ms", "p95_ms", "p99_ms", "std_ms"]
    assert measured[columns].notna().all().all()


def test_correct_bits_give_the_accuracy(finished: tuple[Path, object]) -> None:
    images = json.loads((finished[0] / "study.json").read_text())["data"]["test_images"]
    for row in table(finished, "latency").query("compile == 'none'").itertuples():
        bits = np.unpackbits(np.frombuffer(row.correct, np.uint8))[:images]
        assert bits.mean() == pytest.approx(row.test_accuracy)


def test_candidate_and_baseline_are_confirmed_three_times(finished: tuple[Path, object]) -> None:
    confirm = table(finished, "latency").query("stage == 'confirm'")
    assert set(confirm.groupby(["trial_id", "variant"]).block.apply(sorted).map(tuple)) == {(1, 2, 3)}


def test_candidate_classifies_an_image_file(finished: tuple[Path, object], folder: Path) -> None:
    example = finished[0] / "candidate" / "example.py"
    image = folder / "test" / "dark" / "0.png"
    ended = subprocess.run([sys.executable, example, image], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert any(name in ended.stdout for name in ("dark", "grey", "light"))


def test_finalists_of_a_run_can_be_measured_again(finished: tuple[Path, object], tmp_path: Path) -> None:
    config = variant_grid.GridConfig(run=str(finished[0]), storage=str(tmp_path), name="again")
    prepared, _, trials = variant_grid._of_run(config)
    assert sorted(t.arm for t in trials) == ["distill", "plain", "teacher"]
    assert all((prepared.run / str(t.checkpoint)).resolve().is_file() for t in trials)


def ledger(run: Path) -> dict[Path, int]:
    """When each record was written."""
    return {p: p.stat().st_mtime_ns for p in (run / "ledger").rglob("*.json")}


def test_resume_of_a_finished_run_repeats_nothing(finished: tuple[Path, object], folder: Path) -> None:
    run, trials, before = finished[0], table(finished, "trials"), ledger(finished[0])
    ended = start(run.parent.parent, *SMALL, "--data", str(folder), "--image-size", "8", "--resume")
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ledger(run) == before
    assert table(finished, "trials").equals(trials)
