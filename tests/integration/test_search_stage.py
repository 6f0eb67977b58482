"""One search on a real Ray: workers that die, and what is left of them."""

import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
from small_data import small_data
from small_study import is_training

from cifar_tune.config import RecipeConfig
from cifar_tune.presets import PRESETS
from cifar_tune.records import EpochRecord, Stage, TrialRecord
from cifar_tune.runs.ledger import Ledger
from cifar_tune.study import StudyConfig
from cifar_tune.tuning.cluster import ClusterInfo, cluster
from cifar_tune.tuning.context import RunContext
from cifar_tune.tuning.progress import StudyView
from cifar_tune.tuning.slots import Slots
from cifar_tune.tuning.stages import retrain, search
from cifar_tune.tuning.trainables import Training, TrainTask

pytestmark = pytest.mark.timeout(300)
DATA = small_data(train=1024)
EPOCHS = 6
LONG = 10
"""Epochs of trials that must overlap: the worker of the second may take seconds to start on a busy machine."""
SLOTS = Slots(concurrent=1, cpus=1, gpus=0.0)
STUDY = dataclasses.replace(PRESETS["quick"], epochs=EPOCHS, dashboard=False, recipe=RecipeConfig(batch_size=16))


@pytest.fixture(scope="module")
def info() -> Iterator[ClusterInfo]:
    with cluster(STUDY) as started:
        yield started


def task_of(study: StudyConfig, stage: Stage, template: Training | None = None) -> TrainTask:
    return TrainTask(
        study=study, stage=stage, template=template, device="cpu", threads=1, teacher=None, teacher_folder="",
        data=ray.put(DATA),
    )  # fmt: skip


def context_of(run: Path, info: ClusterInfo, view: StudyView) -> RunContext:
    run.mkdir(exist_ok=True)
    return RunContext(
        study=STUDY, run=run, dataset="small", device="cpu", ledger=Ledger(run), view=view, info=info
    )  # fmt: skip


def finalist(run: Path, info: ClusterInfo) -> TrialRecord:
    """A training of some seconds."""
    sample: dict[str, float | str] = {"lr": 0.01, "schedule": "cosine"}
    training = Training(arm="plain", model="resnet_tiny", sample=sample, seed=1, epochs=EPOCHS)
    with StudyView() as view:
        (trial,) = retrain(context_of(run, info, view), task_of(STUDY, "final"), [training], SLOTS)
    return trial


class Killer(threading.Thread):
    """Kills the worker that trains, again and again, each time a moment after it has begun."""

    def __init__(self, times: int, run: Path) -> None:
        super().__init__()
        self.times, self.run_folder = times, run
        self.killed: list[int] = []

    def run(self) -> None:
        end = time.monotonic() + 200
        while len(self.killed) < self.times and time.monotonic() < end:
            time.sleep(0.1)
            at_work = [p for p in psutil.Process().children(recursive=True) if is_training(p)]
            fresh = [p for p in at_work if p.pid not in self.killed]
            if fresh and list(self.run_folder.rglob("checkpoint_*")):  # there is something to go on from
                time.sleep(0.3)
                fresh[0].kill()
                self.killed.append(fresh[0].pid)


def searched(run: Path, info: ClusterInfo, trials: int, epochs: int = 1, slots: Slots = SLOTS) -> list[TrialRecord]:
    """A search in which no trial is stopped early."""
    study = dataclasses.replace(STUDY, epochs=epochs, num_samples=trials, early_stopping=False)
    template = Training(arm="plain", model="resnet_tiny", sample={}, seed=0, epochs=epochs)
    task = task_of(study, "plain", template)
    with StudyView() as view:
        return search(context_of(run, info, view), task, trials, slots)


def test_two_trials_train_at_the_same_time(info: ClusterInfo, tmp_path: Path) -> None:
    if info.cpus < 2:
        pytest.skip("needs two cores")
    slots = dataclasses.replace(SLOTS, concurrent=2)
    first, second = sorted(searched(tmp_path / "run", info, 2, LONG, slots), key=lambda t: t.started_at)
    assert second.started_at < first.started_at + first.train_seconds


def test_more_samples_extend_a_finished_search(info: ClusterInfo, tmp_path: Path) -> None:
    first = searched(tmp_path / "run", info, 2)
    more = searched(tmp_path / "run", info, 3)
    assert len({t.lr for t in more}) == len(more) == 3
    kept = {t.trial_id: t.started_at for t in more}
    assert all(kept[t.trial_id] == t.started_at for t in first)


def test_a_killed_worker_goes_on_and_ends_with_the_same_weights(info: ClusterInfo, tmp_path: Path) -> None:
    undisturbed = finalist(tmp_path / "undisturbed", info)
    killer = Killer(1, tmp_path / "disturbed")
    killer.start()
    disturbed = finalist(tmp_path / "disturbed", info)
    killer.join()
    assert len(killer.killed) == 1
    assert (disturbed.status, disturbed.epochs_run) == ("ok", EPOCHS)
    assert disturbed.checkpoint_sha256 == undisturbed.checkpoint_sha256
    epochs = [e.epoch for e in Ledger(tmp_path / "disturbed").read(EpochRecord)]
    assert epochs == list(range(1, EPOCHS + 1))


def test_a_worker_that_dies_again_and_again_is_a_failed_row(info: ClusterInfo, tmp_path: Path) -> None:
    """As one does that is out of memory: the system, or Ray before it, kills it."""
    killer = Killer(3, tmp_path / "run")
    killer.start()
    trial = finalist(tmp_path / "run", info)
    killer.join()
    assert len(killer.killed) == 3
    assert trial.status == "failed"
    assert trial.error
    assert f"--trial {trial.trial_id}" in (tmp_path / "run" / "errors" / f"{trial.trial_id}.txt").read_text()
