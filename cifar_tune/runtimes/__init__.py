"""RUNTIMES: name -> how a model becomes a callable. Adding one is one file and one line here."""

from __future__ import annotations

from cifar_tune.errors import UnsupportedError
from cifar_tune.runtimes import aotinductor, cudagraph, onnxruntime, openvino, tensorrt, torchscript
from cifar_tune.runtimes import torch as torch_runtime
from cifar_tune.runtimes.base import Runnable, Runtime, Source

__all__ = ["RUNTIMES", "Runnable", "Runtime", "Source", "UnsupportedError"]

RUNTIMES: dict[str, Runtime] = {
    "torch": torch_runtime.RUNTIME,
    "cudagraph": cudagraph.RUNTIME,
    "torchscript": torchscript.RUNTIME,
    "aotinductor": aotinductor.RUNTIME,
    "onnxruntime": onnxruntime.RUNTIME,
    "openvino": openvino.RUNTIME,
    "tensorrt": tensorrt.RUNTIME,
}
