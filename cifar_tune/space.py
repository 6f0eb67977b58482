"""The whole search space, define-by-run. Knows neither Ray nor torch.

A `trial` is anything with Optuna's suggest methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cifar_tune.config import DISTILL_ARM, Arm, StudyConfig


def suggest(trial: Any, study: StudyConfig, arm: Arm) -> dict[str, Any]:
    """One point of the space as TrainConfig fields. A range of one value is not searched."""
    sample: dict[str, Any] = {
        "lr": _number(trial, "lr", study.arm_lr_range(arm), log=True),
        "schedule": trial.suggest_categorical("schedule", list(study.schedules)),
    }
    if study.weight_decay_range is not None:
        sample["weight_decay"] = _number(trial, "weight_decay", study.weight_decay_range, log=True)
    if arm == DISTILL_ARM:
        sample["temperature"] = _number(trial, "temperature", study.temperature_range)
        sample["alpha"] = _number(trial, "alpha", study.alpha_range)
    return sample


def _number(trial: Any, name: str, bounds: tuple[float, float], *, log: bool = False) -> float:
    return trial.suggest_float(name, bounds[0], bounds[1], log=log)


def first_point(study: StudyConfig, arm: Arm) -> dict[str, Any]:
    """The authors' defaults (R6: T=4, alpha=0.7, learning rate 0.01), moved to the nearest point of the space."""
    defaults = {"lr": 0.01, "temperature": 4.0, "alpha": 0.7, "weight_decay": study.weight_decay}
    return nearest_point({**defaults, "schedule": study.schedules[0]}, study, arm)


def nearest_point(wanted: Mapping[str, Any], study: StudyConfig, arm: Arm) -> dict[str, Any]:
    """The point of the arm's space that is nearest to the wanted values."""
    schedule = wanted["schedule"] if wanted["schedule"] in study.schedules else study.schedules[0]
    point: dict[str, Any] = {"schedule": schedule, "lr": _nearest(wanted["lr"], study.arm_lr_range(arm))}
    if study.weight_decay_range is not None:
        point["weight_decay"] = _nearest(wanted["weight_decay"], study.weight_decay_range)
    if arm == DISTILL_ARM:
        point["temperature"] = _nearest(wanted["temperature"], study.temperature_range)
        point["alpha"] = _nearest(wanted["alpha"], study.alpha_range)
    return point


def _nearest(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])
