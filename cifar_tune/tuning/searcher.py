"""Optuna's TPE as a Tune searcher that tells Optuna the truth about how trials ended."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import FixedTrial, TrialState, create_trial
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

from cifar_tune.config import Arm, StudyConfig
from cifar_tune.records import TrialRecord
from cifar_tune.space import first_point, suggest

METRIC = "best_val_accuracy"
"""Best-ever validation accuracy: what trials are compared by, and whose weights are kept."""


class StudySearch(OptunaSearch):
    """OptunaSearch that tells early-stopped trials as PRUNED and failed ones as FAIL.

    OptunaSearch tells a trial that ASHA stopped as COMPLETE with its low-fidelity value.
    """

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how a trial ended."""
        state = _end_state(result, error=error)
        if state is TrialState.COMPLETE or trial_id in self._completed_trials:
            super().on_trial_complete(trial_id, result, error)
            return
        assert self._ot_study is not None
        self._ot_study.tell(self._ot_trials[trial_id], state=state)
        self._completed_trials.add(trial_id)


def _end_state(result: dict[str, Any] | None, *, error: bool) -> TrialState:
    if error or not result or result.get("failure"):
        return TrialState.FAIL
    return TrialState.COMPLETE if result["epoch"] >= result["epochs"] else TrialState.PRUNED


def make_searcher(
    study: StudyConfig, arm: Arm, finished: Sequence[TrialRecord], concurrency: int
) -> ConcurrencyLimiter:
    """TPE over the arm's space; it starts at the authors' defaults, or, when resumed, knows the `finished` trials."""
    optuna.logging.set_verbosity(optuna.logging.INFO if study.verbose else optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            multivariate=True,
            constant_liar=True,
            n_startup_trials=min(10, max(3, study.num_samples // 4)),
            seed=study.seed + len(finished),
        )
    space = functools.partial(suggest, study=study, arm=arm)
    first = None if finished else [first_point(study, arm)]
    searcher = StudySearch(space, metric=METRIC, mode="max", sampler=sampler, points_to_evaluate=first)
    assert searcher._ot_study is not None  # noqa: SLF001 - a space was given, so the study exists
    for record in finished:
        searcher._ot_study.add_trial(as_optuna_trial(record, study, arm))  # noqa: SLF001 - no public way to add one
    return ConcurrencyLimiter(searcher, max_concurrent=concurrency)


def as_optuna_trial(record: TrialRecord, study: StudyConfig, arm: Arm) -> optuna.trial.FrozenTrial:
    """A finished trial as Optuna remembers it."""
    fixed = FixedTrial({name: getattr(record, name) for name in first_point(study, arm)})
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


def make_scheduler(study: StudyConfig, arm: Arm) -> ASHAScheduler | None:
    """ASHA on epochs; None where early stopping is off or the runs are too short for it."""
    epochs = study.arm_epochs(arm)
    if not study.early_stopping or epochs <= study.grace_epochs:
        return None
    return ASHAScheduler(metric=METRIC, mode="max", max_t=epochs, grace_period=study.grace_epochs, reduction_factor=3)
