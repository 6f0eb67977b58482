"""The second sweep: every inference variant of trained models, each with its device to itself.

    python sweeps/variant_grid.py --run RUN                                    # a finished run's finalists again
    python sweeps/variant_grid.py --checkpoint FILE --model mobilenet_v3_small --data cifar10
    python sweeps/variant_grid.py --model package.module:function --input-shape 3 224 224      # latency only

Installed, it is `cifar-tune grid`. The last line of standard output is the path of the new run's report.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from analysis.frames import find_run
from analysis.report import write_report
from cifar_tune import cli
from cifar_tune.config import DataConfig, check
from cifar_tune.data.datasets import ImageData, load, normalised, random_images
from cifar_tune.device import resolve_device
from cifar_tune.measuring.target import Target, load_target
from cifar_tune.models.outside import try_once
from cifar_tune.models.registry import architecture
from cifar_tune.models.weights import checkpoint_classes
from cifar_tune.presets import PRESETS
from cifar_tune.records import TrialRecord
from cifar_tune.settings import part
from cifar_tune.store import read_records, sha256_file
from cifar_tune.study import Preset, RunConfig, StudyConfig, read_content, study_from
from sweeps.steps.checks import Prepared, prepare
from sweeps.steps.folder import bucket_of, check_same_study, read_study, run_folder
from sweeps.steps.grid import forget_builds, measure_grid
from sweeps.steps.job import as_target, brought_teacher, chosen_finalists, job, shown, write_tables
from sweeps.steps.race import decide
from sweeps.steps.variants import check_variants

GIVEN_ARM = "given"
CLASSES = 10
"""Of a registered model that is measured without weights and data: they hardly change its latency."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GridConfig(RunConfig):
    """What to measure: a finished run's finalists, or a model of your own."""

    run: str | None = None
    """A finished run: a path, or a name in the storage."""
    checkpoint: str | None = None
    """Safetensors file with the model's weights; None: random weights, which take as long."""
    model: str | None = None
    """A registered architecture, or `module:function` that gives a torch.nn.Module."""
    input_shape: tuple[int, int, int] | None = None
    """Channels, height and width of an image; None: the data's, or 3 32 32."""
    data: str | None = None
    """Data set whose test images give the accuracy (see distill_search.py); None: latency only."""
    images: DataConfig = field(
        default_factory=DataConfig,
        metadata=part(hidden=("source", "train_images", "validation_fraction", "unlabelled", "skip_unreadable")),
    )
    mean: tuple[float, float, float] | None = None
    """Of each channel, of values 0 to 1: what the model was trained with; None: the training images'."""
    std: tuple[float, float, float] | None = None
    """As `mean`, and given with it."""
    min_accuracy: float = 0.85
    """Accuracy that the candidate must hold, 0 to 1."""
    preset: Preset = "cpu"
    """Whose measurement settings are used for a model of your own; a run brings its own."""
    runtimes: tuple[str, ...] | None = None
    """What runs the models beside the grid of PyTorch variants; None: the run's, or all."""
    variants: tuple[str, ...] | None = None
    """Names of the variants to measure; FP32 eager is always one. None: the run's, or all."""
    strict: bool = False
    """Refuse to measure on a device that others use, instead of waiting for it and marking disturbed rows."""

    def __post_init__(self) -> None:
        RunConfig.__post_init__(self)  # super() knows the class only as it was before it had slots
        check((self.run is None) != (self.model is None), "run and model", (self.run, self.model), "one of the two")
        check(self.checkpoint is None or self.model is not None, "checkpoint", self.checkpoint, "only with --model")
        shape = self.input_shape
        check(shape is None or all(n >= 1 for n in shape), "input shape", shape, "three numbers of 1 or more")
        both = shape is not None and self.data is not None
        check(not both, "input shape", shape, "only without --data, which have their own")
        only = "only with --data"
        check(self.images.image_size is None or self.data is not None, "image size", self.images.image_size, only)
        check(self.mean is None or self.data is not None, "mean", self.mean, only)
        check((self.mean is None) == (self.std is None), "mean and std", (self.mean, self.std), "both or neither")
        check(self.std is None or all(s > 0 for s in self.std), "std", self.std, "three numbers above 0")


def run(config: GridConfig) -> str:
    """Measure all variants; returns the path or URI of the new run's report."""
    with cli.user_input():
        prepared, targets, trials = _of_run(config) if config.run is not None else _of_model(config)
    with job(prepared) as work:
        known = {t.trial_id for t in work.ledger.read(TrialRecord)}
        for trial in (t for t in trials if t.trial_id not in known):
            work.ledger.put_trial(dataclasses.replace(trial, run=work.run.name))
        finals = work.ledger.read(TrialRecord)
        finalists = [*targets, *(as_target(work, t) for t in finals)]
        measure_grid(work, finalists)
        decide(work, finalists)
        write_tables(work, finals, {s.trial_id for s in finalists})
        report = write_report(work.run)
        forget_builds(work.run)
        work.view.say(report.text)
    return shown(work, report.path)


Work = tuple[Prepared, list[Target], list[TrialRecord]]
"""What has passed every check, models of the user's own, and trials of an earlier run."""


def _of_run(config: GridConfig) -> Work:
    """The study of a finished run on the same data, and its finalists. ValueError where they are not there."""
    assert config.run is not None
    source = find_run(config.run, config.storage)
    file = source / "study.json"
    content = read_content(file.read_bytes(), str(file))
    study = study_from(content["config"])
    study = dataclasses.replace(
        _as_asked(study, config),
        address=None,
        warm_start=None,
        pretrained=(),
        search_images=None,
        runtimes=study.runtimes if config.runtimes is None else config.runtimes,
        variants=study.variants if config.variants is None else config.variants,
    )
    prepared = prepare(study)
    same = prepared.data.fingerprint == content["data"]["fingerprint"]
    check(same, "run", config.run, f"a run whose data are still there: {prepared.study.data.source} has changed")
    trials = source / "trials.parquet"
    records = read_records(trials, TrialRecord) if trials.is_file() else []
    finalists = chosen_finalists([t for t in records if t.stage == "final"])
    check(bool(finalists), "run", config.run, "a run that has finalists")
    teacher = [] if prepared.teacher is None else [brought_teacher(prepared.teacher, len(prepared.data.classes))]
    return prepared, teacher, [_moved(trial, source, prepared.run) for trial in finalists]


def _as_asked(study: StudyConfig, config: GridConfig) -> StudyConfig:
    """The study, run where and shown as the command asks."""
    where = {f.name: getattr(config, f.name) for f in dataclasses.fields(RunConfig)}
    return dataclasses.replace(study, **where, latency=dataclasses.replace(study.latency, strict=config.strict))


def _moved(trial: TrialRecord, source: Path, run: Path) -> TrialRecord:
    """The trial with its checkpoint, which stays where it is, as seen from the new run."""
    assert trial.checkpoint is not None
    return dataclasses.replace(trial, checkpoint=os.path.relpath(source.absolute() / trial.checkpoint, run))


def _of_model(config: GridConfig) -> Work:
    """A model of the user's own, tried once on one image. ValueError says what does not fit."""
    assert config.model is not None
    if ":" in config.model:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does: the function lies where the user works
    else:
        architecture(config.model)
    study = _study_of_model(config)
    check_variants(study, resolve_device(config.device))
    bucket = bucket_of(study)
    shape = config.input_shape or (3, 32, 32)
    data = random_images(shape) if config.data is None else _normalised(load(study.data, study.seed), config)
    run = run_folder(study, bucket)
    if study.resume:
        check_same_study(read_study(run, bucket), study, data)
    target = _own_target(config, len(data.classes) or CLASSES)
    prepared = Prepared(
        study=study,
        device=resolve_device(config.device),
        data=data,
        run=run,
        bucket=bucket,
        teacher=None,
        labelled=config.data is not None,
    )
    outputs = try_once(load_target(target), prepared.input_shape)
    if prepared.labelled:
        check(outputs == len(data.classes), "model", config.model, f"one with the data's {len(data.classes)} classes")
    return prepared, [target], []


def _study_of_model(config: GridConfig) -> StudyConfig:
    """The preset's study, with the one model in the places of teacher and student."""
    assert config.model is not None
    return dataclasses.replace(
        _as_asked(PRESETS[config.preset], config),
        data=dataclasses.replace(config.images, source=config.data or config.model.replace(":", ".")),
        students=(config.model,),
        teacher=config.model,
        runtimes=config.runtimes,
        variants=config.variants,
        min_accuracy=config.min_accuracy,
    )


def _own_target(config: GridConfig, classes: int) -> Target:
    """The model with the weights that are given, or random ones.

    Args:
        classes: of the data; a registered model's checkpoint says how many it has itself.
    """
    assert config.model is not None
    checkpoint = None if config.checkpoint is None else Path(config.checkpoint).absolute()
    if checkpoint is not None:
        check(checkpoint.is_file(), "checkpoint", str(checkpoint), "an existing safetensors file")
    registered = ":" not in config.model
    return Target(
        trial_id=f"given-{config.model.replace(':', '.')}",
        model=config.model,
        arm=GIVEN_ARM,
        checkpoint=None if checkpoint is None else str(checkpoint),
        checkpoint_sha256="random" if checkpoint is None else sha256_file(checkpoint),
        classes=checkpoint_classes(checkpoint) if checkpoint is not None and registered else classes,
    )


def _normalised(data: ImageData, config: GridConfig) -> ImageData:
    return data if config.mean is None or config.std is None else normalised(data, config.mean, config.std)


def main(argv: Sequence[str], prog: str = "variant_grid.py") -> None:
    """The command: the last line of standard output is the report's path."""

    def command() -> str:
        return run(cli.parse(GridConfig, argv, prog=prog, description=__doc__ or ""))

    cli.run_command(command)


if __name__ == "__main__":
    main(sys.argv[1:])
