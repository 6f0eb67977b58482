"""Vision Transformers, and weights that a user brings (R21); those of transformers are in integration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from image_files import write_classes
from safetensors.torch import save_file

from cifar_tune.config import DataConfig
from cifar_tune.models.pretrained import pretrained_model
from cifar_tune.models.registry import build_model, require_timm
from cifar_tune.models.weights import load_weights, save_weights
from cifar_tune.study import StudyConfig
from sweeps.steps.checks import prepare

SMALL = "vit_tiny_patch8_64"


def timm_file(path: Path) -> Path:
    """ViT-Tiny as timm ships it: patches of 16 pixels, images of 224, 21 classes."""
    model = require_timm().vit_tiny_patch16_224(num_classes=21)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    return path


def test_r21_vision_transformer_takes_images_of_another_size() -> None:
    model = build_model(SMALL, 2).eval()
    assert [model(torch.zeros(1, 3, side, side)).shape for side in (64, 96)] == [(1, 2), (1, 2)]


def test_timm_weights_of_another_patch_and_image_size_are_resampled(tmp_path: Path) -> None:
    model = pretrained_model(SMALL, 2, timm_file(tmp_path / "timm.safetensors"))
    state = model.state_dict()
    assert state["patch_embed.proj.weight"].shape[2:] == (8, 8)
    assert state["pos_embed"].shape[1] == 65


def test_own_checkpoint_of_a_convolutional_model_is_taken_whole(tmp_path: Path) -> None:
    before = build_model("resnet_tiny", 4, seed=5)
    save_weights(before, tmp_path / "w.safetensors")
    after = pretrained_model("resnet_tiny", 4, tmp_path / "w.safetensors").state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.state_dict().items())


def test_what_is_written_of_pretrained_weights_loads_as_a_checkpoint(tmp_path: Path) -> None:
    save_weights(pretrained_model(SMALL, 2, timm_file(tmp_path / "timm.safetensors")), tmp_path / "own.safetensors")
    load_weights(build_model(SMALL, 2), tmp_path / "own.safetensors")


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save_weights(build_model("resnet_tiny", 4), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="another architecture"):
        pretrained_model("speednet", 4, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="another architecture"):
        pretrained_model(SMALL, 4, tmp_path / "w.safetensors")


def test_pickles_are_never_read(tmp_path: Path) -> None:
    torch.save(build_model("resnet_tiny", 4).state_dict(), tmp_path / "w.bin")
    with pytest.raises(ValueError, match="not a readable safetensors checkpoint"):
        pretrained_model("resnet_tiny", 4, tmp_path / "w.bin")
    with pytest.raises(ValueError, match="allowed is a safetensors file, or a folder"):
        pretrained_model("resnet_tiny", 4, tmp_path)


def study(folder: Path, weights: Path, image_size: int = 16, **changes: Any) -> StudyConfig:
    settings: dict[str, Any] = {
        "data": DataConfig(source=str(folder), image_size=image_size), "teacher": "resnet_tiny",
        "students": ("resnet_tiny",), "epochs": 1, "teacher_samples": 1, "pretrained": (f"resnet_tiny={weights}",),
        "storage": str(folder.parent / "runs"), "name": "run", "dashboard": False, **changes,
    }  # fmt: skip
    return StudyConfig(**settings)


def test_model_that_cannot_take_the_images_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    write_classes(tmp_path / "pets", {"train/cat": 4, "train/dog": 4, "test/cat": 2, "test/dog": 2})
    with pytest.raises(ValueError, match="refuses an image of shape 3 30 30"):
        prepare(study(tmp_path / "pets", tmp_path, teacher=SMALL, image_size=30, pretrained=()))
    assert not (tmp_path / "runs").exists()


def test_attention_is_not_pruned(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allowed is convolutional models"):
        prepare(study(folder, tmp_path, teacher=SMALL, image_size=64, pretrained=(), prune=(0.5,)))


@pytest.mark.parametrize("given", ["resnet18=w", "resnet_tiny", "resnet_tiny="])
def test_pretrained_names_a_model_of_the_study(given: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pretrained is .*allowed is MODEL=PATH, MODEL one of resnet_tiny"):
        study(folder, tmp_path, pretrained=(given,))
