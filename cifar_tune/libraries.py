"""Packages that need help to be imported, or may be missing."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

from cifar_tune.errors import UnsupportedError

_OPERATORS_TORCHVISION_DECLARES_ON = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries_kept_alive: list[torch.library.Library] = []


def import_torchvision() -> ModuleType:
    """torchvision, also where its compiled operators cannot load.

    The wheel on the package index is built for CUDA. Beside a CPU build of torch its operator library does not
    load, and then `import torchvision` fails on the missing schema of `nms`. Declaring the two schemas first lets
    models, data sets and transforms import; none of them calls these operators.
    """
    if torch.version.cuda is None and not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in _OPERATORS_TORCHVISION_DECLARES_ON.values():
            library.define(schema)
        _libraries_kept_alive.append(library)
    return importlib.import_module("torchvision")


def need(module: str, extra: str) -> ModuleType:
    """An optional package; UnsupportedError says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise UnsupportedError(f"{name} is not installed: pip install -e '.[{extra}]' ({error})") from error
