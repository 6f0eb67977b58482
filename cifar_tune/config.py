"""Everything a user can set, as frozen dataclasses.

One place for every option: the command line is made from these fields and their docstrings, presets are
values of the same classes, and `study.json` is their content. Only the standard library is imported, so the
analysis of a finished run can read them anywhere.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

Arm = Literal["teacher", "plain", "distill"]
Precision = Literal["fp32", "bf16", "fp16", "fp16_weights", "int8", "int8_dynamic"]
TrainPrecision = Literal["auto", "fp32", "bf16", "fp16"]
Compile = Literal["none", "default", "reduce-overhead", "max-autotune"]
DistillRule = Literal["auto", "always", "never"]
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


_ABOVE_ZERO = math.ulp(0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which images are used, and how they are split."""

    source: str
    """A registered name, or the path of an image folder or a Parquet folder."""
    image_size: int | None = None
    """Side of the square model input in pixels; None: the data set's own."""
    train_images: int | None = None
    """Stratified subset of the training images, validation included; None: all."""
    test_images: int | None = None
    """Stratified subset of the test images; None: all."""
    validation_fraction: float = 0.1
    """Share of the training images held out, stratified, for every choice the search makes."""
    seed: int = 0
    """Seed of the subsets and of the validation split."""
    skip_unreadable: bool = False
    """Count unreadable images and go on, instead of stopping at the first."""

    def __post_init__(self) -> None:
        check(self.image_size is None or self.image_size >= 8, "image size", self.image_size, "8 pixels or more")
        for name in ("train_images", "test_images"):
            value = getattr(self, name)
            check(value is None or value >= 1, name.replace("_", " "), value, "1 or more")
        check(0 < self.validation_fraction < 1, "validation fraction", self.validation_fraction, "between 0 and 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewConfig:
    """Augmentation: what the view of an image in an epoch may be. Shared by all trials of a study."""

    crop_padding: int = 4
    """Reflected border, in pixels, from which the crop is drawn."""
    flip: bool = True
    """Mirror each image in every second epoch, half of them in the first."""
    cutout: int = 0
    """Side of the square set to the mean, in pixels; 0: off."""
    distinct: int | None = None
    """Epochs after which the views come again, so that a teacher need not answer for more; None: never."""
    seed: int = 0
    """Seed of the views. All trials of a study share it, so that they see the same images."""

    def __post_init__(self) -> None:
        check(self.crop_padding >= 0, "crop padding", self.crop_padding, "0 or more")
        check(self.cutout >= 0, "cutout", self.cutout, "0 (off) or more")
        turns = self.distinct is None or self.distinct == 1 or (self.distinct > 0 and self.distinct % 2 == 0)
        check(turns, "distinct views", self.distinct, "1 or an even number: every second one is mirrored")

    def drawn(self, epoch: int) -> int:
        """The epoch, from 1, whose views are seen in this one."""
        return epoch if self.distinct is None else 1 + (epoch - 1) % self.distinct


SMALLEST_SIDE = 16
"""Pixels: models that pool three times or more have nothing left of smaller images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One training: the only place where a sample of the search space becomes a type."""

    model: str
    arm: Arm
    epochs: int
    batch_size: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    """Peak learning rate."""
    schedule: str = "cosine"
    momentum: float = 0.9
    """Nesterov momentum of SGD; AdamW does not read it."""
    weight_decay: float = 5e-4
    """Weight decay of matrices and convolutions; biases and batch-norm parameters get none."""
    label_smoothing: float = 0.0
    class_weights: ClassWeights = "auto"
    """Weigh a label by the rarity of its class; auto: where the largest class has 1.5 times the smallest's images."""
    temperature: float = 4.0
    """Distillation temperature T (R6); read only when alpha > 0."""
    alpha: float = 0.0
    """Weight of the distillation term (R6); 0 trains on labels alone and needs no teacher."""
    start: str | None = None
    """Path of the weights to begin with, of the whole model where this one is pruned; None: fresh ones."""
    progressive: bool = False
    """Show 3 of 8 epochs at half the image side, the next 2 at three quarters, none below 16 pixels; weights that are
    trained already see the images as they are."""
    seed: int = 0
    """Initialisation and batch order."""
    precision: TrainPrecision = "auto"
    """Arithmetic of the training step; auto: what was measured fastest for the device and model."""
    compile_step: bool = False
    """torch.compile the model in training, on CUDA with graphs: for runs long enough to repay the compilation."""
    channels_last: bool = True
    device: str = "cpu"
    threads: int = 1
    """CPU threads of this training."""
    views: ViewConfig = field(default_factory=ViewConfig)

    def __post_init__(self) -> None:
        check(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        check(self.batch_size >= 1, "batch size", self.batch_size, "1 or more")
        check(0 < self.lr < math.inf, "learning rate", self.lr, "above 0")
        check(0 <= self.momentum < 1, "momentum", self.momentum, "0 to below 1")
        check(0 <= self.weight_decay < math.inf, "weight decay", self.weight_decay, "0 or more")
        check(0 <= self.label_smoothing < 1, "label smoothing", self.label_smoothing, "0 to below 1")
        check(0 < self.temperature < math.inf, "temperature", self.temperature, "above 0")
        check(0 <= self.alpha <= 1, "alpha", self.alpha, "0 to 1")
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
    precision: Precision = "fp32"
    compile: Compile = "none"
    channels_last: bool = False
    single_thread: bool = False
    """One CPU thread instead of all: small models at batch 1 can be faster without the others."""
    zeroed: float = 0.0
    """Share of the weights of convolutions and linear layers that are set to zero, the smallest (R30); the filters of
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
    """Calls before the first sample, at least: the warm-up goes on until it is stable."""
    iterations: int = 500
    """Samples of each repeat, at least, within the time limit."""
    max_iterations: int = 2000
    """Samples of each repeat, at most."""
    median_interval: float = 0.01
    """Share of the median within which half of its 95 % interval must lie for a repeat to end before the most."""
    repeats: int = 3
    fresh_processes: bool = True
    """Each repeat in a process of its own."""
    round_calls: int = 10
    """Calls of the variant in a paired round."""
    reference_calls: int = 3
    """Calls of the reference in it: fewer, since it is slow beside most variants and only its median counts."""
    window: float = 0.5
    """Seconds of samples between two looks at who else uses the device."""
    retries: int = 1
    """Disturbed windows of a repeat that are taken again; those after them count, and mark the row."""
    time_limit: float = 6.0
    """Seconds of rounds, the reference and all repeats included, after which MIN_SAMPLES are enough."""
    threads: int = 0
    """CPU threads while measuring; 0: all cores of the node."""
    strict: bool = False
    """Refuse what others disturb, instead of marking it: a taken device, a window disturbed to the last retry."""

    @property
    def protocol(self) -> str:
        """All of it that a figure depends on, in one line: JSON."""
        values = dataclasses.asdict(self)
        del values["strict"]
        return json.dumps(values)

    def __post_init__(self) -> None:
        for name in ("warmup", "repeats", "round_calls", "reference_calls"):
            check(getattr(self, name) >= 1, f"latency {name.replace('_', ' ')}", getattr(self, name), "1 or more")
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
class StudyConfig:
    """The main job, from data to answer. Every field is a flag of the command."""

    preset: Literal["quick", "cpu", "folder", "gpu", "chaos"] = "cpu"
    """Where all other settings start from; without it: gpu where CUDA is there, else cpu."""
    data: str = "cifar10"
    """cifar10, digits, or the path of an image folder (train/<class>, test/<class>) or a Parquet folder."""
    data_dir: str = "data"
    """Where cifar10 is looked for, and downloaded to."""
    name: str | None = None
    """Name of the run; default: data, preset and UTC time."""
    storage: str = "ray_results"
    """Folder that holds the runs."""
    teacher: str = "resnet18"
    """Architecture of the teacher."""
    teacher_checkpoint: str | None = None
    """Safetensors file of a trained teacher; skips the teacher search."""
    teacher_from_other_data: bool = False
    """Take a teacher checkpoint that says it was trained on other images than these."""
    students: tuple[str, ...] = ("mobilenet_v3_small", "shufflenet_v2_x1_0")
    """Architectures of the students."""
    num_samples: int = 12
    """Trials of each student and arm."""
    teacher_samples: int = 2
    """Trials of the teacher search."""
    epochs: int = 20
    """Epochs of a student trial."""
    teacher_epochs: int | None = None
    """Epochs of a teacher trial; None: as many as a student's."""
    teacher_progressive: bool = False
    """Train the teacher on smaller images first: more epochs in the same time."""
    search_images: int | None = None
    """Stratified subset of the training images, at most as many, for the students' search; finalists train on all."""
    final_top: int = 3
    """Best trials of each student and arm that are trained anew, with new seeds, before any reads the test set."""
    final_seeds: int = 3
    """Seeds of each of them."""
    final_epochs: int | None = None
    """Epochs of a finalist, where they are more than a student's trial has."""
    prune: tuple[float, ...] = ()
    """Shares of its multiplications to which the teacher and each student's best finalist are pruned and trained on."""
    magnitude: tuple[float, ...] = ()
    """Shares of each finalist's smallest weights that are set to zero, to see what that costs and gains (R30)."""
    prune_epochs: int | None = None
    """Epochs of a pruned model; None: as many as a student's trial has."""
    pretrained: tuple[str, ...] = ()
    """Weights that a model's trials begin with, as MODEL=PATH: a safetensors file or a Hugging Face model folder."""
    warm_start: str | None = None
    """An earlier run, whose best trials are tried after the authors' defaults."""
    batch_size: int = 128
    """Images of a training step."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov momentum, or AdamW."""
    lr_range: tuple[float, float] = (0.01, 0.2)
    """Bounds of the peak learning rate, searched on a logarithmic scale."""
    teacher_lr_range: tuple[float, float] | None = None
    """The same for the teacher; None: as the students'."""
    schedules: tuple[str, ...] = ("cosine", "one_cycle")
    """Learning rate schedules to choose from."""
    temperature_range: tuple[float, float] = (2.0, 8.0)
    """Bounds of the distillation temperature T."""
    alpha_range: tuple[float, float] = (0.3, 1.0)
    """Bounds of the distillation weight alpha."""
    weight_decay: float = 5e-4
    """Weight decay when it is not searched."""
    weight_decay_range: tuple[float, float] | None = None
    """Bounds of the weight decay, searched on a logarithmic scale; None: not searched."""
    label_smoothing: float = 0.0
    """Label smoothing of the cross-entropy."""
    class_weights: ClassWeights = "auto"
    """Weigh an image's label by the rarity of its class: always, never, or auto, where classes differ by half."""
    crop_padding: int | None = None
    """Border in pixels from which random crops are drawn; None: an eighth of the image side."""
    flip: bool | None = None
    """Mirror each image in every second epoch; None: what suits the data set (not digits)."""
    cutout: int = 0
    """Side of the Cutout square in pixels; 0: off."""
    distinct_views: int | None = None
    """Epochs after which an image's views come again: a teacher answers for no more. 1 or an even number; None: each
    epoch has its own."""
    image_size: int | None = None
    """Side of the model input in pixels; None: the data set's own (folders: 32)."""
    train_images: int | None = None
    """Stratified subset of the training images; None: all."""
    test_images: int | None = None
    """Stratified subset of the test images; None: all."""
    validation_fraction: float = 0.1
    """Share of the training images held out for choosing."""
    skip_unreadable: bool = False
    """Count unreadable images and go on."""
    precision: TrainPrecision = "auto"
    """Arithmetic of training; auto: the fastest measured for the device and model."""
    compile_step: bool = False
    """torch.compile the models in training. `python benchmarks/train_step.py --compile` says from how many steps that
    pays here; on the CPU where it was tried it did not (docs/log.md)."""
    distill: DistillRule = "always"
    """Run the distillation search always, never, or auto: where plain students miss min_accuracy on validation data."""
    min_accuracy: float = 0.85
    """Accuracy that the candidate must hold, 0 to 1."""
    early_stopping: bool = True
    """ASHA: stop trials that fall behind."""
    grace_epochs: int = 2
    """Epochs before a trial may be stopped early."""
    concurrent_trials: int = 0
    """Trials that train at the same time; 0: one a core on CPU, at most 16; on a GPU as gpus_per_trial says."""
    gpus_per_trial: float = 0.25
    """Share of a GPU that a training trial holds; fewer trials than fill the GPUs hold more."""
    latency_warmup: int = 50
    """Calls before the first latency sample."""
    latency_iterations: int = 500
    """Latency samples of each repeat, at least, within the time limit."""
    latency_max_iterations: int = 2000
    """Latency samples of each repeat, at most."""
    latency_repeats: int = 3
    """Repeats of each latency measurement."""
    latency_fresh_processes: bool = True
    """Each repeat in a process of its own."""
    latency_time_limit: float = 6.0
    """Seconds of a row's rounds; a slow variant goes on until it has 700 samples, up to ten times as long."""
    latency_threads: int = 0
    """CPU threads while measuring; 0: all cores of the node."""
    strict: bool = False
    """Refuse to measure on a device that others use, instead of waiting for it and marking disturbed rows."""
    compiled_variants: bool = True
    """torch.compile in the grid of variants."""
    runtimes: tuple[str, ...] | None = None
    """What runs the models beside the grid of PyTorch variants; None: all. What is not installed becomes a row."""
    latency_budget_ms: float | None = None
    """Drop students, before the search, whose fastest variant cannot meet this p50; None: no budget."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device for training and measuring."""
    address: str | None = None
    """Ray cluster to join (auto, or an address); None: start one here."""
    measure_on: str | None = None
    """Resource that the measuring node must have, such as accelerator_type:H100; None: any node with a latency slot."""
    seed: int = 0
    """Seed of data split, views, search and trials."""
    dashboard: bool = True
    """Start the Ray dashboard with a cluster of our own."""
    resume: bool = False
    """Go on with the run of this name; finished trials are kept."""
    log: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ("tensorboard",)
    """Who else is told of each training as it goes on."""
    verbose: bool = False
    """Show the tables and logs of Ray Tune instead of the progress view."""

    def __post_init__(self) -> None:
        check(0 < self.min_accuracy <= 1, "min accuracy", self.min_accuracy, "above 0, at most 1")
        for name in ("num_samples", "teacher_samples", "grace_epochs", "final_top", "final_seeds"):
            check(getattr(self, name) >= 1, name.replace("_", " "), getattr(self, name), "1 or more")
        check(self.concurrent_trials >= 0, "concurrent trials", self.concurrent_trials, "0 (auto) or more")
        check(0 < self.gpus_per_trial <= 1, "gpus per trial", self.gpus_per_trial, "above 0, at most 1")
        check(len(self.students) >= 1, "students", self.students, "one or more models")
        check(len(set(self.students)) == len(self.students), "students", self.students, "each model once")
        for given in self.pretrained:
            model, mark, path = given.partition("=")
            allowed = f"MODEL=PATH, MODEL one of {', '.join((self.teacher, *self.students))}, each once"
            once = sum(other.startswith(f"{model}=") for other in self.pretrained) == 1
            check(
                bool(mark and path) and model in (self.teacher, *self.students) and once, "pretrained", given, allowed
            )
        budget = self.latency_budget_ms
        check(budget is None or 0 < budget < math.inf, "latency budget", budget, "above 0 milliseconds")
        check(len(self.schedules) >= 1, "schedules", self.schedules, "one or more schedules")
        positive = (_ABOVE_ZERO, 1e308, "two numbers above 0, low to high")
        for arm in (PLAIN_ARM, TEACHER_ARM):
            check_range("learning rate range", self.arm_lr_range(arm), *positive)
        check_range("temperature range", self.temperature_range, *positive)
        check_range("alpha range", self.alpha_range, 0.0, 1.0, "two numbers from 0 to 1, low to high")
        if self.weight_decay_range is not None:
            check_range("weight decay range", self.weight_decay_range, *positive)
        if self.name is not None:
            check(
                is_safe_name(self.name), "name", self.name, "letters, digits, '.', '_' and '-', not starting with '.'"
            )
        check(all(0 < share < 1 for share in self.prune), "prune", self.prune, "shares between 0 and 1")
        check(len(set(self.prune)) == len(self.prune), "prune", self.prune, "each share once")
        check(all(0 < rate < 1 for rate in self.magnitude), "magnitude", self.magnitude, "shares between 0 and 1")
        pruned = self.prune_epochs
        check(pruned is None or pruned >= 1, "prune epochs", pruned, "1 or more")
        final = self.final_epochs
        check(final is None or final >= 1, "final epochs", final, "1 or more")
        search = self.search_images
        check(search is None or search >= 1, "search images", search, "1 or more")
        self.data_config()  # their own checks
        self.latency_config()
        self.view_config()
        for arm in (PLAIN_ARM, TEACHER_ARM):
            self.train_config(self.teacher, arm, {})

    @property
    def pretrained_paths(self) -> dict[str, str]:
        """Model -> where the weights are that its trials begin with."""
        return {model: path for model, _, path in (given.partition("=") for given in self.pretrained)}

    def data_config(self) -> DataConfig:
        """Which images, and how they are split."""
        names = ("image_size", "train_images", "test_images", "validation_fraction", "seed", "skip_unreadable")
        return DataConfig(source=self.data, **{name: getattr(self, name) for name in names})

    def latency_config(self) -> LatencyConfig:
        """The measurement protocol."""
        names = ("warmup", "iterations", "max_iterations", "repeats", "fresh_processes", "time_limit", "threads")
        values = {name: getattr(self, f"latency_{name}") for name in names}
        return LatencyConfig(strict=self.strict, **values)

    def view_config(self, *, image_size: int = 32, flip_suits_data: bool = True) -> ViewConfig:
        """Augmentation; the data decide what the user did not."""
        return ViewConfig(
            crop_padding=image_size // 8 if self.crop_padding is None else self.crop_padding,
            flip=flip_suits_data if self.flip is None else self.flip,
            cutout=self.cutout,
            distinct=self.distinct_views,
            seed=self.seed,
        )

    def arm_epochs(self, arm: Arm) -> int:
        """Epochs of a trial of this arm."""
        return self.epochs if arm != TEACHER_ARM or self.teacher_epochs is None else self.teacher_epochs

    def arm_lr_range(self, arm: Arm) -> tuple[float, float]:
        """Bounds of the learning rate of this arm."""
        return self.lr_range if arm != TEACHER_ARM or self.teacher_lr_range is None else self.teacher_lr_range

    @property
    def finalist_epochs(self) -> int:
        """Epochs of a student's finalist."""
        return max(self.epochs, self.final_epochs or 0)

    @property
    def pruned_epochs(self) -> int:
        """Epochs of a pruned model."""
        return self.prune_epochs or self.epochs

    def kept_trials(self, stage: str) -> int:
        """Trials of a search whose weights outlive it: the teacher's best, and what the finalists come from."""
        return 1 if stage == TEACHER_ARM else self.final_top

    @property
    def finalist_seeds(self) -> range:
        """Seeds that no trial of the search had."""
        return range(self.seed + 1, self.seed + 1 + self.final_seeds)

    def _training_settings(self) -> dict[str, Any]:
        names = (
            "batch_size",
            "optimizer",
            "weight_decay",
            "label_smoothing",
            "class_weights",
            "precision",
            "compile_step",
        )
        return {name: getattr(self, name) for name in names}

    def train_config(self, model: str, arm: Arm, sample: dict[str, Any], **fixed: Any) -> TrainConfig:
        """The training that a point of the search space stands for.

        `fixed`: epochs, start, precision, seed, device, threads, views.
        """
        settings: dict[str, Any] = {
            "epochs": self.arm_epochs(arm),
            # a student that distils sees what its teacher answered for
            "progressive": arm == TEACHER_ARM and self.teacher_progressive,
            **self._training_settings(),
            **sample,
            **fixed,
        }
        return TrainConfig(model=model, arm=arm, **settings)


def study_from(values: Mapping[str, Any]) -> StudyConfig:
    """A study's settings from what `study.json` holds of them. ValueError: they are not such settings."""
    # JSON knows no tuples
    settings: dict[str, Any] = {k: tuple(cast("list[Any]", v)) if isinstance(v, list) else v for k, v in values.items()}
    try:
        return StudyConfig(**settings)
    except TypeError as error:
        raise ValueError(f"the run's settings are not this version's: {error}") from error


def is_safe_name(name: str) -> bool:
    """Whether `name` can be a folder's name everywhere and cannot leave its parent."""
    return bool(name) and not name.startswith(".") and all(c.isalnum() or c in "._-" for c in name) and name.isascii()
