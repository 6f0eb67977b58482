"""The teacher under Optuna: learning rate and schedule, chosen on validation accuracy.

python sweeps/teacher_search.py --data cifar10 --teacher resnet18 --teacher-samples 4 --teacher-epochs 30
"""

from __future__ import annotations

import sys
from pathlib import Path

from cifar_tune import cli
from cifar_tune.config import TEACHER_ARM, StudyConfig
from cifar_tune.records import TrialRecord
from cifar_tune.tuning.stages import search, training_slots
from cifar_tune.tuning.trainables import TrainTask
from sweeps.job import Job, best_trial, job, parse_study, prepare, write_tables


def search_teacher(work: Job) -> TrialRecord:
    """Run the teacher search; returns its best trial. StudyFailedError where every trial failed."""
    study = work.study
    slots = training_slots(study, work.info, work.device, study.teacher_samples)
    task = TrainTask(
        study=study,
        arm=TEACHER_ARM,
        model=study.teacher,
        device=work.device,
        threads=slots.cpus,
        teacher=None,
        teacher_folder="",
        data=work.data,
    )
    trials = search(task, study.teacher_samples, slots, work.run, str(work.about_data["label"]), work.ledger, work.view)
    best = best_trial(trials)
    if best is None:
        raise cli.StudyFailedError(f"no teacher: every trial failed, the last with: {trials[-1].error}")
    return best


def run(config: StudyConfig) -> Path:
    """Search the teacher alone; returns the path of its best weights."""
    with job(prepare(config)) as work:
        best = search_teacher(work)
        write_tables(work, [])
        work.view.say(f"best validation accuracy {best.val_accuracy:.2%}, trial {best.trial_id}")
        assert best.checkpoint is not None
        return work.run / best.checkpoint


if __name__ == "__main__":
    cli.run_command(lambda: run(parse_study(sys.argv[1:], "teacher_search.py", __doc__ or "")))
