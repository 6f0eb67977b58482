"""OpenVINO on Intel CPUs, set for latency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cifar_tune.config import Variant
from cifar_tune.errors import UnsupportedError
from cifar_tune.libraries import need
from cifar_tune.runtimes.base import Runnable, Runtime, Source, file_mb, quiet
from cifar_tune.runtimes.quantisation import NOTHING_TO_QUANTISE

FILE = "model.xml"
ATTENTION = {"ScaledDotProductAttention", "Softmax"}
"""Operators that only a model with attention has, since a classifier answers with logits."""


def export(source: Source) -> Path:
    """See `Runtime`."""
    _require_cpu(source)
    ov = need("openvino", "openvino")
    with torch.no_grad(), quiet():
        model = ov.convert_model(source.module(), example_input=source.example, input=[tuple(source.example.shape)])
    if source.variant.precision == "int8":
        model = _quantised(model, source)
    ov.save_model(model, source.folder / FILE, compress_to_fp16=False)
    return source.folder / FILE


def _quantised(model: Any, source: Source) -> Any:
    """An OpenVINO model in static INT8, by NNCF.

    What reads the image stays FP32, and ranges hold all calibration values: with NNCF's own choice, the mean of the
    images' ranges and 8 bits for the image too, answers were 1.6 to 3.5 times as far off. A model with attention needs
    to be called a transformer: one that was not gave useless answers (docs/log.md).
    """
    nncf, ranges = need("nncf", "int8"), need("nncf.quantization.range_estimator", "int8")
    images = [image.contiguous().numpy() for image in source.calibrating()]
    reads_image = [port.get_node().get_friendly_name() for port in model.input(0).get_target_inputs()]
    attends = bool(ATTENTION & {operator.get_type_name() for operator in model.get_ops()})
    with quiet():
        model = nncf.quantize(
            model,
            nncf.Dataset(images),
            subset_size=len(images),
            model_type=nncf.ModelType.TRANSFORMER if attends else None,
            ignored_scope=nncf.IgnoredScope(names=reads_image, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # weights of 7 bits where products of 8 would overflow
                overflow_fix=nncf.OverflowFix.ENABLE if source.in_seven_bits else None,
                activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX,
            ),
        )
    if not any(operator.get_type_name() == "FakeQuantize" for operator in model.get_ops()):
        raise UnsupportedError(NOTHING_TO_QUANTISE)
    return model


def load(source: Source) -> Runnable:
    """See `Runtime`. The answer is overwritten by the next call."""
    _require_cpu(source)
    ov = need("openvino", "openvino")
    from cifar_tune.deployed.openvino import compile_settings  # it needs OpenVINO

    settings = compile_settings(source.variant.precision, source.threads)
    compiled = ov.Core().compile_model(source.folder / FILE, "CPU", settings)
    request = compiled.create_infer_request()
    # its own tensors, bound once: dispatching others in each call costs a quarter of MobileNetV3-Small's time
    image, logits = (torch.from_numpy(t.data) for t in (request.get_input_tensor(), request.get_output_tensor()))

    def call(images: Tensor) -> Tensor:
        image.copy_(images)
        request.infer()
        return logits

    return Runnable(
        call=call,
        prepare_input=Tensor.contiguous,
        artifact_mb=file_mb(source.folder),
        note=source.seven_bits_note,
    )


def _require_cpu(source: Source) -> None:
    if source.device != "cpu":
        raise UnsupportedError("OpenVINO has no CUDA device")


RUNTIME = Runtime(
    export=export,
    load=load,
    modules=("openvino",),
    variants=(
        Variant(runtime="openvino"),
        Variant(runtime="openvino", single_thread=True),
        Variant(runtime="openvino", precision="bf16"),
        Variant(runtime="openvino", precision="int8"),
        Variant(runtime="openvino", precision="int8", single_thread=True),
    ),
)
