"""INT8 variants: they answer as FP32 does, are a quarter of its size, and say what they leave out."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import small_data
from torch import nn

from cifar_tune.config import Precision, Variant
from cifar_tune.data.datasets import random_images
from cifar_tune.errors import UnsupportedError
from cifar_tune.models.registry import build_model, require_timm
from cifar_tune.runtimes import RUNTIMES, Runnable, Source, base
from cifar_tune.runtimes.onnxruntime import FILE, OPSET, quantise
from cifar_tune.runtimes.quantisation import CALIBRATION_IMAGES, calibration_data, convolution_share

IMAGES = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
NEEDS = {"onnxruntime": "onnxruntime", "openvino": "nncf", "aotinductor": "torchao"}
STATIC = [
    v
    for name, r in RUNTIMES.items()
    for v in r.variants
    if v.precision == "int8" and not v.single_thread and name != "tensorrt"
]
DYNAMIC = Variant(runtime="onnxruntime", precision="int8_dynamic")


def source(
    variant: Variant, folder: Path, model: nn.Module | None = None, calibration: torch.Tensor | None = IMAGES
) -> Source:
    pytest.importorskip(NEEDS.get(variant.runtime, "torch"), reason="pip install -e '.[int8]'")
    return Source(
        model=(build_model("resnet_tiny", 10) if model is None else model).eval(),
        variant=variant, device="cpu", example=torch.zeros(1, 3, 32, 32), threads=1, folder=folder,
        calibration=calibration,
    )  # fmt: skip


def load(variant: Variant, folder: Path, model: nn.Module | None = None, calibration: torch.Tensor | None = IMAGES):
    made, runtime = source(variant, folder, model, calibration), RUNTIMES[variant.runtime]
    folder.mkdir(exist_ok=True)
    if runtime.export is not None:
        runtime.export(made)
    return runtime.load(dataclasses.replace(made, calibration=None))


def answers(runnable: Runnable) -> torch.Tensor:
    with runnable.scope():
        return torch.cat([runnable.call(runnable.prepare_input(i[None])).float().clone() for i in IMAGES])


def off(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


@pytest.fixture(scope="module", params=STATIC, ids=lambda v: v.name)
def static_off(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> float:
    """How far the answers of a static variant are from those of FP32 eager."""
    folder = tmp_path_factory.mktemp("static")
    return off(answers(load(request.param, folder)), answers(load(Variant(), folder)))


def test_r32_static_int8_answers_nearly_as_fp32(static_off: float) -> None:
    assert static_off < 0.15


def test_static_int8_is_not_fp32(static_off: float) -> None:
    assert static_off > 1e-4


def test_static_int8_is_less_than_a_third_of_the_size(tmp_path: Path) -> None:
    model = build_model("resnet_narrow", 10)
    whole = load(Variant(runtime="onnxruntime"), tmp_path / "fp32", model)
    small = load(Variant(runtime="onnxruntime", precision="int8"), tmp_path / "int8", model)
    assert small.artifact_mb < 0.3 * whole.artifact_mb


@pytest.mark.parametrize("precision", ["int8", "int8_dynamic"])
def test_opset_of_a_quantised_file_is_that_of_the_export(precision: Precision, tmp_path: Path) -> None:
    load(Variant(runtime="onnxruntime", precision=precision), tmp_path)
    (file,) = tmp_path.rglob("model.onnx")
    opsets = {o.domain: o.version for o in pytest.importorskip("onnx").load(file).opset_import}
    assert opsets[""] == OPSET


@pytest.mark.parametrize("variant", STATIC, ids=lambda v: v.name)
def test_static_int8_without_training_images_is_unsupported(variant: Variant, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="calibrated on training images"):
        load(variant, tmp_path, calibration=IMAGES[:0])


def test_dynamic_int8_says_that_it_leaves_convolutions(tmp_path: Path) -> None:
    note = load(DYNAMIC, tmp_path, calibration=None).note
    assert note is not None
    assert "in convolutions" in note


@pytest.mark.parametrize("images", [1, 7, 12])
def test_calibration_takes_any_number_of_images(images: int, tmp_path: Path) -> None:
    got = load(Variant(runtime="onnxruntime", precision="int8"), tmp_path, calibration=IMAGES[:images])
    assert off(answers(got), answers(load(Variant(), tmp_path))) < 0.3


class Gated(nn.Module):
    """A convolution whose gate is all but constant, as that of an untrained MobileNetV3 is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.conv(images)
        gate = torch.sigmoid(3e-6 * features.mean((2, 3), keepdim=True))
        return self.fc((gate * features).relu().mean((2, 3)))


def test_activation_that_is_all_but_constant_does_not_stop_the_calibration(tmp_path: Path) -> None:
    model = Gated()
    got = answers(load(Variant(runtime="onnxruntime", precision="int8"), tmp_path, model))
    assert off(got, answers(load(Variant(), tmp_path, model))) < 0.1


class Linear(nn.Module):
    """A model without a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3072, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


def test_dynamic_int8_of_a_linear_model_leaves_nothing_out(tmp_path: Path) -> None:
    assert "convolutions" not in (load(DYNAMIC, tmp_path, Linear()).note or "")


def test_dynamic_int8_of_a_linear_model_is_small_and_right(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Linear()
    whole = load(Variant(runtime="onnxruntime"), tmp_path / "fp32", model)
    small = load(DYNAMIC, tmp_path / "int8", model)
    assert small.artifact_mb < 0.3 * whole.artifact_mb
    assert off(answers(small), answers(whole)) < 0.05


class Layer(nn.Module):
    """A convolution, and nothing after it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 32)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images).flatten(1)


class Total(nn.Module):
    """A model that is exported, and has nothing to quantise."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.exp(images).sum((2, 3))


@pytest.mark.parametrize(
    ("runtime", "precision", "model"),
    [("onnxruntime", "int8", Total), ("onnxruntime", "int8_dynamic", Total), ("openvino", "int8", Layer)],
)
def test_model_that_exports_but_has_nothing_to_quantise_is_unsupported(
    runtime: str, precision: Precision, model: type[nn.Module], tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match="nothing in this model that could be quantised"):
        load(Variant(runtime=runtime, precision=precision), tmp_path, model())


@pytest.fixture(scope="module")
def attending() -> nn.Module:
    """Two of ViT-Tiny's twelve layers: the others have the same operators."""
    return require_timm().VisionTransformer(
        img_size=32, patch_size=8, num_classes=10, embed_dim=192, depth=2, num_heads=3
    )  # fmt: skip


def test_onnxruntime_keeps_sums_and_softmax_of_a_model_with_attention_in_fp32(
    attending: nn.Module, tmp_path: Path
) -> None:
    load(Variant(runtime="onnxruntime", precision="int8"), tmp_path, attending)
    onnx = pytest.importorskip("onnx", reason="pip install -e '.[onnx]'")
    graph = onnx.load(next(tmp_path.rglob("model.onnx"))).graph
    quantised = {output for node in graph.node if node.op_type == "QuantizeLinear" for output in node.output}
    in_int8 = {
        node.output[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in quantised
    }
    readers = {node.op_type for node in graph.node if in_int8 & set(node.input)}
    assert {"Conv", "MatMul"} <= readers
    assert not readers & {"Add", "Gelu", "LayerNormalization", "Mul", "Softmax"}


def test_openvino_keeps_normalisations_of_a_model_with_attention_in_fp32(attending: nn.Module, tmp_path: Path) -> None:
    load(Variant(runtime="openvino", precision="int8"), tmp_path, attending)
    openvino = pytest.importorskip("openvino", reason="pip install -e '.[openvino]'")
    graph = openvino.Core().read_model(next(tmp_path.rglob("model.xml")))
    read = {
        port.get_node().get_type_name()
        for operator in graph.get_ops()
        if operator.get_type_name() == "FakeQuantize"
        for port in operator.output(0).get_target_inputs()
    }
    assert "MatMul" in read
    assert not read & {"Add", "Gelu", "MVN", "Softmax"}


def test_openvino_reads_the_image_in_fp32(tmp_path: Path) -> None:
    variant = Variant(runtime="openvino", precision="int8")
    load(variant, tmp_path)
    openvino = pytest.importorskip("openvino", reason="pip install -e '.[openvino]'")
    graph = openvino.Core().read_model(next(tmp_path.rglob("model.xml")))
    readers = {port.get_node().get_type_name() for port in graph.input(0).get_target_inputs()}
    assert readers == {"Convolution"}


@pytest.fixture(scope="module")
def for_tensorrt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the ONNX file from which TensorRT builds INT8: ONNX Runtime runs it, too."""
    folder = tmp_path_factory.mktemp("symmetric")
    quantise(source(Variant(runtime="onnxruntime", precision="int8"), folder), folder / FILE, symmetric=True)
    return folder


def test_int8_for_tensorrt_has_no_zero_points_and_no_biases_in_integers(for_tensorrt: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="pip install -e '.[onnx]'")
    graph = onnx.load(for_tensorrt / FILE).graph
    arrays = {w.name: onnx.numpy_helper.to_array(w) for w in graph.initializer}
    points = [arrays[n.input[2]] for n in graph.node if "QuantizeLinear" in n.op_type]
    assert points
    assert all(not p.any() and p.dtype == np.int8 for p in points)


def test_int8_for_tensorrt_answers_nearly_as_fp32(for_tensorrt: Path, tmp_path: Path) -> None:
    variant = Variant(runtime="onnxruntime", precision="int8")
    got = RUNTIMES["onnxruntime"].load(source(variant, for_tensorrt))
    assert off(answers(got), answers(load(Variant(), tmp_path))) < 0.15


@pytest.mark.parametrize(("overflows", "most"), [(True, 64), (False, 128)])
def test_weights_have_seven_bits_where_products_of_eight_would_overflow(
    overflows: bool, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx", reason="pip install -e '.[onnx]'")
    monkeypatch.setattr(base, "overflows_int8", lambda: overflows)
    load(Variant(runtime="onnxruntime", precision="int8"), tmp_path)
    weights = [onnx.numpy_helper.to_array(w) for w in onnx.load(tmp_path / "model.onnx").graph.initializer]
    largest = max(np.abs(w.astype(int)).max() for w in weights if w.dtype == np.int8 and w.size > 16)
    assert most - 2 <= largest <= most


@pytest.mark.parametrize("variant", STATIC, ids=lambda v: v.name)
def test_sums_of_int8_products_do_not_overflow(variant: Variant, tmp_path: Path) -> None:
    """Which those of 3,072 may, on processors without VNNI."""
    torch.manual_seed(0)
    model = Linear()
    got = load(variant, tmp_path / "int8", model)
    assert off(answers(got), answers(load(Variant(), tmp_path / "fp32", model))) < 0.05


def test_single_stray_pixel_does_not_set_the_range_of_all(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Linear()
    stray = IMAGES.clone()
    stray[3, 0, 5, 5] = 1000
    got = load(Variant(runtime="onnxruntime", precision="int8"), tmp_path / "int8", model, stray)
    assert off(answers(got), answers(load(Variant(), tmp_path / "fp32", model))) < 0.1


def test_share_of_convolutions_of_a_convolutional_model() -> None:
    assert convolution_share(build_model("resnet18", 10).eval(), torch.zeros(1, 3, 32, 32)) > 0.99


def test_calibration_sees_images_from_all_of_the_training_set() -> None:
    data = small_data(600)
    rows = np.linspace(0, 599, CALIBRATION_IMAGES).astype(int)
    assert np.array_equal(calibration_data(data).train_images, data.train_images[rows])


def test_where_latency_alone_is_measured_random_images_calibrate() -> None:
    data = random_images((3, 8, 8))
    assert np.array_equal(calibration_data(data).train_images, data.test_images[:CALIBRATION_IMAGES])
