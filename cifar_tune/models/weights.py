"""Checkpoints: safetensors files, which hold only data, and how they fit a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from cifar_tune.store import sha256_file


def save_weights(model: nn.Module, path: Path, trained_on: str | None = None) -> None:
    """Write the state dict as safetensors: only data, nothing that could run when it is read.

    Args:
        trained_on: fingerprint of the data, kept in the file.
    """
    from safetensors.torch import save_file

    about = {} if trained_on is None else {"trained_on": trained_on}
    save_file({k: v.detach().contiguous().cpu() for k, v in model.state_dict().items()}, path, about)


def trained_on(path: Path) -> str | None:
    """Fingerprint of the data that a checkpoint was trained on; None where its file does not say."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("trained_on")


def load_weights(model: nn.Module, path: Path, sha256: str | None = None) -> None:
    """Load safetensors into `model`; ValueError says what does not fit.

    Args:
        sha256: what the file must hash to; None: whatever it does.
    """
    if sha256 is not None and path.is_file() and sha256_file(path) != sha256:
        raise ValueError(f"{path} is damaged: it does not match its checksum")
    state = read_weights(path)
    same_weights(model.state_dict(), state, path)
    model.load_state_dict(state)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; ValueError where it is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors checkpoint: {error}") from error


def same_weights(own: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path) -> None:
    """ValueError unless a checkpoint has the names and shapes of a model's own weights; the message is one line."""
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        raise ValueError(f"{path} is of another architecture: missing {_few(missing)}; unexpected {_few(unexpected)}")
    wrong = [f"{k} {tuple(state[k].shape)} for {tuple(own[k].shape)}" for k in own if state[k].shape != own[k].shape]
    if wrong:
        raise ValueError(f"{path} has weights of other shapes (another number of classes?): {_few(wrong)}")


def checkpoint_classes(path: Path) -> int:
    """Number of classes of a checkpoint: the length of its last bias. ValueError where there is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            biases = [k for k in file.keys() if k.startswith(("fc", "classifier", "head")) and k.endswith("bias")]  # noqa: SIM118 - not a dict
            return int(file.get_slice(biases[-1]).get_shape()[0])
    except (SafetensorError, OSError, IndexError) as error:
        raise ValueError(f"{path} is not a checkpoint of a registered model: {error}") from error


def _few(names: list[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return (", ".join(names[:shown]) or "nothing") + more
