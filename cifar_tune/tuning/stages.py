"""The steps of a run that Tune runs: a search, the training of chosen recipes, and the cells of a grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import ray
from ray import tune
from ray.tune.search import ConcurrencyLimiter

from cifar_tune.errors import StudyFailedError
from cifar_tune.records import EpochRecord, TrialRecord
from cifar_tune.study import StudyConfig
from cifar_tune.tuning.cluster import NodeWatch
from cifar_tune.tuning.context import RunContext
from cifar_tune.tuning.experiment import Experiment, fit
from cifar_tune.tuning.keeper import TrialKeeper, searched
from cifar_tune.tuning.progress import TrialEnd, TrialWatch
from cifar_tune.tuning.searcher import StudySearch, first_points, make_scheduler, make_searcher
from cifar_tune.tuning.slots import Slots
from cifar_tune.tuning.trainables import TRAINABLES, Training, TrainTask
from cifar_tune.tuning.unfinished import forget_ended, unfinished

RETRIES = 2
"""How often a training whose worker dies goes on from its last epoch."""
JOURNAL = "optuna.journal"
"""Optuna's studies of a run: `optuna-dashboard <run>/optuna.journal`."""

C = TypeVar("C", covariant=True)


# --- trainings --------------------------------------------------------------------------------------------------


def search(
    context: RunContext, task: TrainTask, num_samples: int, slots: Slots, earlier: Mapping[str, Any] | None = None
) -> list[TrialRecord]:
    """Run one arm's search for one model, less what the ledger holds; returns all its trials.

    Args:
        earlier: the best point of an earlier run, tried after the authors' defaults.
    """
    assert task.template is not None, "a search has a template"
    study, arm, model, epochs = task.study, task.template.arm, task.template.model, task.template.epochs
    finished = searched(context.ledger, task)
    missing = num_samples - len(finished)
    if missing <= 0:
        return finished
    begun = [b for b in unfinished(context.run, context.ledger) if b.trial_id == task.trial_id(task.training(b.sample))]
    first = first_points(study, arm, finished, [b.sample for b in begun], earlier)
    searcher = make_searcher(study, arm, finished, first, context.run / JOURNAL, f"{context.run.name} {arm} {model}")
    tune_config = tune.TuneConfig(
        num_samples=missing,
        search_alg=ConcurrencyLimiter(searcher, max_concurrent=slots.concurrent),
        # the scheduler takes metric and mode from here, the searcher needs its own copy
        scheduler=make_scheduler(study, arm, _epochs_of(context, finished)),
        reuse_actors=reuses_actors(study),
    )
    task = dataclasses.replace(task, begun={b.trial_id: b for b in begun})
    experiment = _trainings(f"{arm}-{model}-{len(finished)}", task, slots, tune_config)
    _train(context, task, experiment, f"{arm} {model}", missing * epochs)
    return _whole_search(context, task, searcher, num_samples)


def retrain(
    context: RunContext, task: TrainTask, trainings: Sequence[Training], slots: Slots, name: str = "finalists"
) -> list[TrialRecord]:
    """Train finalists, less what the ledger holds; returns them in the order of `trainings`."""
    done = {r.trial_id for r in context.ledger.read(TrialRecord)}
    missing = [t for t in trainings if task.trial_id(t) not in done]
    if missing:
        task = dataclasses.replace(task, begun={b.trial_id: b for b in unfinished(context.run, context.ledger)})
        experiment = _trainings(name, task, slots, tune.TuneConfig(reuse_actors=reuses_actors(task.study)))
        space = {"cell": tune.grid_search([dataclasses.asdict(t) for t in missing])}
        experiment = dataclasses.replace(experiment, param_space=space)
        _train(context, task, experiment, name, sum(t.epochs for t in missing))
    trials = {r.trial_id: r for r in context.ledger.read(TrialRecord)}
    return [trials[task.trial_id(t)] for t in trainings]


def reuses_actors(study: StudyConfig) -> bool:
    """Whether trials follow each other in one process. Not where steps are compiled: dynamo gives up after a few models
    in one, and CUDA graphs stay with the thread of the trial that made them.
    """
    return not study.recipe.compile_step


def _epochs_of(context: RunContext, trials: Sequence[TrialRecord]) -> list[EpochRecord]:
    ids = {t.trial_id for t in trials}
    return [e for e in context.ledger.read(EpochRecord) if e.trial_id in ids]


def _trainings(name: str, task: TrainTask, slots: Slots, tune_config: tune.TuneConfig) -> Experiment:
    return Experiment(
        name=name,
        trainable=tune.with_parameters(TRAINABLES[task.stage], task=task),
        bundle=slots.bundle,
        tune_config=tune_config,
        retries=RETRIES,
        log=task.study.log,
    )


def _train(context: RunContext, task: TrainTask, experiment: Experiment, title: str, epochs: int) -> None:
    """Run trainings beside a bar of their epochs; each is kept as it ends."""
    step_view = context.view.step(title, epochs, "epochs")
    fit(context, experiment, TrialKeeper(context, task, step_view).watch())
    step_view.end()
    forget_ended(context.run, context.ledger)


def _whole_search(context: RunContext, task: TrainTask, searcher: StudySearch, num_samples: int) -> list[TrialRecord]:
    """All trials of a search that has ended. StudyFailedError where some are missing although the space holds more."""
    assert task.template is not None
    trials, title = searched(context.ledger, task), f"{task.template.arm} {task.template.model}"
    if searcher.exhausted:
        context.view.say(f"{title}: the space holds no more than {len(trials)} different trials")
    elif len(trials) < num_samples:
        raise StudyFailedError(f"{title} ended with {len(trials)} of {num_samples} trials; --resume goes on")
    return trials


# --- cells ------------------------------------------------------------------------------------------------------


class CellTask(Protocol[C]):
    """What the trials of a step share: their cells, and what the workbench must know besides."""

    @property
    def cells(self) -> Sequence[C]:
        """A trial each."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CellStep:
    """A step of a run whose trials do one cell each."""

    title: str
    """Of its bar."""
    trainable: Callable[..., None]
    """One of `proxies`."""
    bundle: dict[str, float]
    """What a trial holds of Ray's resources."""


def run_cells(
    context: RunContext, step: CellStep, task: CellTask[C], keep: Callable[[C, Any, str | None], str]
) -> None:
    """Run one trial a cell, on the measuring node. Tune carries the cell's number; the cells lie in the task.

    Args:
        keep: called as each trial ends, with the cell, what the workbench made of it (None: the worker died) and the
            error; returns what to show beside the progress bar.

    Raises StudyFailedError when that node is lost: figures of one run come from one machine.
    """
    if not task.cells:
        return
    step_view = context.view.step(step.title, len(task.cells), "cells")

    def on_end(trial: TrialEnd) -> None:
        shown = keep(task.cells[trial.config["cell"]], trial.metrics.get("result"), trial.error)
        step_view.advance(best=shown)

    experiment = Experiment(
        name=step.title.replace(" ", "-"),
        # in a list the reference stays one: the trials need not know what they hand on
        trainable=tune.with_parameters(step.trainable, workbench=context.workbench, task=[ray.put(task)]),
        bundle=step.bundle,
        tune_config=tune.TuneConfig(reuse_actors=True),
        param_space={"cell": tune.grid_search(list(range(len(task.cells))))},
    )
    fit(context, experiment, TrialWatch(None, on_end, NodeWatch(context.info.measuring)))
    step_view.end()
