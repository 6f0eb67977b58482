"""What every runtime gives: a callable, the scope it is called in, and how to wait for it."""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cifar_tune.config import Variant, check
from cifar_tune.device import overflows_int8
from cifar_tune.errors import UnsupportedError
from cifar_tune.models.pruning import zero_smallest
from cifar_tune.models.registry import place


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What a runtime is given: a trained float32 model in eval mode, and where it shall run."""

    model: nn.Module
    variant: Variant
    device: str
    """cpu or cuda."""
    example: Tensor
    """One image, float32 (1, 3, H, W), on the device: the shape for which artifacts are made."""
    threads: int
    """CPU threads of a call."""
    folder: Path
    """Where the artifact of this model and variant lies; `export` makes it."""
    calibration: Tensor | None = None
    """Training images for static INT8, float32 (n, 3, H, W); None: none are at hand."""

    @property
    def layout(self) -> torch.memory_format:
        """The memory layout that the variant asks for."""
        return torch.channels_last if self.variant.channels_last else torch.contiguous_format

    def module(self) -> nn.Module:
        """The model on its device, as the variant wants its weights: layout, precision, zeros. Changed in place."""
        model = self.model.eval()
        if self.variant.zeroed:
            zero_smallest(model, self.variant.zeroed, by_layer=self.variant.zeroed_by_layer)
        model = place(model, self.device, self.layout)
        return HalfWeights(model) if self.variant.precision == "fp16_weights" else model

    def calibrating(self) -> Iterator[Tensor]:
        """The calibration images one by one, as the artifact takes them; UnsupportedError where there are none."""
        if self.calibration is None or not len(self.calibration):
            raise UnsupportedError("static INT8 is calibrated on training images, and there are none")
        return (self.prepared(image[None]) for image in self.calibration)

    @property
    def in_seven_bits(self) -> bool:
        """Whether INT8 is kept to 7 bits, since sums of its products would overflow."""
        return self.variant.precision.startswith("int8") and self.device == "cpu" and overflows_int8()

    @property
    def seven_bits_note(self) -> str | None:
        """What a reader of the row must know of that."""
        said = "INT8 is kept to 7 bits: this processor has no VNNI, and sums of its products would overflow"
        return said if self.in_seven_bits else None

    def prepared(self, images: Tensor) -> Tensor:
        """Images in the layout of the variant."""
        return images.contiguous(memory_format=self.layout)


class HalfWeights(nn.Module):
    """A model with float16 weights that takes float32 images, as a server gets them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.half()

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) float32 -> logits (N, classes) float16."""
        return self.model(images.half())


@dataclass(frozen=True, kw_only=True, slots=True)
class Runnable:
    """A model ready to answer."""

    call: Callable[[Tensor], Tensor]
    """Images (N, 3, H, W) float32 on the device -> logits (N, classes). A shape's first call may compile."""
    prepare_input: Callable[[Tensor], Tensor]
    """Gives an input batch the layout that the variant wants."""
    artifact_mb: float
    """What is deployed: the artifact, or weights and buffers as held in memory; 10**6 bytes."""
    scope: Callable[[], contextlib.AbstractContextManager[object]] = torch.inference_mode
    """Entered once around any number of calls: no grad, autocast. Not part of a call's latency."""
    synchronize: Callable[[], object] = lambda: None
    """Returns when the device is done."""
    note: str | None = None
    """What a reader of its row must know."""
    on_torch_stream: bool = True
    """Whether calls run on PyTorch's current CUDA stream, so that its events can time them."""

    def first_call(self, images: Tensor) -> None:
        """What a first call does once and for all: compile, allocate.

        The input is prepared outside of the scope, as every timed one is: to torch.compile a tensor that is made in
        inference mode is of another kind, and it would compile again for the first timed call.
        """
        prepared = self.prepare_input(images)
        with self.scope():
            self.call(prepared)
            self.synchronize()


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """How a model becomes a callable. Both functions raise UnsupportedError where it cannot run here."""

    load: Callable[[Source], Runnable]
    """Gives the callable; reads `Source.folder` where there is an export."""
    variants: tuple[Variant, ...]
    """What it adds to the grid."""
    cuda_variants: tuple[Variant, ...] = ()
    """What it adds on a GPU beside them."""
    export: Callable[[Source], object] | None = None
    """Writes the artifact, for one image, into `Source.folder`, outside of the exclusive slot; None: there is none."""
    deploy: Callable[[Source, Path], object] | None = None
    """Writes what a candidate ships into a folder, where that is not the artifact; `deployed/` has what opens it."""
    modules: tuple[str, ...] = ("torch",)
    """What a candidate imports."""

    def check_variant(self, variant: Variant) -> None:
        """ValueError where no variant of this runtime has that value: what ran would be something else than it says."""
        for name in ("precision", "compile", "channels_last", "single_thread"):
            values = [getattr(known, name) for known in (Variant(), *self.variants, *self.cuda_variants)]
            allowed = ", ".join(dict.fromkeys(map(str, values)))
            check(getattr(variant, name) in values, f"{name} of {variant.runtime}", getattr(variant, name), allowed)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters warn, log and print among themselves: a user can act on none of it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def wait_for(device: str) -> Callable[[], object]:
    """How to wait for a PyTorch device."""
    return torch.cuda.synchronize if device == "cuda" else _nothing_to_wait_for


def _nothing_to_wait_for() -> None:
    """CPU calls return when they are done."""


def weights_mb(model: nn.Module) -> float:
    """Parameters and buffers in memory, 10**6 bytes."""
    return sum(t.numel() * t.element_size() for t in itertools.chain(model.parameters(), model.buffers())) / 1e6


def save_program(source: Source, folder: Path) -> None:
    """The model as an exported program: PyTorch runs or compiles it where its code is not at hand."""
    image = source.prepared(source.example)
    with quiet(), torch.no_grad():
        torch.export.save(torch.export.export(source.module(), (image,)), folder / "program.pt2")


def file_mb(folder: Path) -> float:
    """All files of an artifact, 10**6 bytes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
