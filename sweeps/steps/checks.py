"""What a user asks for, checked before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from analysis.frames import load_run
from cifar_tune import cli
from cifar_tune.bucket import Bucket
from cifar_tune.config import check
from cifar_tune.data.datasets import ImageData, load, subset
from cifar_tune.device import environment, resolve_device
from cifar_tune.errors import UnsupportedError
from cifar_tune.models.outside import try_once
from cifar_tune.models.pretrained import pretrained_model
from cifar_tune.models.pruning import MARK, require_pruning
from cifar_tune.models.registry import architecture, build_model
from cifar_tune.models.weights import trained_on
from cifar_tune.presets import PRESETS
from cifar_tune.runtimes.torch import require_compiler
from cifar_tune.store import (
    PRETRAINED,
    sha256_file,
)
from cifar_tune.study import StudyConfig
from cifar_tune.training.precision import answering_precision
from cifar_tune.training.schedules import schedule
from cifar_tune.training.teacher import TeacherRef, load_model
from cifar_tune.tuning.loggers import check_installed
from sweeps.steps.folder import bucket_of, check_same_machine, check_same_study, read_study, run_folder
from sweeps.steps.variants import check_variants


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A study that has passed every check; nothing is written yet."""

    study: StudyConfig
    device: str
    data: ImageData
    run: Path
    """Folder in which it is worked on."""
    bucket: Bucket | None = None
    """Object storage that keeps it; None: the folder does."""
    teacher: TeacherRef | None
    """The teacher that the user brings."""
    pretrained: Mapping[str, nn.Module] = field(default_factory=dict[str, "nn.Module"])
    """Model -> what its trials begin with; a model that is not there begins with fresh weights."""
    search_data: ImageData | None = None
    """What the students' search trains on; None: all of the data."""
    labelled: bool = True
    """Whether the images have labels; else there is no accuracy."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        height, width, channels = self.data.test_images.shape[1:]
        return channels, height, width


def parse_study(argv: Sequence[str], prog: str, description: str) -> StudyConfig:
    """A StudyConfig from flags. The preset is read first: it gives the defaults of all other flags."""
    name = _preset_of(argv)
    if name not in PRESETS:
        cli.fail(f"preset {name!r} is unknown; allowed are {', '.join(PRESETS)}")
    return cli.parse(StudyConfig, argv, default=PRESETS[name], prog=prog, description=description)


def _preset_of(argv: Sequence[str]) -> str:
    for position, argument in enumerate(argv):
        if argument == "--preset" and position + 1 < len(argv):
            return argv[position + 1]
        if argument.startswith("--preset="):
            return argument.split("=", 1)[1]
    return "gpu" if resolve_device("auto") == "cuda" else "cpu"


def prepare(study: StudyConfig) -> Prepared:
    """Check everything that can be checked before anything is written. UsageError says what to change."""
    with cli.user_input():
        return _checked(study)


def _checked(study: StudyConfig) -> Prepared:
    for model in (study.teacher, *study.students):
        architecture(model)
    for name in study.space.schedules:
        schedule(name)
    check_installed(study.log)
    if study.prune or study.pretrained:
        pruned = [m for m in (study.teacher, *study.students) if MARK in m]
        check(not pruned, "models", ", ".join(pruned), "whole ones, beside --prune and --pretrained")
    if study.prune:
        require_pruning()
        attending = [m for m in (study.teacher, *study.students) if architecture(m).attends]
        check(not attending, "prune", ", ".join(attending), "convolutional models: attention is not narrowed")
    device = resolve_device(study.device)
    check_variants(study, device)
    if study.recipe.compile_step:
        check_compiler(device)
    bucket = bucket_of(study)
    run = run_folder(study, bucket)
    data = load(study.data, study.seed)
    if study.resume:
        before = read_study(run, bucket)
        check_same_study(before, study, data)
        if study.address is None:  # else it shows when the cluster is joined
            check_same_machine(before, environment(device))
    most = study.search_images
    searched = None if most is None or most >= len(data.train_images) else subset(data, most, study.seed)
    teacher = _teacher_given(study, data)
    classes = len(data.classes)
    paths = {model: _given_or_kept(run, model, path) for model, path in study.pretrained_paths.items()}
    pretrained = {m: pretrained_model(m, classes, path, study.seed) for m, path in paths.items()}
    for model in dict.fromkeys((study.teacher, *study.students)):
        height, width, channels = data.train_images.shape[1:]
        try_once(build_model(model, classes).eval(), (channels, height, width))
    if study.warm_start is not None:
        load_run(study.warm_start, study.storage)
    return Prepared(
        study=study,
        device=device,
        data=data,
        run=run,
        bucket=bucket,
        teacher=teacher,
        pretrained=pretrained,
        search_data=searched,
    )


def check_compiler(device: str) -> None:
    """ValueError where a step cannot be compiled."""
    try:
        require_compiler(device)
    except UnsupportedError as error:
        raise ValueError(f"--compile-step: {error}") from error


def _teacher_given(study: StudyConfig, data: ImageData) -> TeacherRef | None:
    if study.teacher_checkpoint is None:
        return None
    allowed = "one or views beside --teacher-checkpoint, which has one seed"
    check(study.teacher_answers != "seeds", "teacher answers", study.teacher_answers, allowed)
    path = Path(study.teacher_checkpoint)
    check(path.is_file(), "teacher checkpoint", str(path), "an existing safetensors file")
    load_model(study.teacher, len(data.classes), path)
    mark = trained_on(path)
    if mark not in (None, data.fingerprint) and not study.teacher_from_other_data:
        raise ValueError(
            f"teacher checkpoint {path} was trained on other data (fingerprint {mark[:12]}) than this study's "
            f"({data.fingerprint[:12]}); --teacher-from-other-data takes it all the same"
        )
    return TeacherRef(
        model=study.teacher,
        checkpoint=str(path.absolute()),
        sha256=sha256_file(path),
        precision=answering_precision(study.teacher, resolve_device(study.device), data.train_images.shape[1]),
        over_looks=study.teacher_answers == "views",
    )


def copy_of_pretrained(run: Path, model: str) -> Path:
    """Where a run keeps its own copy of pretrained weights: what it is resumed from, wherever the first were."""
    return run / PRETRAINED / f"{model}.safetensors"


def _given_or_kept(run: Path, model: str, given: str) -> Path:
    return kept if (kept := copy_of_pretrained(run, model)).exists() else Path(given).expanduser()
