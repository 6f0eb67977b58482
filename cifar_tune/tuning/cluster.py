"""The Ray cluster a run works on: one of our own, or one to join."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import ray

from cifar_tune.device import environment, usable_cpus
from cifar_tune.errors import StudyFailedError, UsageError
from cifar_tune.records import Environment
from cifar_tune.study import StudyConfig

LATENCY_SLOT = "latency_slot"
"""Custom resource, one a node: at most one measurement runs on a node. A user's own nodes are started with it."""
NODE_SECONDS = 5.0
"""Between two looks at the measuring node."""
TUNE_SETTINGS = {
    # each would write a file a trial that nothing reads; the records hold the same and more
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # our own progress view speaks; Tune's is for --verbose
    "RAY_AIR_NEW_OUTPUT": "0",
    # else Ctrl-C ends one step, and the run goes on with the next as if that were whole
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # warn of nothing that the user can act on
    "RAY_DEDUP_LOGS": "1",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuringNode:
    """The one node on which a run builds, reads the test set and measures: its figures come from one machine."""

    cpus: int
    touch: dict[str, float]
    """A trace of the resource that only this node has: what asks for it runs there."""
    environment: Environment

    @property
    def name(self) -> str:
        """Ray's resource of this node."""
        (name,) = self.touch
        return name


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterInfo:
    """What the cluster offers."""

    node_cpus: tuple[int, ...]
    """Cores of each node."""
    nodes: int
    gpus: int
    dashboard: str | None
    """Address of the dashboard's page; None where it does not run."""
    measuring: MeasuringNode

    @property
    def cpus(self) -> int:
        """Cores of all nodes."""
        return sum(self.node_cpus)


@contextlib.contextmanager
def cluster(study: StudyConfig, device: str = "cpu") -> Iterator[ClusterInfo]:
    """Start Ray on this machine, or join the cluster at `study.address`; leave it at the end.

    Raises UsageError when a cluster is joined that has no node to measure on.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in TUNE_SETTINGS.items()})
    common = {
        "logging_level": logging.INFO if study.verbose else logging.ERROR,
        "log_to_driver": study.verbose,
        "ignore_reinit_error": False,
    }
    if study.address:
        try:
            context = ray.init(address=study.address, **common)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(f"address is {study.address!r}: {error}") from error
    else:
        context = ray.init(
            address="local",
            num_cpus=usable_cpus(),
            resources={LATENCY_SLOT: 1},
            include_dashboard=study.dashboard,
            **common,
        )
    try:
        nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
        url = context.dashboard_url
        yield ClusterInfo(
            node_cpus=tuple(int(n["CPU"]) for n in nodes if n.get("CPU", 0) >= 1),
            nodes=len(nodes),
            gpus=int(sum(n.get("GPU", 0) for n in nodes)),
            dashboard=f"http://{url}" if url else None,
            measuring=_measuring_node(nodes, study, device),
        )
    finally:
        ray.shutdown()


def _measuring_node(nodes: Sequence[Mapping[str, float]], study: StudyConfig, device: str) -> MeasuringNode:
    """The node with a latency slot, and with what the user asks of it, that has most GPUs; of equals, the first.

    Raises UsageError where there is none.
    """
    wanted = [LATENCY_SLOT, *([study.measure_on] if study.measure_on else []), *(["GPU"] if device == "cuda" else [])]
    fitting = [n for n in nodes if all(n.get(name, 0) > 0 for name in wanted)]
    if not fitting:
        raise UsageError(
            f"the cluster at {study.address or 'local'} has no node with {' and '.join(wanted)}; start the nodes that "
            f"""may measure with ray start --resources '{{"{LATENCY_SLOT}": 1}}'"""
        )
    chosen = max(fitting, key=lambda node: node.get("GPU", 0))
    touch = {next(r for r in chosen if r.startswith("node:") and r != "node:__internal_head__"): 0.001}
    about = environment(device)  # of this machine: a worker would take seconds to start
    if study.address is not None:
        there: Any = ray.remote(_environment).options(num_cpus=0, resources=touch)
        about = cast("Environment", ray.get(there.remote(device)))
    return MeasuringNode(cpus=int(chosen["CPU"]), touch=touch, environment=about)


def _environment(device: str) -> Environment:
    """What Ray can call elsewhere, as it cannot a function with a cache."""
    return environment(device)


def is_there(node: MeasuringNode) -> bool:
    """Whether the measuring node is still one of the cluster's."""
    return any(n["Alive"] and node.name in n["Resources"] for n in ray.nodes())


class NodeWatch:
    """Looks, now and then, whether the measuring node is still there: what waits for another would wait for ever."""

    def __init__(self, node: MeasuringNode) -> None:
        self._node, self._looked = node, time.monotonic()

    def __call__(self) -> None:
        """Raises StudyFailedError where it is not."""
        if time.monotonic() - self._looked < NODE_SECONDS:
            return
        self._looked = time.monotonic()
        if not is_there(self._node):
            raise StudyFailedError("the node that measures is lost; --resume goes on with another of its kind")
