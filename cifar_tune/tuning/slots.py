"""How many trials run at the same time, and what each holds of Ray's resources."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from cifar_tune.study import StudyConfig
from cifar_tune.tuning.cluster import LATENCY_SLOT, ClusterInfo


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Slots:
    """How many trials train at the same time, and what each holds."""

    concurrent: int
    cpus: int
    gpus: float

    @property
    def bundle(self) -> dict[str, float]:
        """What one trial holds, as Ray's resources."""
        return {"CPU": self.cpus, "GPU": self.gpus} if self.gpus else {"CPU": self.cpus}


def training_slots(study: StudyConfig, info: ClusterInfo, device: str, trials: int) -> Slots:
    """Share the nodes among trials: every core works, also when there are fewer trials than cores."""
    room = int(info.gpus / study.gpus_per_trial) if device == "cuda" else sum(min(n, 16) for n in info.node_cpus)
    wanted = study.concurrent_trials or room
    concurrent = max(1, min(wanted, trials, info.cpus))
    gpus = 1 / math.ceil(concurrent / info.gpus) if device == "cuda" else 0.0
    return Slots(concurrent=concurrent, cpus=cpus_each(info.node_cpus, concurrent), gpus=gpus)


def preparation_slots(study: StudyConfig, info: ClusterInfo, device: str, cells: int) -> Slots:
    """The same for what runs only on the measuring node."""
    return training_slots(study, dataclasses.replace(info, node_cpus=(info.measuring.cpus,)), device, cells)


def cpus_each(node_cpus: Sequence[int], trials: int) -> int:
    """The most cores that each of as many trials can have at one time, each on one node."""
    fitting = [c for c in range(1, max(node_cpus) + 1) if sum(n // c for n in node_cpus) >= trials]
    return max(fitting, default=1)


def exclusive_bundle(info: ClusterInfo, device: str) -> dict[str, float]:
    """What a measurement holds: the node's slot, and its GPU or, without one, all its CPUs."""
    cpus = info.measuring.cpus
    held = {"CPU": min(4, cpus), "GPU": 1} if device == "cuda" else {"CPU": cpus}
    return {**held, LATENCY_SLOT: 1, **info.measuring.touch}
