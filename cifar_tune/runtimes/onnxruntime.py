"""ONNX Runtime: its CPU provider, or its CUDA provider with inputs and outputs bound to the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cifar_tune.config import Variant
from cifar_tune.runtimes.base import Runnable, Runtime, Source, UnsupportedError, file_mb, need, quiet, wait_for

FILE = "model.onnx"
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def export(source: Source) -> Path:
    """See `Runtime`."""
    need("onnxruntime", "onnx")
    return export_onnx(source, source.folder / FILE)


def export_onnx(source: Source, path: Path) -> Path:
    """Write the model as ONNX for the example's shape."""
    need("onnxscript", "onnx")
    model = source.module()
    with quiet():
        program = torch.onnx.export(
            model, (source.example,), input_names=["images"], output_names=["logits"], dynamo=True, verbose=False
        )
    assert program is not None, "the dynamo exporter gives a program"
    program.save(path)
    return path


def load(source: Source) -> Runnable:
    """See `Runtime`."""
    ort = need("onnxruntime", "onnx")
    provider = PROVIDERS[source.device]
    if provider not in ort.get_available_providers():
        more = ": install onnxruntime-gpu in its place" if source.device == "cuda" else ""
        raise UnsupportedError(f"this build of ONNX Runtime has no {provider}{more}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = source.threads
    options.inter_op_num_threads = 1
    # threads that spin after a call would slow down what is measured, or served, beside it
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors alone
    session = ort.InferenceSession(str(source.folder / FILE), options, providers=[provider])
    if provider not in session.get_providers():
        raise UnsupportedError(f"ONNX Runtime could not start its {provider}")
    return Runnable(
        call=_bound_call(session, source) if source.device == "cuda" else _host_call(session),
        synchronize=wait_for(source.device),
        on_torch_stream=False,
        prepare_input=Tensor.contiguous,
        artifact_mb=file_mb(source.folder),
    )


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
    variants=(Variant(runtime="onnxruntime"), Variant(runtime="onnxruntime", single_thread=True)),
    cuda_variants=(Variant(runtime="onnxruntime", precision="fp16_weights"),),
)
