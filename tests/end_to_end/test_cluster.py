"""A study on several nodes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from lost_node import SEEDS, three_nodes, weights_after
from ray.cluster_utils import Cluster

from cifar_tune.errors import UsageError
from cifar_tune.presets import PRESETS
from cifar_tune.study import StudyConfig
from cifar_tune.tuning.cluster import ClusterInfo, _measuring_node
from cifar_tune.tuning.slots import cpus_each, exclusive_bundle, training_slots

pytestmark = pytest.mark.timeout(300)
STUDY = PRESETS["quick"]
SLOT = {"latency_slot": 1.0}


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[Cluster, ClusterInfo]]:
    with three_nodes() as started:
        yield started


def test_a_lost_node_costs_only_the_epoch_in_flight(nodes: tuple[Cluster, ClusterInfo], tmp_path: Path) -> None:
    undisturbed = weights_after(tmp_path / "undisturbed", nodes[1])
    assert weights_after(tmp_path / "disturbed", nodes[1], lose=nodes[0]) == undisturbed
    assert set(undisturbed) == set(SEEDS)


def test_trials_spread_over_the_nodes(nodes: tuple[Cluster, ClusterInfo]) -> None:
    slots = training_slots(STUDY, nodes[1], "cpu", 12)
    assert (slots.concurrent, slots.cpus) == (3, 1)


def test_only_one_measurement_holds_the_measuring_node(nodes: tuple[Cluster, ClusterInfo]) -> None:
    bundle = exclusive_bundle(nodes[1], "cpu")
    assert (bundle["CPU"], bundle["latency_slot"]) == (1, 1)
    assert nodes[1].measuring.name in bundle


@pytest.mark.parametrize(
    ("node_cpus", "trials", "cores"), [((4,), 1, 4), ((4,), 2, 2), ((4,), 8, 1), ((2, 8), 2, 4), ((1, 1, 1), 1, 1)]
)
def test_a_trial_has_no_more_cores_than_a_node(node_cpus: tuple[int, ...], trials: int, cores: int) -> None:
    assert cpus_each(node_cpus, trials) == cores


@pytest.mark.parametrize(
    ("settings", "device", "missing"),
    [({}, "cuda", "GPU"), ({"measure_on": "accelerator_type:H100"}, "cpu", "accelerator_type:H100")],
)
def test_no_node_of_the_device_asked_for_is_refused(settings: dict[str, str], device: str, missing: str) -> None:
    study = StudyConfig(address="auto", **settings)
    with pytest.raises(UsageError, match=f"has no node with latency_slot and {missing}"):
        _measuring_node([{"CPU": 4.0, **SLOT, "node:1": 1.0}], study, device)


def test_nodes_without_a_slot_never_measure() -> None:
    with pytest.raises(UsageError, match="has no node with latency_slot"):
        _measuring_node([{"CPU": 4.0, "node:1": 1.0}], StudyConfig(address="auto"), "cpu")
