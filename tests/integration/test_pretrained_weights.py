"""Weights that a user brings (R21): those that transformers saved, and a study that begins with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from cifar_tune.config import DataConfig
from cifar_tune.libraries import import_torchvision
from cifar_tune.models.pretrained import pretrained_model
from cifar_tune.models.registry import build_model
from cifar_tune.models.weights import save_weights
from cifar_tune.store import sha256_file
from cifar_tune.study import StudyConfig
from sweeps import teacher_search

SMALL = "vit_tiny_patch8_64"


@pytest.fixture(scope="module")
def huggingface(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder as transformers saves it, and its model: ViT-Tiny for 64x64 images and 5 classes."""
    import_torchvision()  # in our way: transformers imports it
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    config = transformers.ViTConfig(
        hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768,
        image_size=64, patch_size=8, num_labels=5,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(config).eval()
    folder = tmp_path_factory.mktemp("hub") / "vit"
    model.save_pretrained(folder)
    return folder, model


def test_folder_of_transformers_answers_as_transformers_does(huggingface: tuple[Path, Any]) -> None:
    folder, theirs = huggingface
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours = pretrained_model(SMALL, 5, folder).eval()(images)
        assert torch.allclose(ours, theirs(images).logits, atol=1e-3)  # their norms have another epsilon


def test_classifier_for_other_classes_is_fresh(huggingface: tuple[Path, Any]) -> None:
    ours = pretrained_model(SMALL, 2, huggingface[0], seed=3).state_dict()
    fresh = build_model(SMALL, 2, seed=3).state_dict()
    assert torch.equal(ours["head.weight"], fresh["head.weight"])
    assert not torch.equal(ours["blocks.0.attn.qkv.weight"], fresh["blocks.0.attn.qkv.weight"])


def test_folder_with_other_heads_is_refused(huggingface: tuple[Path, Any], tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((huggingface[0] / name).read_bytes())
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"num_attention_heads": 3', '"num_attention_heads": 6'))
    for given in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(ValueError, match="6 attention heads for 3"):
            pretrained_model(SMALL, 5, given)


def study(folder: Path, weights: Path) -> StudyConfig:
    return StudyConfig(
        data=DataConfig(source=str(folder), image_size=16), teacher="resnet_tiny", students=("resnet_tiny",), epochs=1,
        teacher_samples=1,
        pretrained=(f"resnet_tiny={weights}",), storage=str(folder.parent / "runs"), name="run", dashboard=False,
    )  # fmt: skip


def test_trials_begin_with_the_runs_own_copy_of_the_weights(folder: Path, tmp_path: Path) -> None:
    save_weights(build_model("resnet_tiny", 9, seed=5), tmp_path / "w.safetensors")
    teacher_search.run(study(folder, tmp_path / "w.safetensors"))
    kept = tmp_path / "runs" / "run" / "pretrained" / "resnet_tiny.safetensors"
    trials = pd.read_parquet(tmp_path / "runs" / "run" / "trials.parquet")
    assert list(trials["start_sha256"]) == [sha256_file(kept)]
