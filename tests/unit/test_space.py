"""The search space: one row of its table is all that a parameter needs."""

import dataclasses

import optuna
import pytest
from analysis_data import trial

from analysis.sections import trials
from cifar_tune import space
from cifar_tune.config import TrainConfig
from cifar_tune.presets import PRESETS
from cifar_tune.records import TrialRecord
from cifar_tune.space import PARAMETERS, Parameter, first_point, nearest_point, point_of, read_by, suggest
from cifar_tune.study import SpaceConfig, StudyConfig
from cifar_tune.tuning.searcher import as_optuna_trial, random_points

STUDY = PRESETS["quick"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class WithMomentum(TrialRecord):
    """What a trial's row would be if the momentum were searched."""

    momentum: float | None = None


@pytest.fixture
def momentum(monkeypatch: pytest.MonkeyPatch) -> Parameter:
    """A row more in the table, for students that distil."""
    row = Parameter(
        name="momentum", bounds=lambda study, arm: (0.5, 0.8), log=True, arms=("distill",), default=lambda _: 0.9
    )
    monkeypatch.setattr(space, "PARAMETERS", (*PARAMETERS, row))
    return row


def record(**changes: object) -> WithMomentum:
    values = {f.name: getattr(trial(arm="distill"), f.name) for f in dataclasses.fields(TrialRecord)}
    return WithMomentum(**{**values, "temperature": 4.0, "alpha": 0.7, **changes})


def test_a_new_row_is_suggested_within_its_bounds_on_its_scale(momentum: Parameter) -> None:
    asked = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    assert 0.5 <= suggest(asked, STUDY, "distill")["momentum"] <= 0.8
    assert asked.distributions["momentum"] == optuna.distributions.FloatDistribution(0.5, 0.8, log=True)


def test_a_new_row_is_searched_by_its_arms_only(momentum: Parameter) -> None:
    asked = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    assert "momentum" not in suggest(asked, STUDY, "plain")
    assert "momentum" not in first_point(STUDY, "teacher")


def test_the_first_point_has_the_default_of_a_new_row_moved_into_its_bounds(momentum: Parameter) -> None:
    assert first_point(STUDY, "distill")["momentum"] == 0.8


def test_the_nearest_point_moves_a_new_row_into_its_bounds(momentum: Parameter) -> None:
    wanted = {"lr": 0.05, "schedule": "cosine", "temperature": 4.0, "alpha": 0.7}
    assert nearest_point({**wanted, "momentum": 0.1}, STUDY, "distill")["momentum"] == 0.5
    assert nearest_point({**wanted, "momentum": 0.6}, STUDY, "distill")["momentum"] == 0.6


def test_random_points_have_a_new_row(momentum: Parameter) -> None:
    assert all(0.5 <= point["momentum"] <= 0.8 for point in random_points(STUDY, "distill", 3))


def test_a_trial_is_trained_again_with_its_value_of_a_new_row(momentum: Parameter) -> None:
    """What `train --run RUN --trial ID` makes of a record."""
    config = STUDY.train_config("resnet_tiny", "distill", read_by(record(momentum=0.6), "distill"))
    assert isinstance(config, TrainConfig)
    assert config.momentum == 0.6


def test_optuna_remembers_a_trial_with_its_value_of_a_new_row(momentum: Parameter) -> None:
    assert point_of(record(momentum=0.6), STUDY, "distill")["momentum"] == 0.6
    assert as_optuna_trial(record(momentum=0.6), STUDY, "distill").params["momentum"] == 0.6


def test_what_a_trial_did_not_read_is_the_default_of_its_point_and_not_trained_with() -> None:
    silent = record(temperature=None, alpha=0.0)
    assert point_of(silent, STUDY, "distill")["temperature"] == 4.0
    assert "temperature" not in read_by(silent, "distill")


def test_weight_decay_is_searched_only_where_it_has_bounds() -> None:
    bounded = StudyConfig(space=SpaceConfig(weight_decay_range=(1e-5, 1e-3)))
    assert "weight_decay" not in first_point(StudyConfig(), "plain")
    assert first_point(bounded, "plain")["weight_decay"] == 5e-4


def test_a_parameter_is_a_field_of_the_training_and_of_its_record() -> None:
    names = {p.name for p in PARAMETERS}
    assert names <= {f.name for f in dataclasses.fields(TrainConfig)}
    assert names <= {f.name for f in dataclasses.fields(TrialRecord)}


def test_the_figures_show_the_numbers_of_the_table() -> None:
    assert trials._SEARCHED == {"lr": True, "weight_decay": True, "temperature": True, "alpha": False}
