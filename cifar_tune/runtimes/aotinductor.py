"""AOTInductor: compiled ahead of time into a package that runs without Python's compiler, guards or a first call."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from cifar_tune.config import Variant
from cifar_tune.runtimes.base import Runnable, Runtime, Source, file_mb, quiet, wait_for
from cifar_tune.runtimes.torch import require_compiler, torch_scope

FILE = "model.pt2"


def export(source: Source) -> Path:
    """See `Runtime`. Weights are folded into the kernels (`freezing`): a deployed model does not change."""
    import torch._inductor as inductor  # not above: it takes every process 1.6 s, and few of them compile

    require_compiler(source.device)
    model, image = source.module(), source.prepared(source.example)
    with quiet(), torch.no_grad(), torch_scope(source.variant, source.device):
        program = torch.export.export(model, (image,))
        path = str(source.folder / FILE)
        inductor.aoti_compile_and_package(program, package_path=path, inductor_configs={"freezing": True})
    return source.folder / FILE


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
    )


RUNTIME = Runtime(
    export=export,
    load=load,
    variants=(
        Variant(runtime="aotinductor"),
        Variant(runtime="aotinductor", channels_last=True),
    ),
)
