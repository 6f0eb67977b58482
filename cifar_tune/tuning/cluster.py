"""The Ray cluster a run works on: one of our own, or one to join."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass

import ray

from cifar_tune.cli import UsageError
from cifar_tune.config import StudyConfig
from cifar_tune.device import usable_cpus

LATENCY_SLOT = "latency_slot"
"""Custom resource, one a node: at most one measurement runs on a node. A user's own nodes are started with it."""
TUNE_SETTINGS = {
    # each would write a file a trial that nothing reads; the records hold the same and more
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # our own progress view speaks; Tune's is for --verbose
    "RAY_AIR_NEW_OUTPUT": "0",
    # else Ctrl-C ends one stage, and the run goes on with the next as if that were whole
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # warn of nothing that the user can act on
    "RAY_DEDUP_LOGS": "1",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterInfo:
    """What the cluster offers."""

    cpus: int
    gpus: int
    dashboard: str | None
    """Address of the dashboard's page; None where it does not run."""
    measuring_node: dict[str, float]
    """A touch of the resource that only one node has: what asks for it builds, reads and measures on that node."""


@contextlib.contextmanager
def cluster(study: StudyConfig) -> Iterator[ClusterInfo]:
    """Start Ray on this machine, or join the cluster at `study.address`; leave it at the end.

    Raises UsageError when a cluster is joined whose nodes have no latency slot.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in TUNE_SETTINGS.items()})
    common = {
        "logging_level": logging.INFO if study.verbose else logging.ERROR,
        "log_to_driver": study.verbose,
        "ignore_reinit_error": False,
    }
    if study.address:
        context = ray.init(address=study.address, **common)
    else:
        context = ray.init(
            address="local",
            num_cpus=usable_cpus(),
            resources={LATENCY_SLOT: 1},
            include_dashboard=study.dashboard,
            **common,
        )
    try:
        resources = ray.cluster_resources()
        if LATENCY_SLOT not in resources:
            raise UsageError(
                f"the cluster at {study.address} has no node with the resource {LATENCY_SLOT}; start its nodes with "
                f"""ray start --resources '{{"{LATENCY_SLOT}": 1}}'"""
            )
        url = context.dashboard_url
        yield ClusterInfo(
            cpus=int(resources.get("CPU", 1)),
            gpus=int(resources.get("GPU", 0)),
            dashboard=f"http://{url}" if url else None,
            measuring_node=_measuring_node(),
        )
    finally:
        ray.shutdown()


def _measuring_node() -> dict[str, float]:
    """The node with a latency slot on which a run builds and measures: one with most GPUs, the first of equals."""
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"] and LATENCY_SLOT in n["Resources"]]
    chosen = max(nodes, key=lambda resources: resources.get("GPU", 0))
    name = next(r for r in chosen if r.startswith("node:") and r != "node:__internal_head__")
    return {name: 0.001}
