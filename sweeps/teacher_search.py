"""The teacher under Optuna: learning rate and schedule, chosen on validation accuracy.

python sweeps/teacher_search.py --data cifar10 --teacher resnet18 --teacher-samples 4 --teacher-epochs 30
"""

from __future__ import annotations

import sys

from cifar_tune import cli
from cifar_tune.config import TEACHER_ARM
from cifar_tune.errors import StudyFailedError
from cifar_tune.records import TrialRecord
from cifar_tune.space import point_of
from cifar_tune.study import StudyConfig
from cifar_tune.tuning.keeper import ranked
from cifar_tune.tuning.slots import training_slots
from cifar_tune.tuning.stages import retrain, search
from cifar_tune.tuning.trainables import Training
from sweeps.steps.checks import parse_study, prepare
from sweeps.steps.job import Job, best_before, job, shown, train_task, with_start, write_tables


def search_teacher(work: Job) -> TrialRecord:
    """Run the teacher search; returns its best trial. StudyFailedError where every trial failed."""
    study = work.study
    slots = training_slots(study, work.info, work.device, study.teacher_samples)
    epochs = study.arm_epochs(TEACHER_ARM)
    fresh = Training(arm=TEACHER_ARM, model=study.teacher, sample={}, seed=study.seed, epochs=epochs)
    template = with_start(work, fresh)
    task = train_task(work, TEACHER_ARM, slots, template)
    warm = best_before(study, TEACHER_ARM, study.teacher)
    trials = search(work, task, study.teacher_samples, slots, warm)
    best = ranked(trials)
    if not best:
        raise StudyFailedError(
            f"no teacher: every trial failed, the last with: {trials[-1].error}; "
            f"--resume with --teacher-samples {study.teacher_samples + 1} tries another"
        )
    return best[0]


def train_teacher_seeds(work: Job, best: TrialRecord) -> list[TrialRecord]:
    """The teacher's recipe with further seeds, whose answers are averaged with its own; none where one answers."""
    study = work.study
    if study.teacher_answers != "seeds":
        return []
    trainings = [
        Training(
            arm=TEACHER_ARM,
            model=best.model,
            sample=point_of(best, study, TEACHER_ARM),
            seed=seed,
            epochs=study.arm_epochs(TEACHER_ARM),
        )
        for seed in range(study.seed + 1, study.seed + study.teacher_seeds)
    ]
    slots = training_slots(study, work.info, work.device, max(1, len(trainings)))
    trainings = [with_start(work, training) for training in trainings]
    trials = retrain(work, train_task(work, TEACHER_ARM, slots), trainings, slots, "teacher seeds")
    return [trial for trial in trials if trial.checkpoint is not None]


def run(config: StudyConfig) -> str:
    """Search only the teacher; returns the path or URI of its best weights."""
    with job(prepare(config), measures=False) as work:
        best = search_teacher(work)
        write_tables(work)
        work.view.say(f"best validation accuracy {best.val_accuracy:.2%}, trial {best.trial_id}")
        assert best.checkpoint is not None
        return shown(work, work.run / best.checkpoint)


if __name__ == "__main__":
    cli.run_command(lambda: run(parse_study(sys.argv[1:], "teacher_search.py", __doc__ or "")))
