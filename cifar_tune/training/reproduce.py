"""One trial of a run trained once more, by itself: what it trained, on what, and with whose answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from cifar_tune.config import DISTILL_ARM, PLAIN_ARM, Arm, TrainConfig, TrainPrecision, check
from cifar_tune.data.datasets import ImageData, load, subset, with_unlabelled
from cifar_tune.device import resolve_device, usable_cpus
from cifar_tune.records import TrialRecord, recipe_of
from cifar_tune.runs.ledger import Ledger
from cifar_tune.space import read_by
from cifar_tune.store import PRETRAINED, sha256_file
from cifar_tune.study import StudyConfig, read_content, study_from
from cifar_tune.training.precision import answering_precision
from cifar_tune.training.teacher import CachedTeacher, TeacherRef, Weights

if TYPE_CHECKING:
    from cifar_tune.training.loop import TeacherLogits


def reproduction(run: Path, trial_id: str) -> tuple[TrainConfig, ImageData, TeacherLogits | None]:
    """Configuration, data and teacher of a finished trial.

    ValueError: there is no such run or trial, or its teacher's weights are gone.
    """
    check((run / "study.json").is_file(), "run", str(run), "the folder of a run")
    study = study_from(read_content((run / "study.json").read_bytes(), str(run))["config"])
    trials = Ledger(run).read(TrialRecord)
    found = [t for t in trials if t.trial_id == trial_id]
    check(bool(found), "trial", trial_id, f"a trial that has ended in {run}")
    (trial,) = found
    data = load(study.data, study.seed)
    if trial.stage in (PLAIN_ARM, DISTILL_ARM) and (study.search_images or len(data.train_images)) < len(
        data.train_images
    ):
        data = subset(data, study.search_images or 0, study.seed)
    views = study.view_config(image_size=data.train_images.shape[1], flip_suits_data=data.flip)
    device = resolve_device(study.device)
    config = study.train_config(
        trial.model,
        cast("Arm", trial.arm),
        read_by(trial, cast("Arm", trial.arm)),
        epochs=trial.epochs,
        precision=trial.precision or study.recipe.precision,
        start=_start(run, study, trials, trial.start_sha256),
        seed=trial.seed,
        device=device,
        threads=usable_cpus(),
        views=views,
    )
    if trial.teacher_sha256 is None:
        return config, data, None
    data = with_unlabelled(data)
    answering = answering_precision(study.teacher, device, data.train_images.shape[1])
    teacher = _teacher(run, study, trials, trial.teacher_sha256, answering)
    return config, data, CachedTeacher(run / "teacher_logits", teacher, data, views, device)


def _teacher(
    run: Path, study: StudyConfig, trials: list[TrialRecord], sha256: str, precision: TrainPrecision
) -> TeacherRef:
    path = _weights(run, study, trials, sha256, "the teacher's")
    return TeacherRef(
        model=study.teacher,
        checkpoint=str(path),
        sha256=sha256,
        precision=precision,
        seeds=_seeds(run, trials, sha256) if study.teacher_answers == "seeds" else (),
        over_looks=study.teacher_answers == "views",
    )


def _seeds(run: Path, trials: list[TrialRecord], sha256: str) -> tuple[Weights, ...]:
    """Further trainings of a teacher's recipe, in the order of their seeds."""
    first = next(t for t in trials if t.checkpoint_sha256 == sha256)
    others = [t for t in trials if recipe_of(t.trial_id) == first.trial_id != t.trial_id and t.checkpoint is not None]
    return tuple(
        Weights(checkpoint=str((run / str(t.checkpoint)).absolute()), sha256=str(t.checkpoint_sha256))
        for t in sorted(others, key=lambda trial: trial.seed)
    )


def _start(run: Path, study: StudyConfig, trials: list[TrialRecord], sha256: str | None) -> str | None:
    return None if sha256 is None else str(_weights(run, study, trials, sha256, "the first"))


def _weights(run: Path, study: StudyConfig, trials: list[TrialRecord], sha256: str, whose: str) -> Path:
    own = [run / t.checkpoint for t in trials if t.checkpoint and t.checkpoint_sha256 == sha256]
    own += (run / PRETRAINED).glob("*.safetensors")
    given = [] if study.teacher_checkpoint is None else [Path(study.teacher_checkpoint)]
    for path in (*own, *given):
        if path.is_file() and sha256_file(path) == sha256:
            return path.absolute()
    raise ValueError(f"{whose} weights (sha256 {sha256[:12]}) are neither in {run} nor where they were given")
