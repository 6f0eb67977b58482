"""ONNX Runtime: its CPU provider, or its CUDA provider with inputs and outputs bound to the device."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cifar_tune.config import Variant
from cifar_tune.errors import UnsupportedError
from cifar_tune.libraries import need
from cifar_tune.runtimes.base import Runnable, Runtime, Source, file_mb, quiet, wait_for
from cifar_tune.runtimes.quantisation import NOTHING_TO_QUANTISE, convolution_share, left_out

FILE = "model.onnx"
OPSET = 20
"""Of ONNX's operators: the exporter's own."""
QUANTISED = ("int8", "int8_dynamic")
CALIBRATION_STEP = 8
"""Images whose activations are in memory at a time."""
PERCENTILE = 99.99
"""Of a tensor's calibration values that its INT8 range covers. The range of all of them follows the rarest ones, and
cost a distilled MobileNetV3-Small a point more (docs/log.md). It is found to 1/2048 of the largest value in the first
step of images."""
TENSORRT_TYPES = ["Conv", "Gemm", "MatMul", "Add"]
"""Operators that TensorRT gains by computing in INT8: what has weights, and the sums between them."""
ATTENDING_TYPES = ["Conv", "Gemm", "MatMul"]
"""Operators that read INT8 in a model with attention. With its sums, softmax and normalisations in INT8 as well, the
answers of a Vision Transformer were 70 % off, and it was slower (docs/log.md)."""


def export(source: Source) -> Path:
    """See `Runtime`."""
    _provider(source)  # before the work
    made = source.folder / FILE
    if source.variant.precision not in QUANTISED:
        return export_onnx(source, made)
    return quantise_dynamic(source, made) if source.variant.precision == "int8_dynamic" else quantise(source, made)


def quantise(source: Source, made: Path, *, symmetric: bool = False) -> Path:
    """Write the model as ONNX in static INT8 (QDQ form), by ONNX Runtime's own tools.

    Activations are calibrated; weights have a scale for each output channel, and 7 bits where products of 8 would
    overflow.

    Args:
        symmetric: no zero points, biases in floating point, and INT8 only in TENSORRT_TYPES, as TensorRT wants it.
            Else as suits ONNX Runtime on CPU.
    """
    q, registry = need("onnxruntime.quantization", "onnx"), need("onnxruntime.quantization.registry", "onnx")
    with _folded(source) as folded, quiet():
        there = types_of(folded)
        every = sorted({*registry.QLinearOpsRegistry, *registry.QDQRegistry})
        attends = "Softmax" in there and not symmetric
        types = TENSORRT_TYPES if symmetric else ATTENDING_TYPES if attends else every
        if not there & set(types):
            raise UnsupportedError(NOTHING_TO_QUANTISE)
        settings = {
            "per_channel": True,
            "reduce_range": source.in_seven_bits,
            "op_types_to_quantize": types,
            "activation_type": q.QuantType.QInt8 if symmetric else q.QuantType.QUInt8,
            "extra_options": {
                "CalibPercentile": PERCENTILE,
                "CalibStridedMinMax": CALIBRATION_STEP,
                "ActivationSymmetric": symmetric,
                "QuantizeBias": not symmetric,
                "OpTypesToExcludeOutputQuantization": ATTENDING_TYPES if attends else [],
            },
        }
        by = q.CalibrationMethod
        try:
            q.quantize_static(folded, made, _Calibration(source), calibrate_method=by.Percentile, **settings)
        except ValueError as error:
            if "Too many bins" not in str(error):
                raise
            # an activation that is all but constant, as an untrained gate's, has no histogram
            q.quantize_static(folded, made, _Calibration(source), calibrate_method=by.MinMax, **settings)
    return _checked(made)


def quantise_dynamic(source: Source, made: Path) -> Path:
    """Write the model as ONNX with INT8 only in its linear layers, whose activations get their range in each call."""
    q = need("onnxruntime.quantization", "onnx")
    with _folded(source) as folded, quiet():
        q.quantize_dynamic(
            folded, made, op_types_to_quantize=["MatMul"], per_channel=True, reduce_range=source.in_seven_bits
        )
    if not any("QuantizeLinear" in name for name in types_of(made)):
        raise UnsupportedError(NOTHING_TO_QUANTISE)
    return _checked(made)


@contextlib.contextmanager
def _folded(source: Source) -> Iterator[Path]:
    """The FP32 file with its batch norms folded in."""
    q = need("onnxruntime.quantization", "onnx")
    with tempfile.TemporaryDirectory() as scratch:
        fp32, folded = export_onnx(source, Path(scratch, "fp32.onnx")), Path(scratch, "folded.onnx")
        with quiet():
            q.shape_inference.quant_pre_process(fp32, folded)
        yield folded


def types_of(file: Path) -> set[str]:
    """The kinds of operators in an ONNX file."""
    return {node.op_type for node in need("onnx", "onnx").load(file).graph.node}


def _checked(made: Path) -> Path:
    need("onnx", "onnx").checker.check_model(str(made))
    return made


class _Calibration:
    """Calibration images one by one, a few at a time, as ONNX Runtime asks for them."""

    def __init__(self, source: Source) -> None:
        self._images = list(source.calibrating())
        self._left = iter(self._images)

    def __len__(self) -> int:
        """Images, rounded up: ONNX Runtime wants full steps, and takes a last one that is not."""
        return math.ceil(len(self._images) / CALIBRATION_STEP) * CALIBRATION_STEP

    def set_range(self, start_index: int, end_index: int) -> None:
        """What `get_next` gives from now on."""
        self._left = iter(self._images[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input of the model; None after the last."""
        image = next(self._left, None)
        return None if image is None else {"images": image.contiguous().numpy()}


def export_onnx(source: Source, path: Path) -> Path:
    """Write the model as ONNX for the example's shape."""
    need("onnxscript", "onnx")
    model = source.module()
    with quiet():
        # exported here, not by torch.onnx: it hides below its advice why a model cannot be
        program = torch.onnx.export(
            torch.export.export(model, (source.example,)),
            input_names=["images"],
            output_names=["logits"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None, "the dynamo exporter gives a program"
    program.save(path)
    need("onnx", "onnx").checker.check_model(str(path), full_check=True)
    return path


def load(source: Source) -> Runnable:
    """See `Runtime`."""
    ort, provider = need("onnxruntime", "onnx"), _provider(source)
    from cifar_tune.deployed.onnxruntime import session_options  # it needs ONNX Runtime

    options = session_options(source.threads)
    session = ort.InferenceSession(str(source.folder / FILE), options, providers=[provider])
    if provider not in session.get_providers():
        raise UnsupportedError(f"ONNX Runtime could not start its {provider}")
    return Runnable(
        call=_bound_call(session, source) if source.device == "cuda" else _host_call(session),
        synchronize=wait_for(source.device),
        on_torch_stream=False,
        prepare_input=Tensor.contiguous,
        artifact_mb=file_mb(source.folder),
        note=_note(source),
    )


def _provider(source: Source) -> str:
    """What ONNX Runtime calls the device; UnsupportedError where this build of it has none."""
    available = need("onnxruntime", "onnx").get_available_providers()
    from cifar_tune.deployed.onnxruntime import PROVIDERS  # it needs ONNX Runtime

    provider = PROVIDERS[source.device]
    if provider not in available:
        more = ": install onnxruntime-gpu in its place" if source.device == "cuda" else ""
        raise UnsupportedError(f"this build of ONNX Runtime has no {provider}{more}")
    return provider


def _note(source: Source) -> str | None:
    """What a reader of a quantised row must know."""
    dynamic = source.variant.precision == "int8_dynamic"
    omitted = left_out(convolution_share(source.model, source.example)) if dynamic else None
    return "; ".join(filter(None, (omitted, source.seven_bits_note))) or None


def _host_call(session: Any) -> Any:
    outputs = [session.get_outputs()[0].name]
    name = session.get_inputs()[0].name

    def call(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(outputs, {name: images.numpy()})[0])

    return call


def _bound_call(session: Any, source: Source) -> Any:
    """No copy to the host: input and output stay where PyTorch has them. The answer is overwritten by the next call."""
    binding = session.io_binding()
    image = source.example.contiguous().clone()
    output = session.get_outputs()[0]
    dtype, kind = (torch.float16, np.float16) if output.type == "tensor(float16)" else (torch.float32, np.float32)
    logits = torch.empty(output.shape, dtype=dtype, device="cuda")
    name = session.get_inputs()[0].name
    binding.bind_input(name, "cuda", 0, np.float32, tuple(image.shape), image.data_ptr())
    binding.bind_output(output.name, "cuda", 0, kind, tuple(logits.shape), logits.data_ptr())

    def call(images: Tensor) -> Tensor:
        image.copy_(images)
        torch.cuda.current_stream().synchronize()  # the session runs on a stream of its own
        session.run_with_iobinding(binding)
        return logits

    return call


RUNTIME = Runtime(
    export=export,
    load=load,
    modules=("onnxruntime",),
    variants=(
        Variant(runtime="onnxruntime"),
        Variant(runtime="onnxruntime", single_thread=True),
        Variant(runtime="onnxruntime", precision="int8"),
        Variant(runtime="onnxruntime", precision="int8", single_thread=True),
        Variant(runtime="onnxruntime", precision="int8_dynamic"),
    ),
    cuda_variants=(Variant(runtime="onnxruntime", precision="fp16_weights"),),
)
