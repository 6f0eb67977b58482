"""What is measured: models, the cells of a grid, and the way from a checkpoint to a callable."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from cifar_tune.config import LatencyConfig, RaceConfig, Variant
from cifar_tune.data.datasets import ImageData
from cifar_tune.device import usable_cpus
from cifar_tune.models.outside import make_model
from cifar_tune.models.weights import load_weights
from cifar_tune.records import Environment, LatencyStage
from cifar_tune.runtimes import Source
from cifar_tune.runtimes.quantisation import calibration_images

ROUNDS = 10
"""Of a block, as long as nothing is known of the variances."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A model whose variants are measured."""

    trial_id: str
    model: str
    """A registered name, or `module:function` of the user's own."""
    arm: str
    checkpoint: str | None
    """Absolute path; None: random weights."""
    checkpoint_sha256: str
    classes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One cell of a grid: a model in one variant."""

    target: Target
    variant: Variant


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparationCell(Cell):
    """What is to be done with a cell before it is measured."""

    build: bool
    """Compile or export it."""
    evaluate: bool
    """Read the test set with it, after the build."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasurementCell(Cell):
    """One measurement of a cell."""

    stage: LatencyStage = "grid"
    block: int = 0
    """Of a race or a confirmation, counted from 1; 0: it is neither."""
    fallback: str | None = None
    """Why torch.compile cannot be used, so that a stand-in is measured (R12); None: it can."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RaceCell:
    """One block of a race or of a confirmation."""

    stage: Literal["race", "confirm"]
    block: int
    """Counted from 1."""
    contenders: tuple[Cell, ...]
    """The first is the baseline."""
    rounds: int = ROUNDS
    """In which each contender has a turn: see `race.rounds_from`."""

    @property
    def singles(self) -> list[MeasurementCell]:
        """What each contender's row is of, in their order."""
        return [
            MeasurementCell(target=of.target, variant=of.variant, stage=self.stage, block=self.block)
            for of in self.contenders
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class GridSettings:
    """How the variants of one run are evaluated, built and measured."""

    run: str
    device: str
    threads: int
    """CPU threads of an evaluation or a build."""
    latency: LatencyConfig
    race: RaceConfig = field(default_factory=RaceConfig)
    cache: str
    """Folder for compiler caches and artifacts, on the node that measures."""
    input_shape: tuple[int, int, int]
    """Channels, height, width."""
    environment: Environment
    """Of the machine that measures."""

    @property
    def measurement_threads(self) -> int:
        """CPU threads of a measurement."""
        return self.latency.threads or usable_cpus()


# --- from a target to a callable -------------------------------------------------------------------------------


def load_target(target: Target) -> nn.Module:
    """The model with its weights, in eval mode. ValueError says what does not fit."""
    model = make_model(target.model, target.classes)
    if target.checkpoint is not None:
        load_weights(model, Path(target.checkpoint), target.checkpoint_sha256)
    return model.eval()


def make_source(
    model: nn.Module, cell: Cell, settings: GridSettings, threads: int, calibration: ImageData | None = None
) -> Source:
    """What a runtime needs to know to run a model in a cell's variant.

    Args:
        calibration: what static INT8 is calibrated on, where it is to be exported.
    """
    return Source(
        model=model,
        variant=cell.variant,
        device=settings.device,
        example=torch.zeros(1, *settings.input_shape, device=settings.device),
        threads=1 if cell.variant.single_thread else threads,
        folder=artifact_folder(settings, cell),
        calibration=None if calibration is None else calibration_images(calibration),
    )


def artifact_folder(settings: GridSettings, cell: Cell) -> Path:
    """Where the artifact of these weights and this variant lies."""
    return Path(settings.cache, "artifacts", cell.target.checkpoint_sha256[:16], cell.variant.built.name)


def use_compile_cache(settings: GridSettings, model: str, variant: Variant) -> bool:
    """Point inductor at the cache of this model and variant, its own; whether it is empty, so that a build is cold."""
    import torch._inductor.config as inductor

    name = model.replace(":", "-")
    folder = Path(settings.cache, "inductor", f"{name}-{variant.name}")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    # on a CPU builds run beside each other, one a core: a pool of compilers in each would only wait
    inductor.compile_threads = settings.threads if settings.device == "cuda" else 1
    return not folder.exists()
