"""Interruptions of a whole study, each once; `make chaos` has them again and again."""

import random
import time
from pathlib import Path

import pytest
from chaos import Ending, Study, driver_killed, workers_killed

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ending, float]:
    """What a study leaves that nobody disturbs, and how many seconds it takes."""
    study = Study(tmp_path_factory.mktemp("calm"), "undisturbed")
    started = time.monotonic()
    assert study.finish() is None
    return study.ending(), time.monotonic() - started


def test_a_study_whose_driver_is_killed_ends_as_if_it_had_not_been(calm: tuple[Ending, float], tmp_path: Path) -> None:
    undisturbed, seconds = calm
    assert driver_killed(Study(tmp_path, "killed"), 0.4 * seconds, undisturbed).fault is None


def test_a_study_whose_workers_are_killed_ends_as_if_they_had_not_been(
    calm: tuple[Ending, float], tmp_path: Path
) -> None:
    assert workers_killed(Study(tmp_path, "killed"), 2, random.Random(0), calm[0]).fault is None
