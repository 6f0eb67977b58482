"""Trainings on a cluster of three nodes, one of which is taken away while it trains."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from small_data import small_data

from cifar_tune.config import RecipeConfig
from cifar_tune.presets import PRESETS
from cifar_tune.records import TrialRecord
from cifar_tune.runs.ledger import Ledger
from cifar_tune.tuning.cluster import LATENCY_SLOT, ClusterInfo, cluster
from cifar_tune.tuning.context import RunContext
from cifar_tune.tuning.progress import StudyView
from cifar_tune.tuning.slots import Slots
from cifar_tune.tuning.stages import retrain
from cifar_tune.tuning.trainables import Training, TrainTask

EPOCHS = 6
SEEDS = (1, 2, 3)
DATA = small_data(train=1024)


@contextmanager
def three_nodes() -> Iterator[tuple[Cluster, ClusterInfo]]:
    """Nodes of one core each, on this machine; the first may measure."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "resources": {LATENCY_SLOT: 1}})
    try:
        for _ in range(2):
            nodes.add_node(num_cpus=1)
        nodes.wait_for_nodes()
        study = dataclasses.replace(PRESETS["quick"], address=nodes.address)
        with cluster(study) as info:
            yield nodes, info
    finally:
        nodes.shutdown()


def weights_after(
    run: Path, info: ClusterInfo, lose: Cluster | None = None, seeds: Sequence[int] = SEEDS
) -> dict[int, str | None]:
    """Train a model for each seed, one on each node; the digests of their weights.

    Args:
        lose: the cluster that loses its last node once something has been trained.
    """
    run.mkdir(parents=True)
    study = dataclasses.replace(PRESETS["quick"], epochs=EPOCHS, recipe=RecipeConfig(batch_size=16))
    task = TrainTask(
        study=study, stage="final", template=None, device="cpu", threads=1, teacher=None, teacher_folder="",
        data=ray.put(DATA),
    )  # fmt: skip
    sample: dict[str, float | str] = {"lr": 0.01, "schedule": "cosine"}
    trainings = [Training(arm="plain", model="resnet_tiny", sample=sample, seed=s, epochs=EPOCHS) for s in seeds]
    loser = threading.Thread(target=_lose, args=(lose, run)) if lose is not None else None
    if loser is not None:
        loser.start()
    with StudyView() as view:
        context = RunContext(
            study=study, run=run, dataset="small", device="cpu", ledger=Ledger(run), view=view, info=info
        )  # fmt: skip
        trials = retrain(context, task, trainings, Slots(concurrent=len(seeds), cpus=1, gpus=0.0))
    if loser is not None:
        loser.join()
    return {t.seed: _whole(t).checkpoint_sha256 for t in trials}


def _whole(trial: TrialRecord) -> TrialRecord:
    assert (trial.status, trial.epochs_run) == ("ok", EPOCHS), trial.error
    return trial


def _lose(nodes: Cluster, run: Path) -> None:
    """Take the last node away once each trial has trained an epoch."""
    end = time.monotonic() + 120
    while len({p.parent for p in run.glob("ray/*/*/checkpoint_*")}) < len(SEEDS) and time.monotonic() < end:
        time.sleep(0.1)
    nodes.remove_node(nodes.list_all_nodes()[-1], allow_graceful=False)
