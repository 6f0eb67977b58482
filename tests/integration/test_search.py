"""The searcher: what it suggests first, that it suggests nothing twice, and what Optuna is told."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
from analysis_data import trial, write_run
from optuna.trial import TrialState
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from cifar_tune.config import Arm
from cifar_tune.presets import PRESETS
from cifar_tune.records import EpochRecord, TrialRecord
from cifar_tune.study import SpaceConfig, StudyConfig
from cifar_tune.tuning.keeper import ranked
from cifar_tune.tuning.searcher import first_points, importance, make_scheduler, make_searcher, open_journal
from cifar_tune.tuning.unfinished import METRIC
from sweeps.distill_search import distillation_due
from sweeps.steps.job import best_before

STUDY = dataclasses.replace(
    PRESETS["quick"], num_samples=50, space=SpaceConfig(lr_range=(0.01, 0.1), schedules=("cosine", "linear"))
)
SMALL = dataclasses.replace(STUDY, space=dataclasses.replace(STUDY.space, lr_range=(0.05, 0.05)))
"""A space of two points: one learning rate, two schedules."""


def searcher(
    journal: Path, study: StudyConfig = STUDY, finished: tuple[TrialRecord, ...] = (), **more: Any
) -> Searcher:
    first = first_points(study, "plain", finished, more.get("begun", ()), more.get("earlier"))
    return make_searcher(study, "plain", finished, first, journal, "search")


def finished(**changes: Any) -> TrialRecord:
    return trial(**{"epochs": 5, "epochs_run": 5, "lr": 0.05, "model": "resnet_tiny", **changes})


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "optuna.journal"


def told(journal: Path) -> list[optuna.trial.FrozenTrial]:
    """What `optuna-dashboard` would show."""
    return optuna.load_study(study_name="search", storage=open_journal(journal)).trials


def test_the_first_point_is_the_authors(journal: Path) -> None:
    assert searcher(journal).suggest("a") == {"lr": 0.01, "schedule": "cosine"}


@pytest.mark.parametrize(("teacher", "due"), [(0.92, True), (0.905, False), (0.85, False), (None, True)], ids=str)
def test_rule_ahead_distils_where_the_teacher_is_a_point_ahead(teacher: float | None, due: bool) -> None:
    study = dataclasses.replace(STUDY, distill="ahead")
    assert distillation_due(study, [finished(val_accuracy=0.9)], teacher) is due


def test_the_teacher_may_have_learning_rates_of_its_own() -> None:
    study = dataclasses.replace(STUDY, space=SpaceConfig(lr_range=(0.01, 0.1), teacher_lr_range=(0.2, 0.3)))
    assert first_points(study, "teacher", (), (), None)[0]["lr"] == 0.2
    assert first_points(study, "plain", (), (), None)[0]["lr"] == 0.01


def test_the_best_of_an_earlier_run_comes_second(journal: Path) -> None:
    search = searcher(journal, earlier={"lr": 0.033, "schedule": "linear"})
    search.suggest("a")
    assert search.suggest("b") == {"lr": 0.033, "schedule": "linear"}


def test_an_earlier_point_outside_of_the_space_is_moved_into_it() -> None:
    points = first_points(STUDY, "plain", (), (), {"lr": 5.0, "schedule": "step"})
    assert points[1] == {"lr": 0.1, "schedule": "cosine"}


def test_a_first_point_that_is_finished_is_not_tried_again() -> None:
    points = first_points(STUDY, "plain", (), (), None)
    assert first_points(STUDY, "plain", [finished(lr=0.01)], (), None) == points[1:]


def test_what_was_begun_goes_on_before_all_else(journal: Path) -> None:
    begun = {"lr": 0.02, "schedule": "linear"}
    assert searcher(journal, begun=(begun,)).suggest("a") == begun


def test_more_samples_keep_the_points_before_the_samplers_own() -> None:
    few = first_points(dataclasses.replace(STUDY, num_samples=20), "distill", (), (), None)
    assert first_points(STUDY, "distill", (), (), None)[: len(few)] == few
    assert len(few) == 5


def test_nothing_is_suggested_twice_and_an_exhausted_space_ends_the_search(journal: Path) -> None:
    search = searcher(journal, SMALL)
    given = [search.suggest(name) for name in "abc"]
    assert sorted(point["schedule"] for point in given[:2]) == ["cosine", "linear"]
    assert given[2] == Searcher.FINISHED
    assert search.exhausted


def test_what_is_finished_is_not_suggested_again(journal: Path) -> None:
    search = searcher(journal, SMALL, (finished(schedule="cosine"),))
    assert search.suggest("a")["schedule"] == "linear"


@pytest.mark.parametrize(
    ("result", "state"),
    [
        ({"epoch": 5, "epochs": 5, "best_val_accuracy": 0.9}, TrialState.COMPLETE),
        ({"epoch": 2, "epochs": 5, "best_val_accuracy": 0.3}, TrialState.PRUNED),
        ({"epoch": 2, "epochs": 5, "best_val_accuracy": 0.3, "failure": "loss is nan"}, TrialState.FAIL),
        (None, TrialState.FAIL),
    ],
)
def test_optuna_is_told_how_a_trial_ended(journal: Path, result: dict[str, Any] | None, state: TrialState) -> None:
    search = searcher(journal)
    search.suggest("a")
    search.on_trial_complete("a", result)
    assert told(journal)[0].state is state


def test_optuna_hears_the_accuracy_at_which_a_trial_was_stopped(journal: Path) -> None:
    search = searcher(journal)
    search.suggest("a")
    search.on_trial_complete("a", {"epoch": 2, "epochs": 5, "best_val_accuracy": 0.3})
    assert told(journal)[0].intermediate_values == {2: 0.3}


def test_a_resumed_search_knows_the_finished_and_forgets_those_at_work(journal: Path) -> None:
    searcher(journal).suggest("a")
    searcher(journal, finished=(finished(), finished(lr=0.02, status="pruned", epochs_run=2)))
    assert [t.state for t in told(journal)][:2] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert not any(t.state is TrialState.RUNNING for t in told(journal))


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\x00"])
def test_a_damaged_journal_is_begun_anew(journal: Path, damage: bytes) -> None:
    searcher(journal).suggest("a")
    content = journal.read_bytes()
    journal.write_bytes(content[: len(content) // 2] + damage + content[len(content) // 2 :])
    searcher(journal, finished=(finished(),))
    assert [t.state for t in told(journal) if t.state is not TrialState.WAITING] == [TrialState.COMPLETE]


def epoch(trial_id: str, number: int, accuracy: float) -> EpochRecord:
    return EpochRecord(
        trial_id=trial_id, epoch=number, lr=0.1, train_loss=1.0, train_accuracy=0.5, val_loss=1.0,
        val_accuracy=accuracy, seconds=1.0, images_per_second=100.0,
    )  # fmt: skip


@pytest.mark.parametrize(("accuracy", "decision"), [(0.5, "STOP"), (0.95, "CONTINUE")])
def test_early_stopping_compares_with_the_finished_trials_of_a_resumed_search(accuracy: float, decision: str) -> None:
    grace = STUDY.grace_epochs
    known = [epoch(f"t{i}", number, 0.9) for i in range(3) for number in range(1, grace + 1)]
    asha = make_scheduler(STUDY, "plain", known)
    assert asha is not None
    new, controller = cast("Trial", SimpleNamespace(trial_id="new")), cast("Any", None)
    asha.on_trial_add(controller, new)
    assert asha.on_trial_result(controller, new, {"epoch": grace, METRIC: accuracy}) == decision


def test_importance_finds_the_parameter_that_matters() -> None:
    found = importance(ended(0.05 * i for i in range(8)), STUDY, "plain")
    assert found["lr"].share > 0.7 > found["schedule"].share
    assert found["lr"].share + found["schedule"].share == pytest.approx(1)
    assert found["lr"].chance <= 0.05


def test_importance_of_noise_is_said_to_be_noise() -> None:
    noise = (0.03, -0.01, 0.02, 0.0, -0.03, 0.01, 0.03, -0.02)
    assert all(found.chance > 0.05 for found in importance(ended(noise), STUDY, "plain").values())


def ended(accuracies: Iterable[float]) -> list[TrialRecord]:
    """Trials of rising rates and alternating schedules, each so much above 50 %."""
    return [
        finished(lr=0.01 + 0.01 * i, schedule=("cosine", "linear")[i % 2], val_accuracy=0.5 + more)
        for i, more in enumerate(accuracies)
    ]


@pytest.mark.parametrize("trials", [[finished()] * 3, [finished(lr=0.01 * n) for n in range(1, 6)]])
def test_importance_of_nothing_is_empty(trials: list[TrialRecord]) -> None:
    assert importance(trials, STUDY, "plain") == {}


def test_of_equal_trials_the_same_is_best_in_whatever_order_they_ended() -> None:
    """Else the weights of one are kept and those of the other are used."""
    equal = [finished(trial_id=name) for name in ("a", "b")]
    assert ranked(equal) == ranked(equal[::-1])


@pytest.mark.parametrize(("arm", "model", "expected"), [("teacher", "resnet18", 0.1), ("plain", "resnet_tiny", 0.05)])
def test_a_search_starts_warm_from_the_best_of_its_kind(tmp_path: Path, arm: Arm, model: str, expected: float) -> None:
    earlier = [
        finished(trial_id="t", stage="teacher", arm="teacher", model="resnet18", lr=0.1),
        finished(trial_id="a", lr=0.02, val_accuracy=0.8),
        finished(trial_id="b", lr=0.05, val_accuracy=0.9),
        finished(trial_id="final-b-seed1", stage="final", lr=0.07, val_accuracy=0.99),
    ]
    run = write_run(tmp_path / "earlier", [], earlier)
    best = best_before(dataclasses.replace(STUDY, warm_start=str(run)), arm, model)
    assert best is not None
    assert best["lr"] == expected
