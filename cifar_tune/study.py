"""StudyConfig: everything a user can set of a study, and what `study.json` keeps of it.

Each setting is declared once, here or in the part that it belongs to. The command line is made from the fields and
their docstrings, presets are values of the same class, and `study.json` holds its content. Only the standard library
is imported, so the analysis of a finished run can read it anywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from cifar_tune.config import (
    ABOVE_ZERO,
    PLAIN_ARM,
    TEACHER_ARM,
    Arm,
    DataConfig,
    Device,
    LatencyConfig,
    RaceConfig,
    RecipeConfig,
    TeacherAnswers,
    TrainConfig,
    ViewConfig,
    ViewSettings,
    check,
    check_range,
    is_safe_name,
)
from cifar_tune.settings import CHANGEABLE, made, nested, part, values_of

STUDY_FORMAT = 2
"""Of `study.json`, raised where an older version could not read what a newer one wrote.

1: `config` is flat, each setting under the name of its flag (`latency_warmup`, `distinct_views`).
2: `config` is as StudyConfig: settings that belong together lie in parts of their own (`latency`: `warmup`).
"""
FLAT_FORMAT = 1

Preset = Literal["quick", "cpu", "folder", "gpu", "chaos"]
DistillRule = Literal["ahead", "auto", "always", "never"]
TEACHER_LEAD = 0.01
"""What a teacher must be ahead of a plain student on validation data, as a share of the images, for rule `ahead`."""
Logger = Literal["tensorboard", "mlflow", "wandb"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Where a run is kept and how it is shown: the same for every sweep."""

    name: str | None = field(default=None, metadata=CHANGEABLE)
    """Name of the run; default: data, preset and UTC time."""
    storage: str = field(default="ray_results", metadata=CHANGEABLE)
    """Folder that holds the runs."""
    resume: bool = field(default=False, metadata=CHANGEABLE)
    """Go on with the run of this name; what is finished is kept."""
    device: Device = "auto"
    """Device for training and measuring."""
    dashboard: bool = field(default=True, metadata=CHANGEABLE)
    """Start the Ray dashboard with a cluster of our own."""
    verbose: bool = field(default=False, metadata=CHANGEABLE)
    """Show the tables and logs of Ray Tune instead of progress bars."""

    def __post_init__(self) -> None:
        safe = self.name is None or is_safe_name(self.name)
        check(safe, "name", self.name, "letters, digits, '.', '_' and '-', not starting with '.'")


@dataclass(frozen=True, kw_only=True, slots=True)
class SpaceConfig:
    """Bounds of the search space (space.py)."""

    lr_range: tuple[float, float] = (0.01, 0.2)
    """Bounds of the peak learning rate, searched on a logarithmic scale."""
    teacher_lr_range: tuple[float, float] | None = None
    """Bounds of the teacher's peak learning rate; None: those of the students."""
    schedules: tuple[str, ...] = ("cosine", "one_cycle")
    """Learning rate schedules to choose from."""
    temperature_range: tuple[float, float] = (1.0, 20.0)
    """Bounds of the distillation temperature T."""
    alpha_range: tuple[float, float] = (0.3, 1.0)
    """Bounds of the distillation weight alpha."""
    weight_decay_range: tuple[float, float] | None = None
    """Bounds of the weight decay, searched on a logarithmic scale; None: not searched."""

    def __post_init__(self) -> None:
        check(len(self.schedules) >= 1, "schedules", self.schedules, "one or more schedules")
        positive = (ABOVE_ZERO, 1e308, "two numbers above 0, low to high")
        for arm in (PLAIN_ARM, TEACHER_ARM):
            check_range("learning rate range", self.lr_of(arm), *positive)
        check_range("temperature range", self.temperature_range, *positive)
        check_range("alpha range", self.alpha_range, 0.0, 1.0, "two numbers from 0 to 1, low to high")
        if self.weight_decay_range is not None:
            check_range("weight decay range", self.weight_decay_range, *positive)

    def lr_of(self, arm: Arm) -> tuple[float, float]:
        """Bounds of the learning rate of an arm."""
        return self.lr_range if arm != TEACHER_ARM or self.teacher_lr_range is None else self.teacher_lr_range


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyConfig(RunConfig):
    """The main job, from data to answer. Every setting is a flag of the command."""

    preset: Preset = field(default="cpu", metadata=CHANGEABLE)
    """Start from the settings of this preset. Without it: gpu where there is CUDA, else cpu."""
    data: DataConfig = field(default_factory=DataConfig, metadata=part())
    teacher: str = "resnet18"
    """Architecture of the teacher."""
    teacher_checkpoint: str | None = None
    """Safetensors file of a trained teacher; skips the teacher search."""
    teacher_answers: TeacherAnswers = "one"
    """Who answers: the best teacher; seeds: that and further trainings of its recipe, the mean of their probabilities;
    views: it, over mirrored and shifted images. A student takes as long to answer."""
    teacher_seeds: int = 3
    """Trainings of the teacher's recipe where several seeds answer."""
    teacher_from_other_data: bool = False
    """Take a teacher checkpoint that says it was trained on other images than these."""
    students: tuple[str, ...] = field(default=("mobilenet_v3_small", "shufflenet_v2_x1_0"), metadata=CHANGEABLE)
    """Architectures of the students."""
    num_samples: int = field(default=12, metadata=CHANGEABLE)
    """Trials of each student and arm."""
    teacher_samples: int = field(default=2, metadata=CHANGEABLE)
    """Trials of the teacher search."""
    epochs: int = 20
    """Epochs of a student trial."""
    teacher_epochs: int | None = None
    """Epochs of a teacher trial; None: as many as a student's."""
    teacher_progressive: bool = False
    """Train the teacher on smaller images first: more epochs in the same time."""
    search_images: int | None = None
    """Most training images of the students' search, a stratified subset; None: all. Finalists train on all."""
    final_top: int = field(default=3, metadata=CHANGEABLE)
    """Best trials of each student and arm that become finalists: trained anew with new seeds, then tested."""
    final_seeds: int = field(default=3, metadata=CHANGEABLE)
    """Seeds with which each finalist is trained."""
    final_epochs: int | None = None
    """Epochs of a finalist, if more than those of a student's trial; None: the same."""
    prune: tuple[float, ...] = field(default=(), metadata=CHANGEABLE)
    """Prune the teacher and each student's best finalist to these shares of their multiplications, and train on."""
    magnitude: tuple[float, ...] = field(default=(), metadata=CHANGEABLE)
    """Shares of each finalist's smallest weights to set to zero; the report shows what each share costs and gains."""
    prune_epochs: int | None = field(default=None, metadata=CHANGEABLE)
    """Epochs of a pruned model; None: as many as a student's trial has."""
    pretrained: tuple[str, ...] = ()
    """Weights that a model's trials begin with, as MODEL=PATH: a safetensors file or a Hugging Face model folder."""
    warm_start: str | None = field(default=None, metadata=CHANGEABLE)
    """An earlier run: its best trials are tried second, after the defaults."""
    recipe: RecipeConfig = field(default_factory=RecipeConfig, metadata=part())
    space: SpaceConfig = field(default_factory=SpaceConfig, metadata=part())
    views: ViewSettings = field(default_factory=ViewSettings, metadata=part())
    distill: DistillRule = "always"
    """Run the distillation search always, never, where the teacher is a point ahead of the plain student on validation
    (ahead), or where the plain student misses the wanted accuracy there (auto)."""
    min_accuracy: float = field(default=0.85, metadata=CHANGEABLE)
    """Test accuracy that the candidate must hold, 0 to 1."""
    early_stopping: bool = True
    """ASHA: stop trials that fall behind."""
    grace_epochs: int = 2
    """Epochs before a trial may be stopped early."""
    concurrent_trials: int = field(default=0, metadata=CHANGEABLE)
    """Trials that train at the same time; 0: one a CPU core, at most 16, or as --gpus-per-trial allows."""
    gpus_per_trial: float = field(default=0.25, metadata=CHANGEABLE)
    """Share of a GPU for each training trial; where few trials run, each gets more."""
    latency: LatencyConfig = field(default_factory=LatencyConfig, metadata=part("latency_", changeable=True))
    race: RaceConfig = field(default_factory=RaceConfig, metadata=part("race_", changeable=True))
    compiled_variants: bool = field(default=True, metadata=CHANGEABLE)
    """Measure variants with torch.compile as well."""
    runtimes: tuple[str, ...] | None = field(default=None, metadata=CHANGEABLE)
    """Runtimes to measure beside PyTorch; None: all. One that is not installed becomes a row that says so."""
    variants: tuple[str, ...] | None = field(default=None, metadata=CHANGEABLE)
    """Names of the variants to measure, such as onnxruntime-int8; FP32 eager is always one. None: all."""
    latency_budget_ms: float | None = field(default=None, metadata=CHANGEABLE)
    """Before the search, drop students whose fastest variant misses this p50; None: no budget."""
    address: str | None = field(default=None, metadata=CHANGEABLE)
    """Ray cluster to join (auto, or an address); None: start one here."""
    measure_on: str | None = field(default=None, metadata=CHANGEABLE)
    """Ray resource of the node that measures, such as accelerator_type:H100; None: any with a latency slot."""
    seed: int = 0
    """Seed of data split, views, search and trials."""
    log: tuple[Logger, ...] = field(default=("tensorboard",), metadata=CHANGEABLE)
    """Where else each training is logged while it runs."""

    def __post_init__(self) -> None:
        RunConfig.__post_init__(self)  # super() knows the class only as it was before it had slots
        check(0 < self.min_accuracy <= 1, "min accuracy", self.min_accuracy, "above 0, at most 1")
        whole = "0 beside distillation: a teacher answers for whole images"
        check(self.recipe.mixup == 0 or self.distill == "never", "mixup", self.recipe.mixup, whole)
        for name, count in (
            ("num samples", self.num_samples),
            ("teacher samples", self.teacher_samples),
            ("teacher seeds", self.teacher_seeds),
            ("grace epochs", self.grace_epochs),
            ("final top", self.final_top),
            ("final seeds", self.final_seeds),
        ):
            check(count >= 1, name, count, "1 or more")
        for name, count in (
            ("prune epochs", self.prune_epochs),
            ("final epochs", self.final_epochs),
            ("search images", self.search_images),
        ):
            check(count is None or count >= 1, name, count, "1 or more")
        check(self.concurrent_trials >= 0, "concurrent trials", self.concurrent_trials, "0 (auto) or more")
        check(0 < self.gpus_per_trial <= 1, "gpus per trial", self.gpus_per_trial, "above 0, at most 1")
        budget = self.latency_budget_ms
        check(budget is None or 0 < budget < math.inf, "latency budget", budget, "above 0 milliseconds")
        check(all(0 < share < 1 for share in self.prune), "prune", self.prune, "shares between 0 and 1")
        check(len(set(self.prune)) == len(self.prune), "prune", self.prune, "each share once")
        check(all(0 < rate < 1 for rate in self.magnitude), "magnitude", self.magnitude, "shares between 0 and 1")
        self._check_models()
        for arm in (PLAIN_ARM, TEACHER_ARM):
            self.train_config(self.teacher, arm, {})  # its own checks

    def _check_models(self) -> None:
        check(len(self.students) >= 1, "students", self.students, "one or more models")
        check(len(set(self.students)) == len(self.students), "students", self.students, "each model once")
        models = (self.teacher, *self.students)
        allowed = f"MODEL=PATH, MODEL one of {', '.join(models)}, each once"
        for given in self.pretrained:
            model, mark, path = given.partition("=")
            once = sum(other.startswith(f"{model}=") for other in self.pretrained) == 1
            check(bool(mark and path) and model in models and once, "pretrained", given, allowed)

    @property
    def pretrained_paths(self) -> dict[str, str]:
        """Model -> where the weights are that its trials begin with."""
        return {model: path for model, _, path in (given.partition("=") for given in self.pretrained)}

    def view_config(self, *, image_size: int = 32, flip_suits_data: bool = True) -> ViewConfig:
        """Augmentation of the study's images; the data decide what the user did not."""
        views = self.views
        return ViewConfig(
            crop_padding=image_size // 8 if views.crop_padding is None else views.crop_padding,
            flip=flip_suits_data if views.flip is None else views.flip,
            cutout=views.cutout,
            trivial_augment=views.trivial_augment,
            distinct=views.distinct,
            seed=self.seed,
        )

    def arm_epochs(self, arm: Arm) -> int:
        """Epochs of a trial of this arm."""
        return self.epochs if arm != TEACHER_ARM or self.teacher_epochs is None else self.teacher_epochs

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

    def train_config(self, model: str, arm: Arm, sample: dict[str, Any], **fixed: Any) -> TrainConfig:
        """The training that a point of the search space stands for.

        `fixed`: epochs, start, precision, seed, device, threads, views.
        """
        settings: dict[str, Any] = {
            "epochs": self.arm_epochs(arm),
            # a student that distils sees what its teacher answered for
            "progressive": arm == TEACHER_ARM and self.teacher_progressive,
            **values_of(self.recipe),
            **sample,
            **fixed,
        }
        return TrainConfig(model=model, arm=arm, **settings)


def read_content(text: str | bytes, where: str) -> dict[str, Any]:
    """Content of a `study.json` of any format, in today's.

    Args:
        text: of the file.
        where: the file, for the message.

    Raises:
        ValueError: it is no such file, or its format is not known.
    """
    try:
        content: object = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is not what a run writes: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where} is not what a run writes: it holds {type(content).__name__}")
    return _upgraded(cast("dict[str, Any]", content), where)


def _upgraded(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    found: object = content.get("format")
    if isinstance(found, int) and found > STUDY_FORMAT:
        raise ValueError(f"{where} has format {found}, and this version reads {STUDY_FORMAT}: update cifar_tune")
    if found not in (FLAT_FORMAT, STUDY_FORMAT):
        raise ValueError(f"{where} has format {found!r}; this version reads {STUDY_FORMAT} and older")
    if found == STUDY_FORMAT or "config" not in content:
        return dict(content)
    config: object = content["config"]
    if not isinstance(config, dict):
        raise ValueError(f"{where} is not what a run writes: its settings are {config!r}")
    return {**content, "format": STUDY_FORMAT, "config": nested(StudyConfig, cast("dict[str, Any]", config))}


def study_from(values: Mapping[str, Any]) -> StudyConfig:
    """A study's settings from what `study.json` holds of them. ValueError: they are not such settings."""
    try:
        return made(StudyConfig, _with_tuples(values))
    except TypeError as error:
        raise ValueError(f"the run's settings are not this version's: {error}") from error


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples."""
    return {name: _with_tuple(value) for name, value in values.items()}


def _with_tuple(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(cast("list[Any]", value))
    return _with_tuples(cast("dict[str, Any]", value)) if isinstance(value, dict) else value
