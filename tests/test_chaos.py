"""A whole study is interrupted, once; `make chaos` does so again and again, in more ways."""

from pathlib import Path

import pytest
from chaos import driver_killed
from small_study import Study
from watched import Watched

pytestmark = pytest.mark.timeout(1200)


def test_a_study_whose_driver_is_killed_ends_as_if_it_had_not_been(watched: Watched, tmp_path: Path) -> None:
    verdicts = driver_killed(Study(tmp_path, "killed"), [0.4 * watched.seconds], watched.study.ending())
    assert [verdict.fault for verdict in verdicts] == [None]
