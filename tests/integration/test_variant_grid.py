"""The second sweep on models that a user brings: what it refuses, and what it leaves."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cifar_tune.config import DataConfig
from cifar_tune.data.datasets import ImageData
from cifar_tune.models.registry import build_model
from cifar_tune.models.weights import save_weights
from sweeps import variant_grid

OWN = """
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self, answer=None):
        super().__init__()
        self.conv, self.fc, self.answer = nn.Conv2d(1, 4, 3), nn.Linear(4, 5), answer

    def forward(self, images):
        logits = self.fc(self.conv(images).mean((2, 3)))
        return logits if self.answer is None else self.answer(logits)


def make():
    return Small()


def no_module():
    return "a string"


def raises():
    raise RuntimeError("no weights\\nat hand")


def a_dict():
    return Small(lambda logits: {"logits": logits})


def features():
    return Small(lambda logits: logits[0])


def branches():
    return Small(lambda logits: logits if logits.isfinite().all() else -logits)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a user's own module, and the interpreter's state as it was afterwards."""
    (tmp_path / "own_models.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("own_models", None)


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the sweep with wrong arguments; returns the one line it says."""

    def run(*argv: str) -> str:
        with pytest.raises(SystemExit) as ended:
            variant_grid.main([*argv, "--preset", "quick"])
        out, err = capsys.readouterr()
        assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
        assert not (here / "ray_results").exists()
        return err

    return run


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("vgg", "model 'vgg' is unknown; allowed are resnet18"),
        ("nowhere:make", "model 'nowhere:make' cannot be imported"),
        ("own_models:absent", "cannot be imported: module 'own_models' has no attribute 'absent'"),
        ("own_models:raises", "model 'own_models:raises' raises RuntimeError: no weights at hand"),
        ("own_models:no_module", "gives str; allowed is a torch.nn.Module"),
        ("own_models:make", "the model refuses an image of shape 3 32 32"),
    ],
)
def test_wrong_model(refused: Callable[..., str], model: str, line: str) -> None:
    assert line in refused("--model", model)


@pytest.mark.parametrize(
    ("function", "line"),
    [
        ("a_dict", "the model answers with dict; allowed is a tensor of logits"),
        ("features", "the model answers with shape (5,); allowed is (1, classes)"),
    ],
)
def test_wrong_answer(refused: Callable[..., str], function: str, line: str) -> None:
    assert line in refused("--model", f"own_models:{function}", "--input-shape", "1", "8", "8")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "run and model is (None, None); allowed is one of the two"),
        (("--run", "a", "--model", "resnet18"), "allowed is one of the two"),
        (("--run", "absent"), "run is 'absent'; allowed is a path, or a run in ray_results: none there"),
        (("--model", "resnet18", "--checkpoint", "absent"), "allowed is an existing safetensors file"),
        (("--model", "resnet18", "--runtimes", "abacus"), "runtime is 'abacus'; allowed is torch, cudagraph"),
        (
            ("--model", "resnet18", "--runtimes", "onnxruntime", "--variants", "openvino-int8"),
            "variant is 'openvino-int8'; allowed is torch-fp32, torch-fp32-channels_last, ",
        ),
        (("--model", "resnet18", "--input-shape", "3", "0", "8"), "input shape is (3, 0, 8)"),
        (("--model", "resnet18", "--input-shape", "3", "8", "8", "--data", "digits"), "only without --data"),
        (("--model", "resnet18", "--image-size", "16"), "image size is 16; allowed is only with --data"),
        (
            ("--model", "resnet18", "--mean", "0", "0", "0", "--std", "1", "1", "1"),
            "mean is (0.0, 0.0, 0.0); allowed is only",
        ),
        (("--model", "resnet18", "--data", "digits", "--mean", "0", "0", "0"), "allowed is both or neither"),
        (
            ("--model", "resnet18", "--data", "digits", "--mean", "0", "0", "0", "--std", "1", "0", "1"),
            "std is (1.0, 0.0",
        ),
        (("--model", "resnet18", "--device", "cuda"), "PyTorch finds no CUDA device here"),
    ],
)
def test_wrong_options(refused: Callable[..., str], arguments: tuple[str, ...], line: str) -> None:
    assert line in refused(*arguments)


def test_file_that_is_no_checkpoint(refused: Callable[..., str], here: Path) -> None:
    (here / "w.safetensors").write_bytes(b"nothing of the kind")
    assert "is not a checkpoint" in refused("--model", "resnet_narrow", "--checkpoint", "w.safetensors")


def test_checkpoint_of_another_architecture_names_the_keys(refused: Callable[..., str], here: Path) -> None:
    save_weights(build_model("resnet_narrow", 10), here / "w.safetensors")
    said = refused("--model", "resnet18", "--checkpoint", "w.safetensors")
    assert "is of another architecture: missing bn1.bias" in said
    assert "unexpected features.0.weight" in said


def test_checkpoint_of_other_classes_than_the_data_that_would_calibrate_it(
    refused: Callable[..., str], here: Path
) -> None:
    save_weights(build_model("resnet_narrow", 3), here / "w.safetensors")
    said = refused("--model", "resnet_narrow", "--checkpoint", "w.safetensors", "--data", "digits")
    assert "allowed is one with the data's 10 classes" in said


def test_registered_model_without_weights_and_data_has_classes(here: Path) -> None:
    _, (target,), _ = variant_grid._of_model(variant_grid.GridConfig(model="mobilenet_v3_small"))
    assert target.classes == 10


def of_model(**settings: Any) -> ImageData:
    """The images on which a model of the user's own is measured."""
    prepared, _, _ = variant_grid._of_model(variant_grid.GridConfig(model="resnet_tiny", data="digits", **settings))
    return prepared.data


def test_images_are_resized_as_asked_for(here: Path) -> None:
    assert of_model(images=DataConfig(image_size=12)).test_images.shape[1:] == (12, 12, 3)


def test_images_are_normalised_as_asked_for(here: Path) -> None:
    data = of_model(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert (data.mean, data.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def test_other_normalisation_is_not_taken_for_the_same_data(here: Path) -> None:
    assert of_model(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)).fingerprint != of_model().fingerprint


def swept(function: str, *more: str) -> tuple[str, pd.DataFrame]:
    """The report on a user's own model, without data, and its rows by variant."""
    command = [sys.executable, variant_grid.__file__, "--model", f"own_models:{function}", *more]
    options = ["--input-shape", "1", "8", "8", "--preset", "chaos", "--name", function, "--no-dashboard",
               "--runtimes", "onnxruntime", "--variants", "onnxruntime-int8"]  # fmt: skip
    ended = subprocess.run([*command, *options], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
    report = Path(ended.stdout.strip().splitlines()[-1])
    return report.read_text(), pd.read_parquet(report.parent / "latency.parquet").set_index("variant")


def test_own_model_without_data_has_latencies_alone(here: Path) -> None:
    report, rows = swept("make")
    assert "without labelled test images, accuracy is unknown" in report
    assert rows.test_accuracy.isna().all()
    assert rows.loc["torch-fp32"].p50_ms > 0
    assert set(rows.index) == {"torch-fp32", "onnxruntime-int8"}
    _, again = swept("make", "--resume")
    assert again.p50_ms.equals(rows.p50_ms)


def test_model_that_cannot_be_quantised_is_a_row_with_the_reason(here: Path) -> None:
    """A branch on a value is beyond every exporter, and INT8 begins with an export."""
    _, rows = swept("branches")
    assert rows.loc["torch-fp32"].status == "ok"
    assert rows.loc["onnxruntime-int8"].status == "failed"
    assert "data-dependent" in rows.loc["onnxruntime-int8"].error
