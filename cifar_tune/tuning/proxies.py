"""What a Tune worker runs for a cell of the grid: it holds the resources, and asks the measuring node's `Workbench`.

Each Tune experiment has workers of its own. One that measured would import PyTorch and start a server of fresh
processes anew in every step, 12 to 20 seconds each. The workbench does so once, while the teacher trains, and lives
as long as the run. Importing this module imports nothing of ours besides, so that a worker starts in seconds. The
dashboard shows a function's name as the actor's: each is named for its step.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

if TYPE_CHECKING:
    from cifar_tune.records import LatencyRecord
    from cifar_tune.shipping.shipment import Verification
    from cifar_tune.tuning.cluster import MeasuringNode
    from cifar_tune.tuning.workbench import MeasureTask, Preparation, PrepareTask, RaceTask, ShipTask

Config = dict[str, int]
"""A trial's configuration: `cell` is the number of its cell among those of the task."""


def prepare_variant(config: Config, workbench: Any, task: list[ray.ObjectRef]) -> None:
    """What needs no device of its own: compile or export a variant, and read the whole test set with it."""
    _ask(workbench.prepare, config, task)


def measure_latency(config: Config, workbench: Any, task: list[ray.ObjectRef]) -> None:
    """Measure one variant at batch 1. The trial has the node to itself: all its CPUs or its GPU, and the slot."""
    _ask(workbench.measure, config, task)


def race_block(config: Config, workbench: Any, task: list[ray.ObjectRef]) -> None:
    """Measure one block of a race: its contenders take turns. The trial holds what a measurement holds."""
    _ask(workbench.race, config, task)


def ship_candidate(config: Config, workbench: Any, task: list[ray.ObjectRef]) -> None:
    """Make the candidate's folder and check it, with what a measurement holds."""
    _ask(workbench.ship, config, task)


def _ask(method: Any, config: Config, task: list[ray.ObjectRef]) -> None:
    """Report what a method of the workbench makes of a cell.

    Args:
        task: a reference to what the workbench is told, which is not unpickled here.
    """
    tune.report({"result": ray.get(method.remote(config["cell"], *task, os.environ.get("CUDA_VISIBLE_DEVICES")))})


def start_workbench(node: MeasuringNode, device: str, *, compiles: bool) -> Any:
    """The handle of a workbench on the measuring node, which is ready when it answers. It ends with the driver."""
    made = ray.remote(Workbench).options(
        num_cpus=0,
        resources=node.touch,
        max_concurrency=node.cpus + 1,
        max_restarts=-1,
        max_task_retries=1,  # it dies with all that it works on: a second death is the cell's own
    )
    return made.remote(device, compiles)


class Workbench:
    """Answers the cells' trials, each in a thread of its own; what can crash runs in fresh processes."""

    def __init__(self, device: str, compiles: bool) -> None:
        # not above: whoever is given an actor's handle imports the module of its class
        from cifar_tune.tuning import workbench

        self._does = workbench
        workbench.start(device, compiles=compiles)

    def prepare(self, cell: int, task: PrepareTask, gpus: str | None) -> Preparation:
        """See `workbench.prepare`."""
        return self._does.prepare(task.cells[cell], task, gpus)

    def measure(self, cell: int, task: MeasureTask, gpus: str | None) -> LatencyRecord:
        """See `workbench.measure`."""
        return self._does.measure(task.cells[cell], task, gpus)

    def race(self, cell: int, task: RaceTask, gpus: str | None) -> list[LatencyRecord]:
        """See `workbench.race`."""
        return self._does.race(task.cells[cell], task, gpus)

    def ship(self, cell: int, task: ShipTask, gpus: str | None) -> Verification:
        """See `workbench.ship`."""
        return self._does.ship(task.cells[cell], task, gpus)
