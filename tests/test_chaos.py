"""A whole study is interrupted, once; `make chaos` does so again and again, in more ways."""

import time
from pathlib import Path

import pytest
from chaos import Ending, Study, driver_killed

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ending, float]:
    """What a study leaves that nobody disturbs, and how many seconds it takes."""
    study = Study(tmp_path_factory.mktemp("calm"), "undisturbed")
    started = time.monotonic()
    assert study.finish() is None
    return study.ending(), time.monotonic() - started


def test_a_study_whose_driver_is_killed_ends_as_if_it_had_not_been(calm: tuple[Ending, float], tmp_path: Path) -> None:
    undisturbed, seconds = calm
    verdicts = driver_killed(Study(tmp_path, "killed"), [0.4 * seconds], undisturbed)
    assert [verdict.fault for verdict in verdicts] == [None]
