"""What data, one training, one variant and one measurement are set by, as frozen dataclasses.

A study holds them as they are here (study.py): the command line is made from the fields and their docstrings, and
presets are values of the same classes. Only the standard library is imported, so the analysis of a finished run can
read them anywhere.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from dataclasses import dataclass, field
from typing import Literal

from cifar_tune.settings import CHANGEABLE, NO_FLAG, flag

Arm = Literal["teacher", "plain", "distill"]
Precision = Literal["fp32", "bf16", "fp16", "fp16_weights", "int8", "int8_dynamic"]
TrainPrecision = Literal["auto", "fp32", "bf16", "fp16"]
Compile = Literal["none", "default", "reduce-overhead", "max-autotune"]
Optimizer = Literal["sgd", "adamw", "muon"]
Whitening = Literal["none", "trained", "frozen"]
TeacherAnswers = Literal["one", "seeds", "views"]
DistillLoss = Literal["kl", "standardised", "dkd"]
Device = Literal["auto", "cpu", "cuda"]
ClassWeights = Literal["auto", "always", "never"]

TEACHER_ARM: Arm = "teacher"
PLAIN_ARM: Arm = "plain"
DISTILL_ARM: Arm = "distill"


def check(condition: bool, name: str, given: object, allowed: str) -> None:
    """Raise ValueError saying what was given and what is allowed; NaN fails every comparison, so it is refused."""
    if not condition:
        raise ValueError(f"{name} is {given!r}; allowed is {allowed}")


def check_range(name: str, bounds: tuple[float, float], low: float, high: float, allowed: str) -> None:
    """Raise ValueError unless low <= bounds[0] <= bounds[1] <= high; an exclusive zero is given as a tiny `low`."""
    check(len(bounds) == 2 and low <= bounds[0] <= bounds[1] <= high, name, bounds, allowed)


ABOVE_ZERO = math.ulp(0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which images are used, and how they are split; the seed of the split is the study's."""

    source: str = field(default="cifar10", metadata=flag("data"))
    """cifar10, digits, or the path of an image folder (train/<class>, test/<class>) or a Parquet folder."""
    data_dir: str = field(default="data", metadata=CHANGEABLE)
    """Where cifar10 is looked for, and downloaded to."""
    image_size: int | None = None
    """Side of the model input in pixels; None: the data set's own (folders: 32)."""
    train_images: int | None = None
    """Stratified subset of the training images, those for validation included; None: all."""
    test_images: int | None = None
    """Stratified subset of the test images; None: all."""
    validation_fraction: float = 0.1
    """Share of the training images held out for choosing."""
    unlabelled: str | None = None
    """Folder of images without labels, at any depth: distilled students learn from the teacher's answers for them."""
    skip_unreadable: bool = False
    """Count unreadable images and go on, instead of stopping at the first."""

    def __post_init__(self) -> None:
        check(self.image_size is None or self.image_size >= 8, "image size", self.image_size, "8 pixels or more")
        for name, value in (("train images", self.train_images), ("test images", self.test_images)):
            check(value is None or value >= 1, name, value, "1 or more")
        check(0 < self.validation_fraction < 1, "validation fraction", self.validation_fraction, "between 0 and 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewSettings:
    """Augmentation as a user sets it: the data decide what is None."""

    crop_padding: int | None = None
    """Border in pixels from which random crops are drawn; None: an eighth of the image side."""
    flip: bool | None = None
    """Mirror each image in every second epoch; None: what suits the data set (not digits)."""
    cutout: int = 0
    """Side of the Cutout square in pixels; 0: off."""
    trivial_augment: bool = False
    """Give each view one operation of TrivialAugment, such as a rotation or another contrast."""
    distinct: int | None = field(default=None, metadata=flag("distinct_views"))
    """Epochs after which the views of an image repeat: fewer views for the teacher to answer. 1 or an even number;
    None: each epoch has its own views."""

    def __post_init__(self) -> None:
        check(self.crop_padding is None or self.crop_padding >= 0, "crop padding", self.crop_padding, "0 or more")
        check(self.cutout >= 0, "cutout", self.cutout, "0 (off) or more")
        turns = self.distinct is None or self.distinct == 1 or (self.distinct > 0 and self.distinct % 2 == 0)
        check(turns, "distinct views", self.distinct, "1 or an even number: every second one is mirrored")


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewConfig(ViewSettings):
    """Augmentation of given images: what the view of an image in an epoch may be. All trials of a study share it."""

    crop_padding: int = 4
    """Reflected border, in pixels, from which the crop is drawn."""
    flip: bool = True
    """Mirror each image in every second epoch, half of them in the first."""
    seed: int = 0
    """Seed of the views. All trials of a study share it, so that they see the same images."""

    def drawn(self, epoch: int) -> int:
        """The epoch, from 1, whose views are seen in this one."""
        return epoch if self.distinct is None else 1 + (epoch - 1) % self.distinct


SMALLEST_SIDE = 16
"""Pixels: models that pool three times or more have nothing left of smaller images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeConfig:
    """How every training of a study is done, whatever its point of the search space."""

    batch_size: int = 128
    """Images of a training step."""
    optimizer: Optimizer = "sgd"
    """SGD with Nesterov momentum, AdamW, or Muon for the filters of convolutions beside SGD for the rest."""
    momentum: float = 0.9
    """Of SGD, and of what Muon does not train; AdamW does not read it."""
    weight_decay: float = 5e-4
    """Weight decay of matrices and convolutions, where it is not searched; biases and batch norms get none."""
    whitening: Whitening = "trained"
    """How a narrow first convolution begins: whitening filters that are trained on, or frozen ones whose bias is
    trained for the first epochs; none: at random."""
    dirac: bool = False
    """Let the convolutions behind the first one begin with the identity in as many filters as there are inputs."""
    fixed_norm_scale: bool = False
    """Keep the scales of batch norms at 1: their biases are trained, and nothing else of them."""
    norm_bias_rate: float = 16.0
    """Factor of the learning rate of batch norms' biases, with SGD and Muon."""
    norm_momentum: float = 0.1
    """Share of a batch's statistics in those that a batch norm keeps."""
    lookahead: bool = False
    """Average the weights: every few steps they are drawn towards their slow average, which the training ends with."""
    logit_scale: float = 1.0
    """Factor of the logits, as an initialisation and a learning rate of the classifier: the model is the same."""
    label_smoothing: float = 0.0
    """Label smoothing of the cross-entropy."""
    mixup: float = 0.0
    """Parameter of Beta's distribution from which the shares of two mixed images are drawn; 0: none are mixed."""
    distill_loss: DistillLoss = "kl"
    """What a student learns from its teacher's answers: their distribution (R6), that of standardised logits, or the
    target's and the other classes' parts of it apart (DKD)."""
    class_weights: ClassWeights = "auto"
    """Weigh an image's label by the rarity of its class: always, never, or auto, where the largest class has 1.5 times
    the smallest's images."""
    precision: TrainPrecision = "auto"
    """Arithmetic of training; auto: the fastest measured for the device and model."""
    compile_step: bool = False
    """torch.compile the models in training, on CUDA with graphs. `python benchmarks/train_step.py --compile` says from
    how many steps that pays here; on the CPU where it was tried it did not (docs/log.md)."""

    def __post_init__(self) -> None:
        check(self.batch_size >= 1, "batch size", self.batch_size, "1 or more")
        check(0 <= self.weight_decay < math.inf, "weight decay", self.weight_decay, "0 or more")
        check(0 <= self.label_smoothing < 1, "label smoothing", self.label_smoothing, "0 to below 1")
        check(0 <= self.momentum < 1, "momentum", self.momentum, "0 to below 1")
        check(0 < self.norm_bias_rate < math.inf, "norm bias rate", self.norm_bias_rate, "above 0")
        check(0 < self.norm_momentum <= 1, "norm momentum", self.norm_momentum, "above 0, at most 1")
        check(0 < self.logit_scale < math.inf, "logit scale", self.logit_scale, "above 0")
        check(0 <= self.mixup < math.inf, "mixup", self.mixup, "0 (off) or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig(RecipeConfig):
    """One training: the only place where a sample of the search space becomes a type."""

    model: str
    arm: Arm
    epochs: int
    lr: float = 0.01
    """Peak learning rate."""
    schedule: str = "cosine"
    temperature: float = 4.0
    """Distillation temperature T; read only when alpha > 0."""
    alpha: float = 0.0
    """Weight of the distillation term; 0 trains on labels only and needs no teacher."""
    start: str | None = None
    """Path of the weights to begin with, of the whole model where this one is pruned; None: fresh ones."""
    progressive: bool = False
    """Show 3 of 8 epochs at half the image side, the next 2 at three quarters, none below 16 pixels; weights that are
    trained already see the images as they are."""
    seed: int = 0
    """Initialisation and batch order."""
    channels_last: bool = True
    device: str = "cpu"
    threads: int = 1
    """CPU threads of this training."""
    views: ViewConfig = field(default_factory=ViewConfig)

    def __post_init__(self) -> None:
        RecipeConfig.__post_init__(self)  # super() knows the class only as it was before it had slots
        check(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        check(0 < self.lr < math.inf, "learning rate", self.lr, "above 0")
        check(0 < self.temperature < math.inf, "temperature", self.temperature, "above 0")
        check(0 <= self.alpha <= 1, "alpha", self.alpha, "0 to 1")
        whole = "0 beside distillation: a teacher answers for whole images"
        check(self.mixup == 0 or self.alpha == 0, "mixup", self.mixup, whole)
        check(self.threads >= 1, "threads", self.threads, "1 or more")

    @property
    def distils(self) -> bool:
        """Whether the training needs a teacher."""
        return self.alpha > 0

    def share_of_side(self, epoch: int, side: int) -> float:
        """Side of the images trained on in an epoch, from 1, as a share of their own, which is given in pixels."""
        done = (epoch - 1) / self.epochs
        if not self.progressive or self.start is not None:
            return 1.0
        if done >= 0.625:  # the last epochs give most, and need the images as they are
            return 1.0
        return max(0.5 if done < 0.375 else 0.75, min(1.0, SMALLEST_SIDE / side))


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One way of running a trained model; every field is an axis of the second sweep."""

    runtime: str = "torch"
    """What runs the model."""
    precision: Precision = "fp32"
    """fp32, autocast to bf16 or fp16, fp16_weights, int8 (calibrated on images; `bench` takes noise: as fast),
    int8_dynamic."""
    compile: Compile = "none"
    """Mode of torch.compile; none: eager."""
    channels_last: bool = False
    """Memory layout of weights and input."""
    single_thread: bool = False
    """One CPU thread instead of all: small models at batch 1 can be faster without the others."""
    zeroed: float = 0.0
    """Share of the weights of convolutions and linear layers that are set to zero, the smallest; the filters of
    the first layer stay."""
    zeroed_by_layer: bool = False
    """The smallest of each layer, instead of the whole model's."""

    def __post_init__(self) -> None:
        check(0 <= self.zeroed < 1, "zeroed", self.zeroed, "0 or more, below 1")

    @property
    def name(self) -> str:
        """Short and unique, for example `torch-fp16-compile-channels_last`."""
        parts = [self.runtime, self.precision]
        if self.compile != "none":
            parts.append("compile" if self.compile == "default" else f"compile-{self.compile}")
        if self.channels_last:
            parts.append("channels_last")
        if self.single_thread:
            parts.append("1-thread")
        if self.zeroed:
            parts.append(f"zeroed-{self.zeroed:g}" + ("-by-layer" if self.zeroed_by_layer else ""))
        return "-".join(parts)

    @property
    def evaluated(self) -> Variant:
        """The variant that reads the whole test set for this one: torch.compile's answers are those of eager."""
        return dataclasses.replace(self.built, compile="none")

    @property
    def built(self) -> Variant:
        """The variant whose build serves this one: threads are chosen when it is loaded."""
        return dataclasses.replace(self, single_thread=False)


REFERENCE = Variant()
"""FP32 eager: what every speedup and every agreement is relative to."""

GRID: dict[str, tuple[object, ...]] = {
    "precision": ("fp32", "fp16"),
    "compile": ("none", "default"),
    "channels_last": (False, True),
}
"""The axes of the variant grid and their values."""


def grid_variants() -> list[Variant]:
    """All combinations of GRID, FP32 eager first."""
    combinations = itertools.product(*GRID.values())
    # GRID is data: the checker cannot know which values go with which field
    return [Variant(**dict(zip(GRID, values, strict=True))) for values in combinations]  # pyright: ignore[reportArgumentType]


MIN_SAMPLES = 700
"""Latency samples of a row, at least: 662 bound p99."""
PATIENCE = 10
"""Times the time limit after which the sampling of a row ends with whatever it has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyConfig:
    """The measurement protocol (R8)."""

    warmup: int = 50
    """Least calls before the first latency sample; the warm-up ends when it is stable."""
    iterations: int = 500
    """Least latency samples of each repeat, within the time limit."""
    max_iterations: int = 2000
    """Most latency samples of each repeat."""
    median_interval: float = field(default=0.01, metadata=NO_FLAG)
    """Share of the median within which half of its 95 % interval must lie for a repeat to end before the most."""
    repeats: int = 3
    """Repeats of each latency measurement."""
    fresh_processes: bool = True
    """Measure each repeat in a fresh process."""
    round_calls: int = field(default=10, metadata=NO_FLAG)
    """Calls of the variant in a paired round."""
    reference_calls: int = field(default=3, metadata=NO_FLAG)
    """Calls of the reference in it: fewer, since it is slow beside most variants and only its median counts."""
    window: float = field(default=0.5, metadata=NO_FLAG)
    """Seconds of samples between two looks at who else uses the device."""
    retries: int = field(default=1, metadata=NO_FLAG)
    """Disturbed windows of a repeat that are taken again; those after them count, and mark the row."""
    time_limit: float = 6.0
    """Seconds of a row's rounds; a slow variant goes on until it has 700 samples, up to ten times as long."""
    threads: int = 0
    """CPU threads while measuring; 0: all cores of the node."""
    strict: bool = field(default=False, metadata=flag("strict"))
    """Stop where others use the device, and refuse disturbed rows, instead of waiting and marking them."""

    @property
    def protocol(self) -> str:
        """All of it that a figure depends on, in one line: JSON."""
        values = {**dataclasses.asdict(self), "drained": True}  # older rows were not
        del values["strict"]
        return json.dumps(values)

    def __post_init__(self) -> None:
        for name, value in (
            ("warmup", self.warmup),
            ("repeats", self.repeats),
            ("round calls", self.round_calls),
            ("reference calls", self.reference_calls),
        ):
            check(value >= 1, f"latency {name}", value, "1 or more")
        total = self.iterations * self.repeats
        allowed = f"{MIN_SAMPLES} or more, so that p99 is bounded"
        check(total >= MIN_SAMPLES, "latency samples (iterations x repeats)", total, allowed)
        most = self.max_iterations
        check(most >= self.iterations, "latency max iterations", most, f"the iterations ({self.iterations}) or more")
        check(0 < self.median_interval < 1, "latency median interval", self.median_interval, "between 0 and 1")
        check(0 < self.window < math.inf, "latency window", self.window, "above 0 seconds")
        check(self.retries >= 0, "latency retries", self.retries, "0 or more")
        check(0 < self.time_limit < math.inf, "latency time limit", self.time_limit, "above 0 seconds")
        check(self.threads >= 0, "latency threads", self.threads, "0 (all) or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class RaceConfig:
    """The race of the finalists of the grid, and the confirmation of its winner (R16)."""

    time_limit: float = 600.0
    """Seconds of the race of the finalists: after 5, 10 or 15 blocks it ends where five more would take it beyond."""
    contenders: int = 8
    """Most finalists of the race, the baseline among them."""
    memory_gb: float | None = field(default=None, metadata=NO_FLAG)
    """Memory that contenders may take at the same time, in GB; None: what is free on the machine."""
    confirm_blocks: int = field(default=5, metadata=NO_FLAG)
    """Blocks of new processes that candidate and baseline are measured in after the choice."""

    def __post_init__(self) -> None:
        check(0 < self.time_limit < math.inf, "race time limit", self.time_limit, "above 0 seconds")
        check(self.contenders >= 2, "race contenders", self.contenders, "2 or more")
        check(self.memory_gb is None or self.memory_gb > 0, "race memory", self.memory_gb, "above 0 GB")
        check(self.confirm_blocks >= 5, "confirm blocks", self.confirm_blocks, "5 or more")


def is_safe_name(name: str) -> bool:
    """Whether `name` can be a folder's name everywhere and cannot leave its parent."""
    return bool(name) and not name.startswith(".") and all(c.isalnum() or c in "._-" for c in name) and name.isascii()
