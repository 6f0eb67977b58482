"""What the main job leaves, from data to answer, as a user finds it.

The study is the one of `watched`: a user's own image folder, on a machine without a C++ compiler. `.ci/run` shows the
builds, and checks the same files.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from watched import Watched

from cifar_tune.blocks import LOOKS
from sweeps import variant_grid

pytestmark = pytest.mark.timeout(1200)  # two minutes where nothing else runs


@pytest.fixture(scope="module")
def run(watched: Watched) -> Path:
    return watched.study.run


def table(run: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(run / f"{name}.parquet")


def test_last_line_of_stdout_is_a_report_that_exists(watched: Watched) -> None:
    report = watched.study.run / "report.html"
    assert Path(watched.study.printed().strip().splitlines()[-1]) == report
    assert "## " in report.with_suffix(".md").read_text()


def test_a_plan_is_printed_before_the_start(watched: Watched) -> None:
    said = watched.study.said()
    assert said.index("2 trials of 2 epochs on 60 images") < said.index("teacher resnet_tiny: done")


def test_every_file_of_the_contract_is_there(run: Path) -> None:
    names = {p.name for p in run.iterdir()}
    expected = {
        "study.json", "optuna.journal", "importance.parquet",
        "trials.parquet", "epochs.parquet", "latency.parquet", "front.parquet", "comparison.csv",
        "report.md", "report.html", "front.png", "checkpoints", "candidate", "ray",
    }  # fmt: skip
    assert expected <= names


def test_every_trial_is_a_row(run: Path) -> None:
    counts = table(run, "trials").groupby("stage").size().to_dict()
    assert counts == {"teacher": 1, "plain": 2, "distill": 2, "final": 5}  # the teacher, and two seeds of each arm


def test_every_trial_says_in_which_arithmetic_it_was_trained(run: Path) -> None:
    assert (table(run, "trials").precision == "fp32").all()  # of 8x8 images, whatever the processor


def test_first_distillation_trial_starts_at_the_authors_defaults(run: Path) -> None:
    trials = table(run, "trials").query("stage == 'distill'")
    assert ((trials.temperature == 4.0) & (trials.alpha == 0.7) & (trials.lr == 0.01)).any()


def test_only_finalists_read_the_test_set(run: Path) -> None:
    trials = table(run, "trials")
    assert (trials.test_accuracy.notna() == (trials.stage == "final")).all()


def test_finalists_have_the_best_recipe_of_their_arm_and_new_seeds(run: Path) -> None:
    trials = table(run, "trials")
    for arm in ("plain", "distill"):
        searched = trials[trials.stage == arm]
        best = searched.loc[searched.val_accuracy.idxmax()]
        finals = trials[(trials.stage == "final") & (trials.arm == arm)]
        assert (finals.lr == best.lr).all()
        assert sorted(finals.seed) == [1, 2]


def test_search_trains_on_its_subset_and_finalists_on_all_images(run: Path) -> None:
    """A distilled student's teacher answers for each image that it trains on, half floats of three classes."""
    digest, image = 32, 3 * 2
    folders = [p for p in (run / "teacher_logits").iterdir() if p.is_dir()]
    images = {(path.stat().st_size - digest) // image for folder in folders for path in folder.glob("*.logits")}
    assert images == {60, 81}


def test_the_best_seed_by_validation_is_measured(run: Path) -> None:
    trials, latency = table(run, "trials").set_index("trial_id"), table(run, "latency")
    for arm in ("plain", "distill"):
        measured = latency[(latency.arm == arm) & (latency.stage == "grid")].trial_id.unique().item()
        finals = trials[(trials.stage == "final") & (trials.arm == arm)]
        assert trials.val_accuracy[measured] == finals.val_accuracy.max()


def test_every_trial_has_its_epochs(run: Path) -> None:
    epochs = table(run, "epochs").groupby("trial_id").size()
    trials = table(run, "trials").query("not trial_id.str.startswith('final-teacher')").set_index("trial_id")
    assert epochs.to_dict() == trials.epochs_run.to_dict()


def test_best_and_last_weights_are_kept(run: Path) -> None:
    run, trials = run, table(run, "trials")
    folders = [(run / c).parent for c in trials.checkpoint.dropna()]
    assert all({p.name for p in f.iterdir()} == {"best.safetensors", "last.safetensors"} for f in folders)


def test_weights_of_losing_trials_are_removed(run: Path) -> None:
    run, trials = run, table(run, "trials")
    kept = trials[trials.checkpoint.notna()]
    assert kept.groupby("stage").size().to_dict() == {"teacher": 1, "plain": 1, "distill": 1, "final": 5}
    assert {p.name for p in (run / "checkpoints").iterdir()} == {Path(c).parent.name for c in kept.checkpoint}


def test_a_run_takes_no_more_room_than_the_plan_says(watched: Watched) -> None:
    said = re.search(r"Disk: at most (\d+) MB", watched.study.said())
    assert said is not None
    assert sum(p.stat().st_size for p in watched.study.run.rglob("*") if p.is_file()) < int(said[1]) * 1e6


def test_grid_has_eight_variants_for_each_model_and_arm(run: Path) -> None:
    grid = table(run, "latency").query("stage == 'grid' and runtime == 'torch'")
    assert grid.groupby(["model", "arm"]).variant.nunique().to_dict() == {
        ("resnet_tiny", "teacher"): 8,
        ("resnet_tiny", "plain"): 8,
        ("resnet_tiny", "distill"): 8,
    }


def test_missing_compiler_makes_unsupported_rows_with_the_reason(run: Path) -> None:
    compiled = table(run, "latency").query("compile != 'none'")
    assert (compiled.status == "unsupported").all()
    assert compiled.error.str.contains("C\\+\\+ compiler").all()
    assert compiled.p50_ms.isna().all()


def test_onnx_runtime_is_measured_beside_the_grid(run: Path) -> None:
    rows = table(run, "latency").query("stage == 'grid' and runtime == 'onnxruntime'")
    names = ("fp32", "fp32-1-thread", "int8", "int8-1-thread", "int8_dynamic")
    assert sorted(set(rows.variant)) == [f"onnxruntime-{name}" for name in names]
    assert set(rows.status) == {"ok"}


def test_speedups_are_of_paired_rounds_and_have_intervals(run: Path) -> None:
    for row in table(run, "latency").query("compile == 'none' and stage == 'grid'").itertuples():
        assert [len(r) / 10 for r in row.samples_ms] == [len(r) / 3 for r in row.reference_ms]
        assert row.speedup_low <= row.speedup <= row.speedup_high


def test_measured_rows_have_samples_accuracy_and_statistics(run: Path) -> None:
    measured = table(run, "latency").query("compile == 'none' and stage == 'grid'")
    assert (measured.status == "ok").all(), measured.error.to_list()
    assert (measured.samples_ms.map(lambda repeats: sum(map(len, repeats))) >= 700).all()
    columns = ["test_accuracy", "agreement", "batch1_agreement", "mean_ms", "p50_ms", "p95_ms", "p99_ms", "std_ms"]
    assert measured[columns].notna().all().all()


def test_correct_bits_give_the_accuracy(run: Path) -> None:
    images = json.loads((run / "study.json").read_text())["data"]["test_images"]
    for row in table(run, "latency").query("compile == 'none'").itertuples():
        bits = np.unpackbits(np.frombuffer(row.correct, np.uint8))[:images]
        assert bits.mean() == pytest.approx(row.test_accuracy)


def test_finalists_race_in_five_blocks_at_least(run: Path) -> None:
    race = table(run, "latency").query("stage == 'race'")
    blocks = race.groupby(["trial_id", "variant"]).block.apply(sorted).map(tuple)
    assert set(blocks) == {tuple(range(1, race.block.max() + 1))}
    assert race.block.max() in LOOKS


def test_candidate_and_baseline_are_confirmed_in_five_blocks(run: Path) -> None:
    confirm = table(run, "latency").query("stage == 'confirm'")
    candidate = table(run, "front").query("candidate").iloc[0]
    of_candidate = confirm[(confirm.trial_id == candidate.trial_id) & (confirm.variant == candidate.variant)]
    assert 5 <= len(of_candidate) <= 10  # a disturbed block is taken again once
    assert (confirm[confirm.arm == "teacher"].variant == "torch-fp32").any()


def test_a_block_is_of_the_baseline_s_calls_beside_the_contender_s(run: Path) -> None:
    for _, block in table(run, "latency").query("stage == 'race'").groupby("block"):
        baseline = block[(block.arm == "teacher") & (block.variant == "torch-fp32")].iloc[0]
        assert all(list(r[0]) == list(baseline.samples_ms[0]) for r in block.reference_ms)


def test_the_candidate_s_figures_are_those_of_its_confirmation(run: Path) -> None:
    candidate = table(run, "front").query("candidate").iloc[0]
    card = json.loads((run / "candidate" / "candidate.json").read_text())
    assert (candidate.figure, card["figure"]) == ("confirm", "confirm")
    assert card["p50_ms"] == pytest.approx(candidate.typical_ms)


def test_candidate_classifies_an_image_file(watched: Watched, run: Path) -> None:
    example = run / "candidate" / "example.py"
    image = watched.images / "test" / "dark" / "0.png"
    ended = subprocess.run([sys.executable, example, image], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert any(name in ended.stdout for name in ("dark", "grey", "light"))


def test_finalists_of_a_run_can_be_measured_again(run: Path, tmp_path: Path) -> None:
    config = variant_grid.GridConfig(run=str(run), storage=str(tmp_path), name="again")
    prepared, _, trials = variant_grid._of_run(config)
    assert sorted(t.arm for t in trials) == ["distill", "plain", "teacher"]
    assert all((prepared.run / str(t.checkpoint)).resolve().is_file() for t in trials)
