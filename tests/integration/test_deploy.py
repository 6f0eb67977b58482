"""deploy/: both manifests are of the form that those who read them ask for, and give the command flags it knows.

Ray's schema is in its package. KubeRay's is kept, as far as the manifest uses it, in fixtures/rayjob_schema.yaml.
"""

import copy
import json
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from cifar_tune.tuning.cluster import LATENCY_SLOT
from sweeps.steps.checks import parse_study

ROOT = Path(__file__).resolve().parents[2]
CLUSTER, RAYJOB, PAGE = ROOT / "deploy/cluster.yaml", ROOT / "deploy/rayjob.yaml", ROOT / "docs/large_studies.md"
SCRIPT = "sweeps/distill_search.py"


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load(CLUSTER.read_text())


@pytest.fixture
def cluster_schema() -> dict[str, Any]:
    return json.loads(Path(ray.__file__).with_name("autoscaler").joinpath("ray-schema.json").read_text())


@pytest.fixture
def manifests() -> dict[str, dict[str, Any]]:
    """By kind."""
    return {m["kind"]: m for m in yaml.safe_load_all(RAYJOB.read_text())}


@pytest.fixture
def rayjob(manifests: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return manifests["RayJob"]


@pytest.fixture
def rayjob_schema() -> dict[str, Any]:
    return closed(yaml.safe_load((ROOT / "tests/support/fixtures/rayjob_schema.yaml").read_text()))


def closed(schema: Any) -> Any:
    """The schema, but no object has fields that are not named: what Kubernetes would silently drop is refused."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(part) for key, part in schema.items()}
    return {"additionalProperties": False, **inner} if isinstance(schema.get("properties"), dict) else inner


def autoscaling(rayjob: dict[str, Any]) -> dict[str, Any]:
    """What Ray's autoscaler reads from the job's cluster."""
    metadata = {"name": "large-study", "namespace": "default"}
    return _derive_autoscaling_config_from_ray_cr({"metadata": metadata, "spec": rayjob["spec"]["rayClusterSpec"]})


def commands(text: str) -> list[list[str]]:
    """Arguments of each call of the main job in a text, or in its comments, lines that are continued joined."""
    joined = re.sub(r"\\\n#?\s*", "", text)
    lines = [line.strip("# ") for line in joined.splitlines() if f"{SCRIPT} --" in line]
    return [shlex.split(line.split(SCRIPT, 1)[1]) for line in lines]


def test_cluster_fits_rays_own_schema(cluster: dict[str, Any], cluster_schema: dict[str, Any]) -> None:
    jsonschema.validate(cluster, cluster_schema)


@pytest.mark.parametrize(
    "path",
    [
        ("max_worker",),
        ("available_node_types", "training", "min_worker"),
        ("available_node_types", "training", "resources", "CPU"),
    ],
)
def test_an_error_in_the_cluster_is_refused(
    cluster: dict[str, Any], cluster_schema: dict[str, Any], path: tuple[str, ...]
) -> None:
    changed(cluster, path, "2")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(cluster, cluster_schema)


def changed(content: Any, path: tuple[Any, ...], value: Any) -> None:
    """Set what is at a path."""
    for key in path[:-1]:
        content = content[key]
    content[path[-1]] = value


def test_rayjob_fits_the_published_definition(rayjob: dict[str, Any], rayjob_schema: dict[str, Any]) -> None:
    jsonschema.validate(rayjob, rayjob_schema)


GROUPS = ("spec", "rayClusterSpec", "workerGroupSpecs")
CONTAINER = (*GROUPS, 0, "template", "spec", "containers", 0)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "entryPoint"), "python"),
        (("spec", "rayClusterSpec", "enableInTreeAutoscalling"), True),
        ((*GROUPS, 0, "minReplica"), 1),
        ((*GROUPS, 0, "minReplicas"), "1"),
        ((*GROUPS, 0, "rayStartParams", "num-cpus"), 2),
        ((*CONTAINER, "volumeMount"), []),
        ((*CONTAINER, "resources", "limits", "cpu"), "many"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "tokens"),
    ],
)
def test_a_misspelt_field_or_wrong_value_of_the_rayjob_is_refused(
    rayjob: dict[str, Any], rayjob_schema: dict[str, Any], path: tuple[Any, ...], value: Any
) -> None:
    rayjob = copy.deepcopy(rayjob)  # anchors make one object of what stands in several places
    changed(rayjob, path, value)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(rayjob, rayjob_schema)


@pytest.mark.parametrize("field", ["groupName", "template"])
def test_a_worker_group_without_what_is_required_is_refused(
    rayjob: dict[str, Any], rayjob_schema: dict[str, Any], field: str
) -> None:
    del rayjob["spec"]["rayClusterSpec"]["workerGroupSpecs"][1][field]
    with pytest.raises(jsonschema.ValidationError, match=field):
        jsonschema.validate(rayjob, rayjob_schema)


def test_measuring_nodes_have_one_latency_slot_and_others_none(cluster: dict[str, Any], rayjob: dict[str, Any]) -> None:
    for types in (cluster["available_node_types"], autoscaling(rayjob)["available_node_types"]):
        slots = {name: node["resources"].get(LATENCY_SLOT, 0) for name, node in types.items()}
        assert slots.pop("measuring") == 1
        assert set(slots.values()) == {0}


def test_the_measuring_node_is_there_when_a_study_starts_and_stays(
    cluster: dict[str, Any], rayjob: dict[str, Any]
) -> None:
    for types in (cluster["available_node_types"], autoscaling(rayjob)["available_node_types"]):
        measuring = types["measuring"]
        assert (measuring["min_workers"], measuring["max_workers"]) == (1, 1)
        assert measuring["resources"]["GPU"] == 1


def test_the_driver_runs_on_the_measuring_node(cluster: dict[str, Any], rayjob: dict[str, Any]) -> None:
    wanted = json.loads(rayjob["spec"]["entrypointResources"])
    assert f"--entrypoint-resources '{json.dumps(wanted)}'" in CLUSTER.read_text()
    for types in (cluster["available_node_types"], autoscaling(rayjob)["available_node_types"]):
        assert [name for name, node in types.items() if wanted.items() <= node["resources"].items()] == ["measuring"]


def test_training_nodes_come_and_go_but_all_are_there_at_the_start(
    cluster: dict[str, Any], rayjob: dict[str, Any]
) -> None:
    for types in (cluster["available_node_types"], autoscaling(rayjob)["available_node_types"]):
        assert types["training"]["min_workers"] < types["training"]["max_workers"]
    (group,) = [g for g in rayjob["spec"]["rayClusterSpec"]["workerGroupSpecs"] if g["groupName"] == "training"]
    assert group["replicas"] == group["maxReplicas"]
    workers = [node for name, node in cluster["available_node_types"].items() if name != cluster["head_node_type"]]
    cpus = sum(node["resources"]["CPU"] * node["max_workers"] for node in workers)
    assert f"request_resources(num_cpus={cpus})" in CLUSTER.read_text()


def test_no_trial_runs_on_the_head(cluster: dict[str, Any], rayjob: dict[str, Any]) -> None:
    assert cluster["available_node_types"][cluster["head_node_type"]]["resources"]["CPU"] == 0
    derived = autoscaling(rayjob)
    assert derived["available_node_types"][derived["head_node_type"]]["resources"]["CPU"] == 0


def test_all_workers_may_run(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    assert cluster["max_workers"] == sum(node.get("max_workers", 0) for node in types.values())


def test_tokens_are_asked_for_and_the_dashboard_stays_on_its_machine(
    cluster: dict[str, Any], rayjob: dict[str, Any]
) -> None:
    starts = [c for kind in ("head", "worker") for c in cluster[f"{kind}_start_ray_commands"] if "ray start" in c]
    assert all(c.startswith("RAY_AUTH_MODE=token ray start") for c in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "~/.ray/auth_token" in cluster["file_mounts"]
    assert rayjob["spec"]["rayClusterSpec"]["authOptions"]["mode"] == "token"


def test_both_use_the_tested_version_of_ray(cluster: dict[str, Any], rayjob: dict[str, Any]) -> None:
    found = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert found is not None
    image = f"rayproject/ray:{found[1]}-py311"
    assert cluster["docker"]["image"] == image
    assert f"FROM {image}\n" in (ROOT / "deploy/Dockerfile").read_text()
    assert rayjob["spec"]["rayClusterSpec"]["rayVersion"] == found[1]


def test_every_pod_of_the_rayjob_mounts_the_claim_that_holds_the_studies(
    manifests: dict[str, dict[str, Any]], rayjob: dict[str, Any]
) -> None:
    claim = manifests["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    spec = rayjob["spec"]["rayClusterSpec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (volume,), (container,) = pod["volumes"], pod["containers"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        (mount,) = container["volumeMounts"]
        assert mount["name"] == volume["name"]
        for flag in ("--storage", "--data-dir"):
            (arguments,) = commands(rayjob["spec"]["entrypoint"])
            assert Path(arguments[arguments.index(flag) + 1]).is_relative_to(mount["mountPath"])


@pytest.mark.parametrize("name", ["cluster", "rayjob", "page"])
def test_the_command_knows_every_flag_that_it_is_given(name: str, rayjob: dict[str, Any]) -> None:
    text = {"cluster": CLUSTER.read_text(), "rayjob": rayjob["spec"]["entrypoint"], "page": PAGE.read_text()}[name]
    found = commands(text)
    assert found
    for arguments in found:
        study = parse_study(arguments, SCRIPT, "")
        assert study.address == "auto"
        assert study.device == "cpu", "a driver that sees the measuring GPU would train there too"


# --- the simulation ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulator() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "benchmarks/simulate_cluster.py"))


FREE = {"trial_seconds": 0, "suggest_seconds": 0, "suggest_growth": 0, "report_seconds": 0, "file_seconds": 0}
"""What the driver does takes no time."""
STILL = {**FREE, "worker_start": 0, "loss_per_node_hour": 0, "variation": 0, "searches": 1, "grace": 100}
"""And nothing is lost, nor stopped early; all epochs are alike."""


def simulated(simulator: dict[str, Any], **settings: Any) -> Any:
    small = {"trials": 64, "nodes": 4, "slots": 2, "images": 7200, "epochs": 10, **settings}
    return simulator["Simulation"](simulator["Cluster"](**small)).run()


def test_where_nothing_else_costs_time_trials_run_in_whole_waves(simulator: dict[str, Any]) -> None:
    waves, epochs, seconds = 64 / (4 * 2), 10, 7200 / 720
    assert simulated(simulator, **STILL).now == pytest.approx(simulator["SEARCH_START"] + waves * epochs * seconds)


def test_a_slow_driver_is_all_that_counts(simulator: dict[str, Any]) -> None:
    end = simulated(simulator, **{**STILL, "trial_seconds": 1000, "epochs": 1}).now
    assert end == pytest.approx(64 * 1000 / (1 - simulator["SNAPSHOT_SHARE"]), abs=20)


def test_nothing_is_lost_with_a_node_but_the_epoch_it_was_in(simulator: dict[str, Any]) -> None:
    run = simulated(simulator, **{**STILL, "loss_per_node_hour": 5, "replace_seconds": 60})
    assert run.lost_nodes > 0
    assert run.failed == 0
    assert run.epochs_run == 64 * 10
    assert 0 < run.wasted <= run.lost_nodes * 2 * 10


def test_the_teacher_answers_once_for_an_epoch(simulator: dict[str, Any]) -> None:
    run = simulated(simulator, **{**STILL, "searches": 4})
    assert len(run.answered) == 10
    assert run.distilled == 64 / 2 * 10


def test_asha_stops_most_trials(simulator: dict[str, Any]) -> None:
    assert simulated(simulator, **{**STILL, "grace": 1}).epochs_run < 64 * 10 / 2


def test_a_seed_makes_the_same_study(simulator: dict[str, Any]) -> None:
    first, second = (simulator["report"](simulated(simulator, loss_per_node_hour=5)) for _ in range(2))
    assert first == second
