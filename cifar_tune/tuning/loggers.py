"""LOGGERS: what else is told of each training as it goes on; Ray's own callbacks, each behind its package."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray.tune import Callback

from cifar_tune.errors import UsageError


def _tensorboard(_: Path) -> Callback:
    """Event files beside each trial's own: `tensorboard --logdir <run>/ray`."""
    from ray.tune.logger import TBXLoggerCallback

    return TBXLoggerCallback()


def _mlflow(run: Path) -> Callback:
    """An experiment with the run's name, where MLFLOW_TRACKING_URI says, or else in `<run>/mlflow.db`."""
    mlflow: Any = importlib.import_module("mlflow")
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    if not mlflow.is_tracking_uri_set():
        mlflow.set_tracking_uri(f"sqlite:///{run.absolute() / 'mlflow.db'}")
    return MLflowLoggerCallback(tracking_uri=mlflow.get_tracking_uri(), experiment_name=run.name)


def _wandb(run: Path) -> Callback:
    """A project with the run's name; WANDB_MODE=offline keeps it here."""
    from ray.air.integrations.wandb import WandbLoggerCallback

    return WandbLoggerCallback(project=run.name)


LOGGERS: dict[str, Callable[[Path], Callback]] = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}
_PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow", "wandb": "wandb"}


def check_installed(names: Sequence[str]) -> None:
    """UsageError says how to install what is missing."""
    for name in names:
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            package = _PACKAGES[name]
            raise UsageError(f"--log {name} needs {package}, which is not installed: pip install {package}")


def loggers(names: Sequence[str], run: Path) -> list[Callback]:
    """The callbacks of one Tune experiment of a run."""
    return [LOGGERS[name](run) for name in names]
