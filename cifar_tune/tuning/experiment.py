"""One Tune experiment, from its settings to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.error import TuneError

from cifar_tune.tuning.context import RunContext
from cifar_tune.tuning.loggers import loggers
from cifar_tune.tuning.progress import TrialWatch


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """What Tune is told of an experiment."""

    name: str
    """Of its folder, `<run>/ray/<name>`."""
    trainable: Callable[..., None]
    bundle: dict[str, float]
    """What a trial holds of Ray's resources."""
    tune_config: tune.TuneConfig
    param_space: dict[str, Any] | None = None
    """None: the searcher brings it."""
    retries: int = 0
    """How often a trial whose worker dies goes on from its last checkpoint."""
    log: Sequence[str] = ()
    """Names of LOGGERS."""


def fit(context: RunContext, experiment: Experiment, watch: TrialWatch) -> None:
    """Run an experiment to its end. What a function of the watch raises is raised here."""
    tuner = tune.Tuner(
        tune.with_resources(experiment.trainable, tune.PlacementGroupFactory([experiment.bundle])),
        param_space=experiment.param_space,
        tune_config=experiment.tune_config,
        run_config=tune.RunConfig(
            name=experiment.name,
            storage_path=str(context.run.absolute() / "ray"),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            failure_config=tune.FailureConfig(max_failures=experiment.retries),
            callbacks=[watch, *loggers(experiment.log, context.run)],
            verbose=2 if context.study.verbose else 0,
        ),
    )
    try:
        tuner.fit()
    except TuneError as error:
        if watch.trouble is not None:
            raise watch.trouble from error
        raise
