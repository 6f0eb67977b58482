"""What a run will do and about how long it will take, printed before it starts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from cifar_tune.blocks import LOOKS
from cifar_tune.config import DISTILL_ARM, GRID, PLAIN_ARM, TEACHER_ARM, Arm, Variant, grid_variants
from cifar_tune.device import usable_cpus
from cifar_tune.models.pruning import pruned_name
from cifar_tune.models.registry import build_model, place
from cifar_tune.records import Stage, TrialRecord, recipe_of
from cifar_tune.runs.ledger import Ledger
from cifar_tune.runtimes import RUNTIMES
from cifar_tune.study import StudyConfig
from cifar_tune.training.loop import Stepper
from cifar_tune.training.teacher import LOOKS_AN_IMAGE
from sweeps.steps.checks import Prepared
from sweeps.steps.variants import study_variants

SECONDS_A_FIT = 4.0
"""Start-up of a Tune experiment and its workers."""
SECONDS_A_LOAD = 2.0
"""A fresh process that loads a variant."""
SECONDS_A_BUILD = 30.0
"""A cold compilation on one core."""
SECONDS_AN_EXPORT = 8.0
PROBE_BATCH = 64
BYTES_A_SAMPLE = 32
"""Of a latency sample, as text in the ledger and as a number in the table."""
BYTES_A_TRIAL = 100_000
"""Of a trial, weights aside: its records, Tune's state and Optuna's journal."""
FIXED_BYTES = 10_000_000
"""Report, pictures, the compiled form of the candidate."""
ANSWER_SHARE = 0.25
"""What a teacher's answer for an image takes, as a share of training on it."""
READING_SHARE = 0.7
"""What FP32 takes to read a test image, by itself or in a batch, as a share of training on one."""

CONDITIONS = {"auto": ", if plain misses the accuracy", "ahead": ", if the teacher is ahead"}
"""When a study of this rule distils."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedStep:
    """One line of the plan."""

    name: str
    work: str
    seconds: float


def plan(prepared: Prepared) -> list[PlannedStep]:
    """The steps with estimated times; training rates are probed with two steps of each model."""
    study = prepared.study
    cores = usable_cpus() if prepared.device == "cpu" else 1
    arms: dict[str, Arm] = {**dict.fromkeys(study.students, PLAIN_ARM), study.teacher: TEACHER_ARM}
    rates = {model: cores * images_per_second(prepared, model, arm) for model, arm in arms.items()}
    rates |= {pruned_name(model, share): rates[model] / share for model in arms for share in study.prune}
    return [*budget_steps(prepared), *training_steps(prepared, rates), *grid_steps(prepared, rates, cores)]


def budget_steps(prepared: Prepared) -> list[PlannedStep]:
    """What shows, before any training, which students can meet a latency budget."""
    study = prepared.study
    if study.latency_budget_ms is None:
        return []
    rows = len(study.students) * len(study_variants(study, prepared.device))
    work = f"{rows} rows with random weights, and their builds, which serve the grid too"
    return [PlannedStep(name="latency budget", work=work, seconds=rows * _row_seconds(study))]


def training_steps(prepared: Prepared, rates: Mapping[str, float]) -> list[PlannedStep]:
    """Teacher, searches and finalists; the teacher's answers count where they are first needed.

    Args:
        rates: of each model, training images a second of the whole machine.
    """
    study, images, side = prepared.study, len(prepared.data.train_images), prepared.data.train_images.shape[1]
    searched = images if prepared.search_data is None else len(prepared.search_data.train_images)
    unlabelled = _unlabelled(prepared)
    arms = study_arms(study)
    # what a run in a bucket holds is known when it is here
    finished = (
        Counter((t.stage, t.model, _is_seed(t)) for t in Ledger(prepared.run).read(TrialRecord))
        if study.resume
        else Counter()
    )

    def training(
        name: str,
        model: str,
        stage: Stage,
        epochs: int,
        trials: int,
        images: int,
        answers: float = 0.0,
        *,
        seeds: bool = False,
    ) -> PlannedStep:
        done = min(trials, finished[stage, model, seeds])
        passes = _full_sized_epochs(study, stage, epochs, side)
        seconds = (trials - done) * passes * images / rates[model] + (answers + SECONDS_A_FIT if done < trials else 0.0)
        of = "" if images == len(prepared.data.train_images) else f" on {images} images"
        work = f"{trials} trials of {epochs} epochs{of}" + (f", {done} of them done" if done else "")
        return PlannedStep(name=name, work=work, seconds=seconds)

    def answers(images: int, epochs: int) -> float:
        of_one = ANSWER_SHARE * images * min(epochs, study.views.distinct or epochs) / rates[study.teacher]
        return of_one * {"one": 1, "seeds": study.teacher_seeds, "views": LOOKS_AN_IMAGE}[study.teacher_answers]

    steps: list[PlannedStep] = []
    if prepared.teacher is None:
        name, epochs = f"teacher {study.teacher}", study.arm_epochs(TEACHER_ARM)
        steps.append(training(name, study.teacher, TEACHER_ARM, epochs, study.teacher_samples, images))
        if study.teacher_answers == "seeds" and study.teacher_seeds > 1:
            more = study.teacher_seeds - 1
            steps.append(training("teacher seeds", study.teacher, TEACHER_ARM, epochs, more, images, seeds=True))
    for number, student in enumerate(study.students):
        for arm in arms:
            condition = CONDITIONS.get(study.distill, "") if arm == DISTILL_ARM else ""
            seen = searched + (unlabelled if arm == DISTILL_ARM else 0)
            first = answers(seen, study.epochs) if arm == DISTILL_ARM and number == 0 else 0.0
            name = f"{arm} {student}{condition}"
            steps.append(training(name, student, arm, study.epochs, study.num_samples, seen, first))
    trials = _finalists(study)
    for number, student in enumerate(study.students):
        first = answers(images + unlabelled, study.finalist_epochs) if DISTILL_ARM in arms and number == 0 else 0.0
        steps.append(training(f"finalists {student}", student, "final", study.finalist_epochs, trials, images, first))
    return steps + [
        training(f"pruned {model}", model, "final", study.pruned_epochs, 1, images) for model in pruned_models(study)
    ]


def _finalists(study: StudyConfig) -> int:
    """Most trainings of a student's finalists: plain recipes, distilled ones, and these on labels only."""
    recipes = 3 if DISTILL_ARM in study_arms(study) else 1
    return recipes * min(study.final_top, study.num_samples) * study.final_seeds


def _unlabelled(prepared: Prepared) -> int:
    """Images without labels that distilled students see."""
    more = prepared.data.unlabelled_images
    return 0 if more is None else len(more)


def _is_seed(trial: TrialRecord) -> bool:
    """Whether a trial is a further seed of the teacher's recipe."""
    return trial.stage == TEACHER_ARM and recipe_of(trial.trial_id) != trial.trial_id


def pruned_models(study: StudyConfig) -> list[str]:
    """What `--prune` makes of teacher and students."""
    wholes = dict.fromkeys((study.teacher, *study.students))
    return [pruned_name(model, share) for model in wholes for share in study.prune]


def measured_models(study: StudyConfig) -> list[str]:
    """The architectures whose variants are measured, one for each finalist."""
    return [study.teacher, *(s for s in study.students for _ in study_arms(study)), *pruned_models(study)]


def _full_sized_epochs(study: StudyConfig, stage: Stage, epochs: int, side: int) -> float:
    """Epochs of full-sized images that cost what these epochs do: arithmetic goes with the pixels."""
    arm, start = TEACHER_ARM if stage == TEACHER_ARM else PLAIN_ARM, study.pretrained_paths.get(study.teacher)
    config = study.train_config(study.teacher, arm, {}, epochs=epochs, start=start)
    return sum(config.share_of_side(epoch, side) ** 2 for epoch in range(1, epochs + 1))


def study_arms(study: StudyConfig) -> tuple[Arm, ...]:
    """What each student may be trained for."""
    return (PLAIN_ARM,) if study.distill == "never" else (PLAIN_ARM, DISTILL_ARM)


def grid_steps(prepared: Prepared, rates: Mapping[str, float], cores: int) -> list[PlannedStep]:
    """Builds, readings of the test set, and measurements."""
    study, variants = prepared.study, study_variants(prepared.study, prepared.device)
    models = measured_models(study)
    compiles = len(set(models)) * sum(v.compile != "none" for v in variants)
    exports = len(models) * sum(RUNTIMES[v.runtime].export is not None for v in {v.built for v in variants})
    builds = (SECONDS_A_BUILD * compiles + SECONDS_AN_EXPORT * exports) / cores
    readings = len({v.evaluated for v in variants}) * len(prepared.data.test_images)
    reading = READING_SHARE * readings * sum(1 / rates[model] for model in models)
    rows = len(models) * len(variants)
    return [
        PlannedStep(
            name="prepare variants",
            work=f"{compiles} compilations, {exports} exports, {len(models)} finalists read the test set",
            seconds=builds + reading + 2 * SECONDS_A_FIT,
        ),
        PlannedStep(
            name="latency",
            work=f"{rows} rows, one at a time: {_variants_in_words(study, variants)}",
            seconds=rows * _row_seconds(study),
        ),
        *race_steps(study),
    ]


def _variants_in_words(study: StudyConfig, variants: Sequence[Variant]) -> str:
    """The axes of the grid and how many there are beside it; the names of variants that the study names."""
    if study.variants is not None:
        return ", ".join(variant.name for variant in variants)
    grid = [variant for variant in variants if variant in grid_variants()]
    values = [dict.fromkeys(str(getattr(variant, axis)) for variant in grid) for axis in GRID]
    axes = " x ".join("{" + ", ".join(seen) + "}" for seen in values)
    more = len(variants) - len(grid)
    return axes + (f" and {more} of other runtimes" if more else "")


def race_steps(study: StudyConfig) -> list[PlannedStep]:
    """The race of the finalists, and what confirms its winner; few races last as long as they may."""
    most, blocks = study.race.contenders, study.race.confirm_blocks
    return [
        PlannedStep(
            name="race",
            work=f"{LOOKS[0]} to {LOOKS[-1]} blocks of fresh processes, at most {most} finalists in turns",
            seconds=min(study.race.time_limit, LOOKS[0] * most * SECONDS_A_LOAD) + SECONDS_A_FIT,
        ),
        PlannedStep(
            name="confirm",
            work=f"{blocks} blocks of candidate and baseline",
            seconds=2 * blocks * SECONDS_A_LOAD + SECONDS_A_FIT,
        ),
    ]


def _row_seconds(study: StudyConfig) -> float:
    """About half of what a row may take: most variants are done long before the time limit."""
    processes = study.latency.repeats if study.latency.fresh_processes else 1
    return study.latency.time_limit / 2 + processes * SECONDS_A_LOAD


def images_per_second(prepared: Prepared, model: str, arm: Arm) -> float:
    """Training rate on one core, or on the GPU."""
    size = prepared.data.train_images.shape[1]
    sample = {"lr": 0.01, "schedule": "cosine"}
    config = prepared.study.train_config(model, arm, sample, device=prepared.device)
    torch.set_num_threads(1)
    network = place(build_model(model, len(prepared.data.classes)), prepared.device).train()
    stepper = Stepper(config, network, prepared.data, steps_per_epoch=2)
    images = torch.randn(PROBE_BATCH, 3, size, size, device=prepared.device).to(memory_format=torch.channels_last)
    labels = torch.zeros(PROBE_BATCH, dtype=torch.int64, device=prepared.device)
    stepper.step(images, labels, None)
    stepper.finish_epoch()
    started = time.perf_counter()
    stepper.step(images, labels, None)
    stepper.finish_epoch()
    return PROBE_BATCH / (time.perf_counter() - started)


def disk_bytes(prepared: Prepared) -> int:
    """The most that the run's folder takes at any time."""
    study, data = prepared.study, prepared.data
    classes, images, tests = len(data.classes), len(data.train_images), len(data.test_images)
    searched = images if prepared.search_data is None else len(prepared.search_data.train_images)
    arms = study_arms(study)
    weights = {model: weight_bytes(model, classes) for model in {study.teacher, *study.students}}
    pruned = {model: weight_bytes(model, classes) for model in pruned_models(study)}
    finalists = _finalists(study)
    # best and last weights of what is kept
    seeds = study.teacher_seeds - 1 if study.teacher_answers == "seeds" else 0
    kept = 2 * weights[study.teacher] * (study.kept_trials(TEACHER_ARM) + seeds)
    kept += sum(2 * weights[s] * (len(arms) * study.kept_trials(PLAIN_ARM) + finalists) for s in study.students)
    kept += 2 * sum(pruned.values())
    # a trial at work: best, last and the optimiser's state, of an epoch and of the one before
    at_work = usable_cpus() * 2 * (4 if study.recipe.optimizer == "adamw" else 3) * max(weights.values())
    views = min(study.views.distinct or study.finalist_epochs, study.finalist_epochs)
    answers = 2 * classes * views * (images + searched + 2 * _unlabelled(prepared)) if len(arms) > 1 else 0
    variants = study_variants(study, prepared.device)
    models = measured_models(study)
    samples = study.latency.repeats * study.latency.max_iterations * 1.3  # the paired reference takes some
    rows = len(models) * len(variants) * (BYTES_A_SAMPLE * samples + 8 * tests)
    trials = study.teacher_samples + len(study.students) * (len(arms) * study.num_samples + finalists) + len(pruned)
    kept += sum(weights[model] for model in prepared.pretrained)
    fixed = FIXED_BYTES + trials * BYTES_A_TRIAL + 2 * max(weights.values())
    return int(kept + at_work + answers + rows + fixed)


def weight_bytes(model: str, classes: int) -> int:
    """Size of a model's weights."""
    return sum(t.numel() * t.element_size() for t in build_model(model, classes).state_dict().values())


def print_plan(prepared: Prepared, steps: list[PlannedStep]) -> None:
    """The plan on standard error."""
    data, study = prepared.data, prepared.study
    console = Console(stderr=True, highlight=False)
    console.print(f"[bold]Run {prepared.run.name}[/bold]  in {prepared.run.parent}", soft_wrap=True)
    parts = f"{len(data.train_images)} train, {len(data.validation_images)} validation, {len(data.test_images)} test"
    if data.unlabelled_images is not None:
        parts = f"{len(data.unlabelled_images)} without labels, {parts}"
    side = data.train_images.shape[1]
    console.print(f"Data: {data.label}, {parts} images of {side}x{side}, {len(data.classes)} classes", soft_wrap=True)
    if data.skipped:
        console.print(f"Skipped: {data.skipped} unreadable images")
    console.print(f"Disk: at most {disk_bytes(prepared) / 1e6:.0f} MB")
    console.print(f"Goal: lowest batch-1 latency on {prepared.device} at {study.min_accuracy:.0%} accuracy or more")
    table = Table("step", "work", "about", box=None, pad_edge=False)
    for step in steps:
        table.add_row(step.name, step.work, readable_seconds(step.seconds))
    table.add_row(
        "[bold]all[/bold]",
        "early stopping makes it less" if study.early_stopping else "",
        readable_seconds(sum(s.seconds for s in steps)),
    )
    console.print(table)


def readable_seconds(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
