"""What is measured runs as what is shipped does: each runtime takes its options from the file that is shipped."""

import ast
import dataclasses
import inspect
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from shipped import SIDE, source

from cifar_tune import runtimes
from cifar_tune.config import Precision, Variant
from cifar_tune.deployed import torchscript as shipped_torchscript
from cifar_tune.models.registry import build_model
from cifar_tune.models.weights import save_weights
from cifar_tune.runtimes import RUNTIMES, Runnable
from cifar_tune.shipping.candidate import deploy

OPTIONS = {
    "torch": {"autocast", "compiled"},
    "cudagraph": {"capture"},
    "onnxruntime": {"PROVIDERS", "session_options"},
    "openvino": {"compile_settings"},
    "tensorrt": {"bound"},
}
"""Runtime -> what it takes from the file of its name in `deployed`."""


@pytest.mark.parametrize("name", OPTIONS)
def test_runtime_takes_its_options_from_what_is_shipped(name: str) -> None:
    tree = ast.parse(Path(runtimes.__file__).with_name(f"{name}.py").read_text())
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == f"cifar_tune.deployed.{name}"]
    assert {alias.name for node in nodes for alias in node.names} == OPTIONS[name]
    defined = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    assert not defined & OPTIONS[name]


def measured(variant: Variant, folder: Path) -> Runnable:
    """The variant as it is measured; the folder gets what is shipped of it."""
    weights = folder / "w.safetensors"
    save_weights(build_model("resnet_tiny", 3), weights)
    deploy(source(folder / "candidate", weights, variant), folder)
    return RUNTIMES[variant.runtime].load(source(folder / "candidate", weights, variant))


def card(variant: Variant) -> dict[str, Any]:
    return {"device": "cpu", "threads": 1, "variant": dataclasses.asdict(variant), "image_size": SIDE}


def held(function: Callable[..., object], name: str) -> Any:
    """What a function keeps under a name."""
    return inspect.getclosurevars(function).nonlocals[name]


def test_onnxruntime_is_measured_with_the_options_it_is_shipped_with(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="pip install -e '.[onnx]'")
    from cifar_tune.deployed import onnxruntime as shipped

    variant = Variant(runtime="onnxruntime")
    runnable = measured(variant, tmp_path)
    sessions = held(runnable.call, "session"), held(shipped.load(card(variant), tmp_path), "session")

    def options(session: Any) -> tuple[object, ...]:
        found = session.get_session_options()
        names = ("intra_op_num_threads", "inter_op_num_threads", "graph_optimization_level", "log_severity_level")
        spinning = found.get_session_config_entry("session.force_spinning_stop")
        return (*(getattr(found, name) for name in names), spinning, session.get_providers())

    assert options(sessions[0]) == options(sessions[1])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_openvino_is_measured_with_the_settings_it_is_shipped_with(precision: Precision, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="pip install -e '.[openvino]'")
    from cifar_tune.deployed import openvino as shipped

    variant = Variant(runtime="openvino", precision=precision)
    runnable = measured(variant, tmp_path)
    own, other = held(runnable.call, "request"), held(shipped.load(card(variant), tmp_path), "request")
    for name in shipped.compile_settings(precision, 1):
        assert own.get_compiled_model().get_property(name) == other.get_compiled_model().get_property(name)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_measured_as_it_is_shipped(tmp_path: Path) -> None:
    """The same operators, though a file holds the model in a portable form."""
    variant = Variant(runtime="torchscript")
    runnable = measured(variant, tmp_path)
    own, other = runnable.call, held(shipped_torchscript.load(card(variant), tmp_path), "model")
    kinds = [Counter(node.kind() for node in script.inlined_graph.nodes()) for script in (own, other)]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_torch_is_measured_in_the_precision_it_is_shipped_in(precision: Precision, tmp_path: Path) -> None:
    from cifar_tune.deployed import torch as shipped

    variant = Variant(precision=precision)
    runnable = measured(variant, tmp_path)
    image = torch.zeros(1, 3, SIDE, SIDE)
    with runnable.scope():
        own = runnable.call(runnable.prepare_input(image))
    assert torch.equal(own.float(), torch.from_numpy(shipped.load(card(variant), tmp_path)(image.numpy())))
