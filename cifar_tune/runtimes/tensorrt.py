"""TensorRT, from the ONNX file: an engine built for one image on this GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cifar_tune.config import Variant
from cifar_tune.errors import UnsupportedError
from cifar_tune.libraries import need
from cifar_tune.runtimes.base import Runnable, Runtime, Source, file_mb, wait_for
from cifar_tune.runtimes.onnxruntime import export_onnx, quantise

FILE = "model.engine"


def export(source: Source) -> Path:
    """See `Runtime`."""
    trt = _require(source)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    # strongly typed: the precision of each layer is the file's
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    onnx = _onnx(source, source.folder / "model.onnx")
    if not parser.parse_from_file(str(onnx)):
        raise RuntimeError(f"TensorRT cannot read the model: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError("TensorRT could not build an engine")
    for file in source.folder.iterdir():  # the engine holds all of it
        file.unlink()
    (source.folder / FILE).write_bytes(engine)
    return source.folder / FILE


def _onnx(source: Source, path: Path) -> Path:
    return quantise(source, path, symmetric=True) if source.variant.precision == "int8" else export_onnx(source, path)


def load(source: Source) -> Runnable:
    """See `Runtime`. The answer is overwritten by the next call."""
    _require(source)
    from cifar_tune.deployed.tensorrt import bound  # it needs TensorRT

    image = source.example.contiguous().clone()
    context, logits, keeps = bound(source.folder / FILE, image)
    own = torch.cuda.Stream()  # on the default stream TensorRT would synchronise in each call

    def call(images: Tensor) -> Tensor:
        current = torch.cuda.current_stream()
        image.copy_(images)
        own.wait_stream(current)
        context.execute_async_v3(own.cuda_stream)
        current.wait_stream(own)
        return logits

    # in an attribute that no function declares
    call.keeps = keeps  # pyright: ignore[reportFunctionMemberAccess] - held as long as it
    return Runnable(
        call=call,
        synchronize=wait_for("cuda"),
        prepare_input=Tensor.contiguous,
        artifact_mb=file_mb(source.folder),
    )


def _require(source: Source) -> Any:
    if source.device != "cuda":
        raise UnsupportedError("TensorRT needs a CUDA device")
    return need("tensorrt", "tensorrt")


RUNTIME = Runtime(
    export=export,
    load=load,
    modules=("tensorrt", "torch"),
    variants=(
        Variant(runtime="tensorrt"),
        Variant(runtime="tensorrt", precision="fp16_weights"),
        Variant(runtime="tensorrt", precision="int8"),
    ),
)
