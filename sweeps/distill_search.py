"""The main job: teacher -> plain students -> distillation search -> finalists -> variant grid -> race -> report.

    python sweeps/distill_search.py                                # CIFAR-10, as large as the machine allows
    python sweeps/distill_search.py --preset quick                 # handwritten digits, a few minutes
    python sweeps/distill_search.py --data FOLDER --students mobilenet_v3_small --num-samples 8 --epochs 10

Installed, it is `cifar-tune search`. The last line of standard output is the path of the report.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.report import write_report
from cifar_tune import cli
from cifar_tune.config import DISTILL_ARM, PLAIN_ARM, REFERENCE, Arm
from cifar_tune.errors import StudyFailedError
from cifar_tune.measuring.target import MeasurementCell, Target
from cifar_tune.models.pruning import pruned_name
from cifar_tune.records import EvaluationRecord, ImportanceRecord, LatencyRecord, TrialRecord, recipe_of
from cifar_tune.space import first_point, point_of
from cifar_tune.store import note_checksums, write_records
from cifar_tune.study import TEACHER_LEAD, StudyConfig
from cifar_tune.training.teacher import TeacherRef
from cifar_tune.tuning.keeper import ranked
from cifar_tune.tuning.searcher import importance
from cifar_tune.tuning.slots import training_slots
from cifar_tune.tuning.stages import retrain, search
from cifar_tune.tuning.trainables import Training
from sweeps.steps.checks import Prepared, parse_study, prepare
from sweeps.steps.folder import check_room
from sweeps.steps.grid import forget_builds, measure_cells, measure_grid
from sweeps.steps.job import (
    Job,
    as_target,
    best_before,
    brought_teacher,
    chosen_finalists,
    job,
    precision_of,
    shown,
    teacher_ref,
    train_task,
    with_start,
    write_tables,
)
from sweeps.steps.plan import disk_bytes, plan, print_plan
from sweeps.steps.race import decide
from sweeps.steps.ship import ship
from sweeps.steps.variants import study_variants
from sweeps.teacher_search import search_teacher, train_teacher_seeds


@dataclass(frozen=True, kw_only=True, slots=True)
class Finalists:
    """What the searches end in."""

    targets: list[Target]
    """Teacher, and for each student and arm one: their variants are measured."""
    trials: list[TrialRecord]
    """All that read the test set: the students' with all their seeds, and our own teacher."""

    @property
    def ids(self) -> set[str]:
        """Trial ids of what is measured."""
        return {s.trial_id for s in self.targets}


def run(config: StudyConfig) -> str:
    """The whole job; returns the path or URI of the report."""
    prepared = prepare(config)
    check_room(prepared.run, disk_bytes(prepared))
    print_plan(prepared, plan(prepared))
    with job(prepared) as work:
        finalists = find_finalists(work, prepared, within_budget(work))
        write_importance(work)
        targets = finalists.targets
        measure_grid(work, targets, also_read=[as_target(work, t) for t in ranked(finalists.trials)])
        finals = with_test_accuracy(work, finalists.trials)
        decide(work, targets)
        write_tables(work, finals, finalists.ids)
        result = write_report(work.run)
        ship(work, prepared, targets, result)
        result = write_report(work.run)  # with what the check of the candidate found
        forget_builds(work.run)
        work.view.say(result.text)
    return shown(work, result.path)


def within_budget(work: Job) -> tuple[str, ...]:
    """The students whose fastest variant can meet the latency budget, measured with random weights before any training.

    Raises:
        StudyFailedError: none can.
    """
    budget, students = work.study.latency_budget_ms, work.study.students
    if budget is None:
        return students
    untrained = [
        Target(
            trial_id=f"untrained-{student}",
            model=student,
            arm="untrained",
            checkpoint=None,
            checkpoint_sha256=hashlib.sha256(f"random {student}".encode()).hexdigest(),
            classes=work.classes,
        )
        for student in students
    ]
    variants = study_variants(work.study, work.device)
    cells = [MeasurementCell(target=s, variant=v, stage="budget") for s in untrained for v in variants]
    measure_cells(work, cells, "latency budget", evaluate=False)
    rows = [r for r in work.ledger.read(LatencyRecord) if r.stage == "budget" and r.p50_ms is not None]
    fastest = {s: min((r for r in rows if r.model == s), key=lambda r: r.p50_ms or 0.0, default=None) for s in students}
    said = [f"{s} {row.p50_ms:.2f} ms ({row.variant})" for s, row in fastest.items() if row is not None]
    # the lower end of the interval: what is too slow must be so for certain
    kept = tuple(s for s, row in fastest.items() if row is None or (row.p50_low_ms or 0.0) <= budget)
    work.view.say(f"Budget of {budget:g} ms, fastest with random weights: {', '.join(said)}")
    if not kept:
        write_tables(work)
        raise StudyFailedError(f"no student meets the budget of {budget:g} ms: {', '.join(said)}")
    if dropped := [s for s in students if s not in kept]:
        work.view.say(f"Dropped before the search: {', '.join(dropped)}")
    return kept


def find_finalists(work: Job, prepared: Prepared, students: Sequence[str]) -> Finalists:
    """Search teacher and students, then train the students' best trials anew, with seeds that no trial had."""
    if prepared.teacher is None:
        trial = search_teacher(work)
        teacher = teacher_ref(work, [trial, *train_teacher_seeds(work, trial)])
        own_teacher, target = [trial], as_target(work, trial)
    else:
        teacher, own_teacher, target = prepared.teacher, [], brought_teacher(prepared.teacher, work.classes)
    teacher_accuracy = own_teacher[0].val_accuracy if own_teacher else None
    best: list[TrialRecord] = []
    for student in students:
        plain = search_student(work, student, PLAIN_ARM, teacher)
        best += plain
        if distillation_due(work.study, plain, teacher_accuracy):
            best += search_student(work, student, DISTILL_ARM, teacher)
    finals = train_finalists(work, best, teacher)
    finals += train_pruned(work, target, own_teacher, chosen_finalists(finals), teacher)
    chosen = [as_target(work, t) for t in chosen_finalists(finals)]
    return Finalists(targets=[target, *chosen], trials=[*own_teacher, *finals])


def search_student(work: Job, student: str, arm: Arm, teacher: TeacherRef) -> list[TrialRecord]:
    """One arm of one student: its best trials, at most `final_top`; none where every trial failed."""
    study = work.study
    slots = training_slots(study, work.info, work.device, study.num_samples)
    fresh = Training(arm=arm, model=student, sample={}, seed=study.seed, epochs=study.arm_epochs(arm))
    template = with_start(work, fresh)
    task = train_task(work, arm, slots, template, teacher)
    warm = best_before(study, arm, student)
    trials = search(work, task, study.num_samples, slots, warm)
    # as many recipes for each arm: where few trials ran to their end, the best of those that were stopped follow
    return ranked(trials)[: study.final_top]


def write_importance(work: Job) -> None:
    """What each parameter mattered in each search: the analysis, which has no Optuna, reads the file."""
    searches: dict[tuple[Arm, str], list[TrialRecord]] = {}
    for trial in work.ledger.read(TrialRecord):
        if trial.stage != "final" and recipe_of(trial.trial_id) == trial.trial_id:
            searches.setdefault((trial.stage, trial.model), []).append(trial)
    found = [
        ImportanceRecord(
            run=work.run.name,
            arm=arm,
            model=model,
            parameter=name,
            importance=of.share,
            chance=of.chance,
            trials=sum(t.status == "ok" for t in trials),
        )
        for (arm, model), trials in searches.items()
        for name, of in importance(trials, work.study, arm).items()
    ]
    write_records(work.run / "importance.parquet", ImportanceRecord, found)
    note_checksums(work.run, ["importance.parquet"])


def train_finalists(work: Job, best: Sequence[TrialRecord], teacher: TeacherRef) -> list[TrialRecord]:
    """The recipes of these trials at full length, on all training images, each with every final seed.

    A distilled recipe is trained on labels only, too: what it gains over that is the teacher's doing.
    """
    study = work.study
    recipes: list[tuple[Arm, TrialRecord]] = []
    for trial in best:
        arms: tuple[Arm, ...] = (DISTILL_ARM, PLAIN_ARM) if trial.arm == DISTILL_ARM else (PLAIN_ARM,)
        recipes.extend((arm, trial) for arm in arms)
    slots = training_slots(study, work.info, work.device, max(1, len(recipes) * len(study.finalist_seeds)))
    task = train_task(work, "final", slots, teacher=teacher)
    trainings: dict[str, Training] = {}  # by name: the plain winner's recipe may be the distilled one's
    for arm, trial in recipes:
        for seed in study.finalist_seeds:
            sample = point_of(trial, study, arm)
            training = Training(arm=arm, model=trial.model, sample=sample, seed=seed, epochs=study.finalist_epochs)
            trainings.setdefault(task.trial_id(training), with_start(work, training))
    return retrain(work, task, list(trainings.values()), slots)


def train_pruned(
    work: Job,
    teacher: Target,
    own_teacher: Sequence[TrialRecord],
    finalists: Sequence[TrialRecord],
    teaches: TeacherRef,
) -> list[TrialRecord]:
    """R33: the teacher and each student's best finalist, narrowed to each share of `--prune`, and trained on.

    Each goes on with its own recipe from the start of the schedule, at its full rate: that recovers more than low rates
    do (Renda et al., "Comparing Rewinding and Fine-tuning", 2020). The teacher teaches all of them, itself included.

    Args:
        own_teacher: the teacher's trial, where this run trained it.
    """
    study = work.study
    if not study.prune:
        return []
    arm: Arm = PLAIN_ARM if study.distill == "never" else DISTILL_ARM
    students: dict[str, TrialRecord] = {}
    for trial in ranked(finalists):
        students.setdefault(trial.model, trial)
    points = {
        trial.model: taught(point_of(trial, study, arm), study, arm) for trial in (*students.values(), *own_teacher)
    }
    wholes = {target.model: target for target in [*(as_target(work, t) for t in students.values()), teacher]}
    trainings = [
        Training(
            arm=arm,
            model=pruned_name(model, share),
            sample=points.get(model, first_point(study, arm)),
            seed=study.finalist_seeds[0],
            epochs=study.pruned_epochs,
            start=whole.checkpoint,
            start_sha256=whole.checkpoint_sha256,
            precision=precision_of(work, model),
        )
        for model, whole in wholes.items()
        for share in study.prune
    ]
    slots = training_slots(study, work.info, work.device, len(trainings))
    task = train_task(work, "final", slots, teacher=teaches)
    return retrain(work, task, trainings, slots, "pruned")


def taught(point: dict[str, Any], study: StudyConfig, arm: Arm) -> dict[str, Any]:
    """A recipe that listens to the teacher: a teacher's or plain student's, which does not, takes R6's T and alpha."""
    if arm != DISTILL_ARM or point["alpha"] > 0:
        return point
    default = first_point(study, arm)
    return {**point, "temperature": default["temperature"], "alpha": default["alpha"]}


def distillation_due(study: StudyConfig, plain: Sequence[TrialRecord], teacher_accuracy: float | None) -> bool:
    """R7: whether a student is distilled; see DistillRule.

    Args:
        plain: the best trials of its plain search, the best first.
        teacher_accuracy: of the teacher on validation data; None: it was brought, and is trusted to know more.
    """
    reached = plain[0].val_accuracy if plain else None
    if study.distill == "auto":
        return reached is None or reached < study.min_accuracy
    if study.distill == "ahead":
        return reached is None or teacher_accuracy is None or teacher_accuracy - reached >= TEACHER_LEAD
    return study.distill == "always"


def with_test_accuracy(work: Job, finals: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The rows of stage `final`, with the FP32 eager accuracy on the test set, which the grid has read."""
    evaluations = {r.trial_id: r for r in work.ledger.read(EvaluationRecord) if r.variant == REFERENCE.name}
    rows: list[TrialRecord] = []
    for trial in finals:
        row, read = _final(trial), evaluations.get(trial.trial_id)
        if read is not None:  # else it has no weights
            note = trial.note if read.error is None else f"the test set could not be read: {read.error}"
            row = dataclasses.replace(row, test_accuracy=read.test_accuracy, note=note)
        rows.append(row)
    return rows


def _final(trial: TrialRecord) -> TrialRecord:
    """The trial's row of stage `final`: a teacher's is a second one."""
    if trial.stage == "final":
        return trial
    return dataclasses.replace(trial, trial_id=f"final-{trial.trial_id}", stage="final")


def main(argv: Sequence[str], prog: str = "distill_search.py") -> None:
    """The command: the last line of standard output is the report's path."""
    cli.run_command(lambda: run(parse_study(argv, prog, __doc__ or "")))


if __name__ == "__main__":
    main(sys.argv[1:])
