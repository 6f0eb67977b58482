"""The main job: teacher -> plain students -> distillation search -> finalists -> variant grid -> front -> report.

    python sweeps/distill_search.py                                # CIFAR-10, as large as the machine allows
    python sweeps/distill_search.py --preset quick                 # handwritten digits, a few minutes
    python sweeps/distill_search.py --data FOLDER --students mobilenet_v3_small --num-samples 8 --epochs 10

The last line of standard output is the path of the report.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.report import Candidate, write_report
from cifar_tune import cli
from cifar_tune.candidate import is_shipped, write_candidate
from cifar_tune.cli import StudyFailedError
from cifar_tune.config import DISTILL_ARM, PLAIN_ARM, REFERENCE, TEACHER_ARM, Arm, StudyConfig
from cifar_tune.records import EvaluationRecord, LatencyRecord, TrialRecord
from cifar_tune.subjects import Subject
from cifar_tune.teacher import TeacherRef
from cifar_tune.tuning.stages import search, training_slots
from cifar_tune.tuning.trainables import TrainTask
from sweeps.grid import (
    artifact_of,
    cell_of,
    forget_builds,
    measure_cells,
    measure_grid,
    study_variants,
)
from sweeps.job import (
    Job,
    Prepared,
    as_subject,
    best_trial,
    brought_teacher,
    job,
    parse_study,
    prepare,
    teacher_ref,
    write_tables,
)
from sweeps.plan import plan, print_plan
from sweeps.teacher_search import search_teacher

CONFIRMATIONS = 3
"""Fresh runs of candidate and baseline after the choice (R16)."""


def run(config: StudyConfig) -> Path:
    """The whole job; returns the path of the report."""
    prepared = prepare(config)
    print_plan(prepared, plan(prepared))
    with job(prepared) as work:
        subjects = finalists(work, prepared, within_budget(work))
        measure_grid(work, subjects)
        read_test_set(work, subjects)
        write_tables(work, subjects)
        result = write_report(work.run)
        confirm(work, subjects, result.candidate)
        write_tables(work, subjects)
        result = write_report(work.run)
        if result.candidate is not None:
            ship(work, prepared, subjects, find_row(work, result.candidate))
        forget_builds(work.run)
        work.view.say(result.text)
    return result.path


def within_budget(work: Job) -> tuple[str, ...]:
    """The students whose fastest variant can meet the latency budget, measured with random weights before any training.

    Raises:
        StudyFailedError: none can.
    """
    budget, students = work.study.latency_budget_ms, work.study.students
    if budget is None:
        return students
    untrained = [
        Subject(
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
    cells = [cell_of(s, v, stage="budget") for s in untrained for v in variants]
    measure_cells(work, cells, "latency budget", evaluate=False)
    rows = [r for r in work.ledger.read(LatencyRecord) if r.stage == "budget" and r.p50_ms is not None]
    fastest = {s: min((r for r in rows if r.model == s), key=lambda r: r.p50_ms or 0.0, default=None) for s in students}
    said = [f"{s} {row.p50_ms:.2f} ms ({row.variant})" for s, row in fastest.items() if row is not None]
    # the lower end of the interval: what is too slow must be so for certain
    kept = tuple(s for s, row in fastest.items() if row is None or (row.p50_low_ms or 0.0) <= budget)
    work.view.say(f"Budget of {budget:g} ms, fastest with random weights: {', '.join(said)}")
    if not kept:
        write_tables(work, [])
        raise StudyFailedError(f"no student meets the budget of {budget:g} ms: {', '.join(said)}")
    if dropped := [s for s in students if s not in kept]:
        work.view.say(f"Dropped before the search: {', '.join(dropped)}")
    return kept


def finalists(work: Job, prepared: Prepared, students: Sequence[str]) -> list[Subject]:
    """The trained models that go on: the teacher and, for each student and arm, the best by validation."""
    if prepared.teacher is None:
        trial = search_teacher(work)
        teacher, chosen = teacher_ref(work.run, trial), [as_subject(work, trial)]
    else:
        teacher, chosen = prepared.teacher, [brought_teacher(prepared.teacher, work.classes)]
    for student in students:
        plain = search_student(work, student, PLAIN_ARM, teacher)
        distill = None
        if distillation_due(work.study, plain):
            distill = search_student(work, student, DISTILL_ARM, teacher)
        chosen += [as_subject(work, t) for t in (plain, distill) if t is not None]
    return chosen


def search_student(work: Job, student: str, arm: Arm, teacher: TeacherRef) -> TrialRecord | None:
    """One arm of one student; None where every trial failed, which the report says."""
    study = work.study
    slots = training_slots(study, work.info, work.device, study.num_samples)
    task = TrainTask(
        study=study,
        arm=arm,
        model=student,
        device=work.device,
        threads=slots.cpus,
        teacher=teacher,
        teacher_folder=str(work.run / "teacher_logits"),
        data=work.data,
    )
    dataset = str(work.about_data["label"])
    return best_trial(search(task, study.num_samples, slots, work.run, dataset, work.ledger, work.view))


def distillation_due(study: StudyConfig, plain: TrialRecord | None) -> bool:
    """R7: by rule, or, for `auto`, where the plain student misses the accuracy on validation data."""
    if study.distill == "auto":
        return plain is None or (plain.val_accuracy or 0.0) < study.min_accuracy
    return study.distill == "always"


def read_test_set(work: Job, subjects: Sequence[Subject]) -> None:
    """The finalists' rows of stage `final`: the FP32 eager accuracy on the test set, read once by the grid."""
    trials = {t.trial_id: t for t in work.ledger.read(TrialRecord)}
    evaluations = {r.trial_id: r for r in work.ledger.read(EvaluationRecord) if r.variant == REFERENCE.name}
    for subject in subjects:
        trial, evaluation = trials.get(subject.trial_id), evaluations.get(subject.trial_id)
        if trial is None or evaluation is None:
            continue  # a teacher that the user brought has no trial of ours
        work.ledger.put_trial(
            dataclasses.replace(
                trial,
                trial_id=f"final-{trial.trial_id}",
                stage="final",
                status="ok" if evaluation.status == "ok" else "failed",
                error=evaluation.error,
                test_accuracy=evaluation.test_accuracy,
            )
        )


def ship(work: Job, prepared: Prepared, subjects: Sequence[Subject], row: LatencyRecord) -> None:
    """Write the candidate's folder."""
    subject = next(s for s in subjects if s.trial_id == row.trial_id)
    assert subject.checkpoint is not None
    if is_shipped(work.run, row):
        return  # by the run that is resumed, whose artifacts are gone
    data = prepared.data
    _, height, _ = work.input_shape
    artifact = artifact_of(work, subject, row)
    write_candidate(work.run, row, Path(subject.checkpoint), artifact, data.classes, data.mean, data.std, height)


def find_row(work: Job, candidate: Candidate) -> LatencyRecord:
    """The grid's row of the candidate."""
    wanted = (candidate.trial_id, candidate.variant, "grid")
    return next(r for r in work.ledger.read(LatencyRecord) if (r.trial_id, r.variant, r.stage) == wanted)


def confirm(work: Job, subjects: Sequence[Subject], candidate: Candidate | None) -> None:
    """R16: candidate and baseline once more, three fresh runs each. The baseline is FP32 eager of the teacher."""
    if candidate is None:
        return
    row = find_row(work, candidate)
    chosen = row.measured_variant
    subject = next(s for s in subjects if s.trial_id == row.trial_id)
    baseline = next(s for s in subjects if s.arm == TEACHER_ARM)
    cells = [
        cell_of(s, v, stage="confirm", repeat=repeat)
        for repeat in range(1, CONFIRMATIONS + 1)
        for s, v in {(subject, chosen), (baseline, REFERENCE)}
    ]
    measure_cells(work, cells, "confirm")


def main(argv: Sequence[str]) -> None:
    """The command: the last line of standard output is the report's path."""
    cli.run_command(lambda: run(parse_study(argv, "distill_search.py", __doc__ or "")))


if __name__ == "__main__":
    main(sys.argv[1:])
