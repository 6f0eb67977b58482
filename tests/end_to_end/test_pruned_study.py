"""`--prune` in a study: pruned models are finalists, measured and on the front as all others."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from watched import Watched, whole_study

pytest.importorskip("torch_pruning", reason="pip install -e '.[prune]'")

pytestmark = pytest.mark.timeout(1300)


VARIANTS = ("torch-fp32", "onnxruntime-int8", "torch-fp32-zeroed-0.9", "torch-fp32-zeroed-0.9-by-layer")


@pytest.fixture(scope="module")
def run(watched: Watched, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, elsewhere since, that is then extended by pruned models."""
    scratch = tmp_path_factory.mktemp("pruned")
    more = ("--prune", "0.5", "--prune-epochs", "1", "--magnitude", "0.9", "--variants", *VARIANTS)
    study = whole_study(scratch, watched.study.name, watched.images, *more)
    shutil.copytree(watched.study.run, study.run)
    assert study.finish() is None
    return study.run


def test_command_of_an_extended_run_would_make_all_of_it_anew(run: Path) -> None:
    command = json.loads((run / "study.json").read_text())["command"]
    assert "--prune 0.5 --prune-epochs 1 --magnitude 0.9" in command
    assert "--resume" not in command


def test_pruned_finalist_begins_with_the_weights_of_a_whole_one(run: Path) -> None:
    trials = pd.read_parquet(run / "trials.parquet")
    pruned = trials[trials.model == "resnet_tiny@0.5"]
    assert len(pruned) == 1
    assert set(pruned.start_sha256) <= set(trials[trials.model == "resnet_tiny"].checkpoint_sha256)


def test_pruned_finalist_is_taught_though_its_whole_one_was_not(run: Path) -> None:
    trials = pd.read_parquet(run / "trials.parquet").set_index("trial_id")
    (pruned,) = trials[trials.model == "resnet_tiny@0.5"].itertuples()
    assert trials.loc[trials.checkpoint_sha256 == pruned.start_sha256].alpha.eq(0.0).any()
    assert (pruned.arm, pruned.temperature, pruned.alpha) == ("distill", 4.0, 0.7)


def test_pruned_finalist_has_read_the_test_set(run: Path) -> None:
    trials = pd.read_parquet(run / "trials.parquet")
    assert trials[trials.model == "resnet_tiny@0.5"].test_accuracy.notna().all()


def test_every_variant_of_a_pruned_model_is_measured(run: Path) -> None:
    rows = pd.read_parquet(run / "latency.parquet").query("stage == 'grid' and model == 'resnet_tiny@0.5'")
    assert sorted(rows.variant) == sorted(VARIANTS)
    assert set(rows.status) == {"ok"}


def test_zeros_are_measured_and_their_deflated_size_is_known(run: Path) -> None:
    rows = pd.read_parquet(run / "latency.parquet").query("stage == 'grid' and model == 'resnet_tiny'")
    eager = rows[(rows.variant == "torch-fp32") | (rows.zeroed > 0)]
    assert len(eager[eager.zeroed > 0]) == 2 * eager.trial_id.nunique()
    assert (eager[eager.zeroed > 0].compressed_mb.max()) < 0.5 * eager[eager.zeroed == 0].compressed_mb.min()


def test_pruned_trial_can_be_trained_again_alone(run: Path) -> None:
    trials = pd.read_parquet(run / "trials.parquet").query("model == 'resnet_tiny@0.5'")
    again = [sys.executable, "-m", "cifar_tune", "train", "--run", run, "--trial", trials.trial_id.item()]
    ended = subprocess.run(again, cwd=run.parent, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
