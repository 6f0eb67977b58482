"""Optuna's TPE as a Tune searcher that tells Optuna the truth about how trials ended."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from cifar_tune.config import Arm
from cifar_tune.records import EpochRecord, TrialRecord
from cifar_tune.space import first_point, nearest_point, point_of, suggest
from cifar_tune.study import StudyConfig
from cifar_tune.tuning.unfinished import METRIC

LEAST_TRIALS = 4
"""Finished trials from which importance is computed."""
SHUFFLES = 39
"""Of accuracies among the trials: the least chance that they can tell is 1 in 40."""
TREES = 16
"""Of the forest behind fANOVA."""
TRIES = 50
"""Suggestions in a row that may repeat earlier ones before the space counts as exhausted."""


class StudySearch(OptunaSearch):
    """OptunaSearch that tells early-stopped trials as PRUNED and failed ones as FAIL, and suggests nothing twice.

    OptunaSearch tells a trial that ASHA stopped as COMPLETE with its low-fidelity value, and repeats a point where the
    space is small. Where nothing new is found, the search is finished.
    """

    exhausted = False
    """Whether the space holds nothing new."""

    # a searcher may also answer FINISHED; OptunaSearch's own annotation forgets it
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A point that no trial of the study has had."""
        assert self._ot_study is not None
        for _ in range(TRIES):
            point = super().suggest(trial_id)
            asked = self._ot_trials[trial_id]
            others = (t.params for t in self._ot_study.get_trials(deepcopy=False) if t.number != asked.number)
            if asked.params not in others:
                return point
            self._ot_trials.pop(trial_id)
            asked.set_user_attr("not run", "an earlier trial has the same parameters")
            self._ot_study.tell(asked, state=TrialState.FAIL)
        self.exhausted = True
        return Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how a trial ended."""
        state = _end_state(result, error=error)
        if state is TrialState.COMPLETE or trial_id in self._completed_trials:
            super().on_trial_complete(trial_id, result, error)
            return
        assert self._ot_study is not None
        if state is TrialState.PRUNED and result:
            # Tune does not pass on the result on which a trial was stopped, and TPE ranks the pruned by it
            self._ot_trials[trial_id].report(result[METRIC], result["epoch"])
        self._ot_study.tell(self._ot_trials[trial_id], state=state)
        self._completed_trials.add(trial_id)


def _end_state(result: dict[str, Any] | None, *, error: bool) -> TrialState:
    if error or not result or result.get("failure"):
        return TrialState.FAIL
    return TrialState.COMPLETE if result["epoch"] >= result["epochs"] else TrialState.PRUNED


def make_searcher(
    study: StudyConfig,
    arm: Arm,
    finished: Sequence[TrialRecord],
    first: Sequence[dict[str, Any]],
    journal: Path,
    name: str,
) -> StudySearch:
    """TPE over the arm's space.

    Args:
        finished: trials that are done; TPE knows them.
        first: points to try before TPE's own.
        journal: file of Optuna's storage, which `optuna-dashboard` reads while the search runs.
        name: of the study in it, which is made anew.
    """
    _set_verbosity(study)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            multivariate=True,
            constant_liar=True,
            n_startup_trials=startup_trials(study),
            seed=study.seed + len(finished),
        )
        storage = _journal_without(journal, name)
    space = functools.partial(suggest, study=study, arm=arm)
    searcher = StudySearch(space, metric=METRIC, mode="max", sampler=sampler, storage=storage, study_name=name)
    known = searcher._ot_study  # noqa: SLF001 - no public way to add trials and points to a space of this kind
    assert known is not None, "a space was given, so the study exists"
    for record in finished:
        known.add_trial(as_optuna_trial(record, study, arm))
    for point in first:
        known.enqueue_trial(point)
    return searcher


def _journal_without(path: Path, name: str) -> JournalStorage:
    """The storage without a study, in which trials that were at work would be for ever.

    A damaged one is put aside and begun anew: the ledger holds all that a search must know.
    """
    try:
        storage = open_journal(path)
        if name in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=name, storage=storage)
    except OSError:  # it cannot be read or written: no damage
        raise
    except Exception:  # noqa: BLE001 - Optuna checks nothing that it reads, so damage ends in any exception
        path.replace(path.with_name(f"{path.name}.damaged"))
        storage = open_journal(path)
    return storage


def _set_verbosity(study: StudyConfig) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO if study.verbose else optuna.logging.WARNING)


def open_journal(path: Path) -> JournalStorage:
    """Optuna's storage in one file of plain JSON lines."""
    return JournalStorage(JournalFileBackend(str(path)))


def as_optuna_trial(record: TrialRecord, study: StudyConfig, arm: Arm) -> optuna.trial.FrozenTrial:
    """A finished trial as Optuna remembers it."""
    fixed = FixedTrial(point_of(record, study, arm))
    suggest(fixed, study, arm)
    state = {"ok": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[record.status]
    accuracy = record.val_accuracy
    return create_trial(
        state=state,
        value=accuracy if state is TrialState.COMPLETE else None,
        params=fixed.params,
        distributions=fixed.distributions,
        intermediate_values={record.epochs_run: accuracy}
        if state is TrialState.PRUNED and accuracy is not None
        else {},
    )


def first_points(
    study: StudyConfig,
    arm: Arm,
    finished: Sequence[TrialRecord],
    begun: Sequence[dict[str, Any]],
    earlier: Mapping[str, Any] | None,
) -> list[dict[str, Any]]:
    """What to try before TPE's own points; what is finished is not tried again.

    The same points for a seed, however often the search is interrupted: TPE's own depend on which trials ended first.

    Args:
        begun: the points of trials that go on: first of all.
        earlier: the best point of an earlier run, tried after the authors' defaults.
    """
    points = [*begun, first_point(study, arm)]
    if earlier is not None:
        points.append(nearest_point(earlier, study, arm))
    points += random_points(study, arm, startup_trials(study) - 1)
    done = [point_of(record, study, arm) for record in finished]
    return [p for i, p in enumerate(points) if p not in done and p not in points[:i]]


def startup_trials(study: StudyConfig) -> int:
    """Trials of a search before TPE has a say."""
    return min(10, max(3, study.num_samples // 4))


def random_points(study: StudyConfig, arm: Arm, count: int) -> list[dict[str, Any]]:
    """Points of the arm's space; fewer are the first of more."""
    _set_verbosity(study)
    memory = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=study.seed))
    points: list[dict[str, Any]] = []
    for _ in range(count):
        trial = memory.ask()
        suggest(trial, study, arm)
        points.append(trial.params)
    return points


def make_scheduler(study: StudyConfig, arm: Arm, finished: Sequence[EpochRecord] = ()) -> ASHAScheduler | None:
    """ASHA on epochs; None where early stopping is off or the runs are too short for it.

    Args:
        finished: the epochs of the trials that are done, which a new trial must keep up with too.
    """
    epochs = study.arm_epochs(arm)
    if not study.early_stopping or epochs <= study.grace_epochs:
        return None
    asha = ASHAScheduler(
        time_attr="epoch", metric=METRIC, mode="max", max_t=epochs, grace_period=study.grace_epochs, reduction_factor=3
    )
    best: dict[str, float] = {}
    (bracket,) = asha._brackets  # noqa: SLF001 - there is no public way to tell it of earlier trials
    for epoch in sorted(finished, key=lambda e: e.epoch):
        best[epoch.trial_id] = max(epoch.val_accuracy, best.get(epoch.trial_id, 0.0))
        trial = SimpleNamespace(trial_id=epoch.trial_id)  # all that a bracket asks of a trial
        bracket.on_result(cast("Trial", trial), epoch.epoch, best[epoch.trial_id])
    return asha


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """What a parameter of a search mattered."""

    share: float
    """Of the variance of validation accuracy, 0 to 1; those of a search add up to 1."""
    chance: float
    """How often it has as large a share where the accuracies are shuffled among the trials, 0 to 1."""


def importance(trials: Sequence[TrialRecord], study: StudyConfig, arm: Arm) -> dict[str, Importance]:
    """Share of the variance of validation accuracy that each parameter explains, by fANOVA (Hutter et al. 2014).

    The forest behind it explains noise as well. So each share comes with that of shuffled accuracies: a permutation
    test, as Altmann et al. (Bioinformatics 26, 2010) have it for forests. Empty where too few trials were finished, or
    all reached the same.
    """
    known = [as_optuna_trial(t, study, arm) for t in trials if t.status == "ok"]
    if len(known) < LEAST_TRIALS or len({t.value for t in known}) < 2:
        return {}
    searched = sorted(name for name in known[0].params if len({t.params[name] for t in known}) > 1)
    found = _shares(known, searched, study.seed)
    rng = np.random.default_rng(study.seed)
    shuffled = [_shares(_shuffled(known, rng), searched, study.seed) for _ in range(SHUFFLES)]
    return {
        name: Importance(share=share, chance=(1 + sum(other[name] >= share for other in shuffled)) / (1 + SHUFFLES))
        for name, share in found.items()
    }


def _shares(trials: Sequence[FrozenTrial], searched: list[str], seed: int) -> dict[str, float]:
    memory = optuna.create_study(direction="maximize")
    memory.add_trials(trials)
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=seed)
    return optuna.importance.get_param_importances(memory, evaluator=evaluator, params=searched)


def _shuffled(trials: Sequence[FrozenTrial], rng: np.random.Generator) -> list[FrozenTrial]:
    """The same points with each other's values."""
    values = [trials[i].value for i in rng.permutation(len(trials))]
    return [
        create_trial(params=trial.params, distributions=trial.distributions, value=value)
        for trial, value in zip(trials, values, strict=True)
    ]
