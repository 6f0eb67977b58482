"""What a Tune worker runs for a cell of the grid: it holds the resources, and asks the measuring node's `Host`.

Importing this imports nothing of ours besides, so that such a worker starts in seconds: PyTorch, the compilers and the
server of fresh processes are the host's, which lives as long as the run. The dashboard shows a function's name as the
actor's: each is named for its stage.
"""

from __future__ import annotations

import os
from typing import Any

import ray
from ray import tune


def prepare_variant(config: dict[str, Any], host: Any, task: list[ray.ObjectRef]) -> None:
    """What needs no device of its own: compile or export a variant, and read the whole test set with it."""
    _ask(host.prepare, config, task)


def measure_latency(config: dict[str, Any], host: Any, task: list[ray.ObjectRef]) -> None:
    """Measure one variant at batch 1, alone on the node: the trial holds all its CPUs or its GPU, and the slot."""
    _ask(host.measure, config, task)


def ship_candidate(config: dict[str, Any], host: Any, task: list[ray.ObjectRef]) -> None:
    """Make the candidate's folder and check it, with what a measurement holds."""
    _ask(host.ship, config, task)


def _ask(method: Any, config: dict[str, Any], task: list[ray.ObjectRef]) -> None:
    """Report the record that a method of the host makes of a cell.

    Args:
        task: a reference to what the host is told, which is not unpickled here.
    """
    tune.report({"record": ray.get(method.remote(config["cell"], *task, os.environ.get("CUDA_VISIBLE_DEVICES")))})
