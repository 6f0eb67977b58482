"""The whole search space as one table. Knows neither Ray nor torch.

All that depends on which parameters there are reads PARAMETERS: what Optuna suggests, the first and the nearest point,
the point that a trial had, its reproduction, and the figures. A parameter is a field of TrainConfig, a field of
TrialRecord and a row here. A `trial` is anything with Optuna's suggest methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cifar_tune.config import DISTILL_ARM, PLAIN_ARM, TEACHER_ARM, Arm
from cifar_tune.records import TrialRecord
from cifar_tune.study import StudyConfig

Value = float | str
Bounds = Callable[[StudyConfig, Arm], tuple[float, float] | None]
"""The lowest and the highest value that an arm may have; None: the study does not search the parameter."""
Choices = Callable[[StudyConfig], tuple[str, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter of the search."""

    name: str
    """Field of TrainConfig that it sets, and of TrialRecord that keeps it."""
    bounds: Bounds | None = None
    """Of a number."""
    choices: Choices | None = None
    """Of a name: those to choose from."""
    log: bool = False
    """Whether a number is searched on a logarithmic scale."""
    arms: tuple[Arm, ...] = (TEACHER_ARM, PLAIN_ARM, DISTILL_ARM)
    """The arms that search it."""
    default: Callable[[StudyConfig], Value]
    """The authors' value, tried first."""

    def __post_init__(self) -> None:
        assert (self.bounds is None) != (self.choices is None), f"{self.name} has either bounds or choices"

    @property
    def is_number(self) -> bool:
        """Whether its values are numbers."""
        return self.choices is None

    def searched(self, study: StudyConfig, arm: Arm) -> bool:
        """Whether an arm of a study searches it."""
        return arm in self.arms and (self.bounds is None or self.bounds(study, arm) is not None)

    def suggest(self, trial: Any, study: StudyConfig, arm: Arm) -> Value:
        """The value that a trial of Optuna gets. Bounds that are equal leave one."""
        if self.choices is not None:
            return trial.suggest_categorical(self.name, list(self.choices(study)))
        return trial.suggest_float(self.name, *self._bounds(study, arm), log=self.log)

    def nearest(self, wanted: Any, study: StudyConfig, arm: Arm) -> Value:
        """The allowed value that is nearest to a wanted one; of names that are not allowed, the first."""
        if self.choices is not None:
            choices = self.choices(study)
            return wanted if wanted in choices else choices[0]
        low, high = self._bounds(study, arm)
        return min(max(wanted, low), high)

    def _bounds(self, study: StudyConfig, arm: Arm) -> tuple[float, float]:
        bounds = None if self.bounds is None else self.bounds(study, arm)
        assert bounds is not None, f"{self.name} is not searched"
        return bounds


PARAMETERS: tuple[Parameter, ...] = (
    Parameter(name="lr", bounds=lambda study, arm: study.space.lr_of(arm), log=True, default=lambda _: 0.01),
    Parameter(
        name="schedule",
        choices=lambda study: study.space.schedules,
        default=lambda study: study.space.schedules[0],
    ),
    Parameter(
        name="weight_decay",
        bounds=lambda study, _: study.space.weight_decay_range,
        log=True,
        default=lambda study: study.recipe.weight_decay,
    ),
    Parameter(
        name="temperature",
        bounds=lambda study, _: study.space.temperature_range,
        log=True,
        arms=(DISTILL_ARM,),
        default=lambda _: 4.0,
    ),
    Parameter(
        name="alpha",
        bounds=lambda study, _: study.space.alpha_range,
        arms=(DISTILL_ARM,),
        default=lambda _: 0.7,
    ),
)
"""The search space, in the order in which Optuna is asked. Defaults are the authors' (R6)."""


def searched(study: StudyConfig, arm: Arm) -> tuple[Parameter, ...]:
    """The parameters that an arm of a study searches."""
    return tuple(p for p in PARAMETERS if p.searched(study, arm))


def suggest(trial: Any, study: StudyConfig, arm: Arm) -> dict[str, Any]:
    """One point of the space as TrainConfig fields."""
    return {p.name: p.suggest(trial, study, arm) for p in searched(study, arm)}


def first_point(study: StudyConfig, arm: Arm) -> dict[str, Any]:
    """The authors' defaults (R6: T=4, alpha=0.7, learning rate 0.01), moved to the nearest point of the space."""
    return nearest_point({p.name: p.default(study) for p in PARAMETERS}, study, arm)


def nearest_point(wanted: Mapping[str, Any], study: StudyConfig, arm: Arm) -> dict[str, Any]:
    """The point of the arm's space that is nearest to the wanted values."""
    return {p.name: p.nearest(wanted[p.name], study, arm) for p in searched(study, arm)}


def read_by(record: TrialRecord, arm: Arm) -> dict[str, Any]:
    """The parameters of an arm as a trial had them; what it did not read (T at alpha = 0) is left out."""
    values = {p.name: getattr(record, p.name) for p in PARAMETERS if arm in p.arms}
    return {name: value for name, value in values.items() if value is not None}


def point_of(record: TrialRecord, study: StudyConfig, arm: Arm) -> dict[str, Any]:
    """What a trial's point of the space was; what it did not read (T at alpha = 0) is the default."""
    default, had = first_point(study, arm), read_by(record, arm)
    return {name: had.get(name, default[name]) for name in default}
