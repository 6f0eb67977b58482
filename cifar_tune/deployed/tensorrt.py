"""The model as a TensorRT engine, built for the kind of GPU that the card names."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

trt: Any = importlib.import_module("tensorrt")


def bound(file: Path, image: torch.Tensor) -> tuple[Any, torch.Tensor, object]:
    """An engine's execution context, the logits that each execution overwrites, and what must outlive the context.

    Args:
        image: what each execution reads: float32 (1, 3, H, W) on the GPU, contiguous.
    """
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(file.read_bytes())
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    (input_name,) = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
    (output_name,) = [n for n in names if n != input_name]
    dtype = torch.float16 if engine.get_tensor_dtype(output_name) == trt.float16 else torch.float32
    logits = torch.empty(tuple(engine.get_tensor_shape(output_name)), dtype=dtype, device="cuda")
    context.set_tensor_address(input_name, image.data_ptr())
    context.set_tensor_address(output_name, logits.data_ptr())
    return context, logits, (runtime, engine)


def load(card: dict[str, Any], folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Images float32 (1, 3, H, W) -> logits (1, classes)."""
    image = torch.zeros(1, 3, card["image_size"], card["image_size"], device="cuda")
    context, logits, keeps = bound(folder / "model.engine", image)
    stream = torch.cuda.Stream()

    def classify(images: np.ndarray) -> np.ndarray:
        with torch.cuda.stream(stream):
            image.copy_(torch.from_numpy(images))
            context.execute_async_v3(stream.cuda_stream)
            return logits.float().cpu().numpy()

    classify.keeps = keeps  # pyright: ignore[reportFunctionMemberAccess] - held as long as it
    return classify
