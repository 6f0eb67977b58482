"""Weights that a user brings for a model's trials to begin with (R21), from a file or a Hugging Face model folder.

Only safetensors are read. What a Vision Transformer learnt at another patch or image size is resampled by timm; a
classifier for other classes stays behind, and that of the new ones is fresh.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifar_tune.config import check
from cifar_tune.models.registry import architecture, build_model, require_timm
from cifar_tune.models.weights import read_weights, same_weights

FOLDER_WEIGHTS = "model.safetensors"
FOLDER_CONFIG = "config.json"
PREFIXES = ("fc.", "classifier.", "head.")
"""Of classifiers."""

TRANSFORMERS_TO_TIMM = {
    r"^(vit\.)?embeddings\.cls_token$": "cls_token",
    r"^(vit\.)?embeddings\.position_embeddings$": "pos_embed",
    r"^(vit\.)?embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"^(vit\.)?encoder\.layer\.(\d+)\.attention\.attention\.(query|key|value)\.": r"blocks.\2.attn.\3.",
    r"^(vit\.)?encoder\.layer\.(\d+)\.attention\.output\.dense\.": r"blocks.\2.attn.proj.",
    r"^(vit\.)?encoder\.layer\.(\d+)\.intermediate\.dense\.": r"blocks.\2.mlp.fc1.",
    r"^(vit\.)?encoder\.layer\.(\d+)\.output\.dense\.": r"blocks.\2.mlp.fc2.",
    r"^(vit\.)?encoder\.layer\.(\d+)\.layernorm_before\.": r"blocks.\2.norm1.",
    r"^(vit\.)?encoder\.layer\.(\d+)\.layernorm_after\.": r"blocks.\2.norm2.",
    r"^(vit\.)?layernorm\.": "norm.",
    r"^classifier\.": "head.",
}
"""Names in a checkpoint of transformers' ViT -> timm's."""


def pretrained_model(name: str, classes: int, path: Path, seed: int = 0) -> nn.Module:
    """A model with the weights of a file or folder; its classifier is fresh where theirs is for other classes.

    Args:
        path: a safetensors file, of this package or, for a Vision Transformer, of timm; or a folder with
            `model.safetensors` and `config.json`, as timm and transformers save a ViT.

    Raises:
        ValueError: nothing is there, or it is of another architecture; the message is one line.
    """
    file = path / FOLDER_WEIGHTS if path.is_dir() else path
    check(file.is_file(), "pretrained", str(path), f"a safetensors file, or a folder with {FOLDER_WEIGHTS}")
    state = read_weights(file)
    model = build_model(name, classes, seed)
    if architecture(name).attends:
        config = file.with_name(FOLDER_CONFIG)
        if path.is_dir() or config.exists():
            _check_heads(model, config)
        state = _resampled(_as_timm(state), model)
    own = model.state_dict()
    kept = {k: v for k, v in state.items() if not k.startswith(PREFIXES) or v.shape == _shape(own, k)}
    classifier = {k: v for k, v in own.items() if k.startswith(PREFIXES) and k not in kept}
    same_weights(own, kept | classifier, file)
    model.load_state_dict(kept | classifier)
    return model


def _shape(state: dict[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None


def _check_heads(model: nn.Module, config: Path) -> None:
    """The number of heads shows in no weight's shape."""
    try:
        about: dict[str, Any] = json.loads(config.read_text())
        heads = about.get("num_attention_heads")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{config} cannot be read: {error}") from error
    own = model.blocks[0].attn.num_heads  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
    if heads not in (None, own):
        raise ValueError(f"{config.parent} is of another architecture: {heads} attention heads for {own}")


def _as_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of timm for those of transformers; whatever else is left as it is."""
    if not any(k.endswith("embeddings.cls_token") for k in state):
        return state
    renamed = {_timm_name(k): v for k, v in state.items() if "pooler." not in k}
    for name in [k for k in renamed if ".attn.query." in k]:
        parts = [renamed.pop(name.replace("query", part), None) for part in ("query", "key", "value")]
        renamed[name.replace("query", "qkv")] = torch.cat([p for p in parts if p is not None])
    return renamed


def _timm_name(name: str) -> str:
    for pattern, replacement in TRANSFORMERS_TO_TIMM.items():
        if re.search(pattern, name):
            return re.sub(pattern, replacement, name)
    return name


def _resampled(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Patches and positions at this model's sizes; weights that fit no ViT come back as they are."""
    try:
        return require_timm().checkpoint_filter_fn(state, model)
    except (RuntimeError, AttributeError, KeyError, AssertionError):
        return state
