"""AOTInductor: compiled ahead of time into a package that runs without Python's compiler, guards or a first call."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cifar_tune.config import Variant
from cifar_tune.errors import UnsupportedError
from cifar_tune.libraries import need
from cifar_tune.runtimes.base import Runnable, Runtime, Source, file_mb, quiet, wait_for
from cifar_tune.runtimes.torch import require_compiler, torch_scope

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

FILE = "model.pt2"


def export(source: Source) -> Path:
    """See `Runtime`. Weights are folded into the kernels (`freezing`): a deployed model does not change."""
    import torch._inductor as inductor  # not above: it takes every process 1.6 s, and few of them compile

    require_compiler(source.device)
    model, image = source.module(), source.prepared(source.example)
    with quiet(), torch.no_grad(), torch_scope(source.variant, source.device):
        program = torch.export.export(model, (image,))
        if source.variant.precision == "int8":
            program = torch.export.export(_quantised(program, source), (image,))
        path = str(source.folder / FILE)
        inductor.aoti_compile_and_package(program, package_path=path, inductor_configs={"freezing": True})
    return source.folder / FILE


def _quantised(program: ExportedProgram, source: Source) -> nn.Module:
    """The program in INT8 as inductor's kernels for x86 take it, calibrated (PyTorch's PT2E quantisation)."""
    if source.device != "cpu":
        raise UnsupportedError("the quantiser is that of inductor's x86 kernels")
    pt2e = need("torchao.quantization.pt2e.quantize_pt2e", "int8")
    x86 = need("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer", "int8")
    module = program.module()
    _tell_calls_apart(module)
    # activations of 7 bits where products of 8 would overflow
    settings = x86.get_default_x86_inductor_quantization_config(reduce_range=source.in_seven_bits)
    quantizer = x86.X86InductorQuantizer().set_global(settings)
    prepared = pt2e.prepare_pt2e(module, quantizer)
    for image in source.calibrating():
        prepared(image)
    return pt2e.convert_pt2e(prepared)


def _tell_calls_apart(module: GraphModule) -> None:
    """Give each call a module of its own: one that is called twice, as torchvision's ReLUs are, is refused else."""
    for node in module.graph.nodes:
        stack = dict(node.meta.get("nn_module_stack") or {})
        if stack:
            innermost, (_, kind) = stack.popitem()
            node.meta["nn_module_stack"] = {**stack, innermost: (node.name, kind)}


def load(source: Source) -> Runnable:
    """See `Runtime`."""
    import torch._inductor as inductor

    package = inductor.aoti_load_package(str(source.folder / FILE))

    def call(images: Tensor) -> Tensor:
        return package(images)

    return Runnable(
        call=call,
        synchronize=wait_for(source.device),
        prepare_input=source.prepared,
        artifact_mb=file_mb(source.folder),
        note=source.seven_bits_note,
    )


RUNTIME = Runtime(
    export=export,
    load=load,
    variants=(
        Variant(runtime="aotinductor"),
        Variant(runtime="aotinductor", channels_last=True),
        Variant(runtime="aotinductor", precision="int8"),
    ),
)
