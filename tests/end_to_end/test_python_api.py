"""The example of docs/using.md, as a notebook would run it: a study from Python, and its tables.

It goes on with a study that has ended, so that it is short.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from watched import Watched

from cifar_tune.records import TrialRecord
from cifar_tune.runs.ledger import Ledger

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).resolve().parents[2]
SHORT = """
import dataclasses
from cifar_tune.presets import PRESETS
from cifar_tune.study import read_content, study_from
study = study_from(read_content(open("ray_results/notebook/study.json").read(), "study.json")["config"])
PRESETS["quick"] = dataclasses.replace(study, storage="ray_results", resume=True, dashboard=False)
"""
"""Before the example: what it calls `quick` takes minutes."""


@pytest.fixture(scope="module")
def here(watched: Watched, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study that has ended."""
    folder = tmp_path_factory.mktemp("notebook")
    shutil.copytree(watched.study.run, folder / "ray_results" / "notebook")
    return folder


@pytest.fixture(scope="module")
def printed(here: Path) -> str:
    """What the example prints there."""
    page = (ROOT / "docs" / "using.md").read_text()
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "run(config)" in block)
    ended = subprocess.run([sys.executable, "-c", SHORT + example], cwd=here, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def test_example_of_a_study_from_python_prints_the_front(printed: str, here: Path) -> None:
    assert "test_accuracy" in printed
    assert (here / "ray_results" / "notebook" / "front.parquet").is_file()


def written(run: Path) -> dict[str, int]:
    """When each record of what was trained, built, read or measured in the grid was written."""
    return {
        str(p.relative_to(run)): p.stat().st_mtime_ns
        for p in (run / "ledger").rglob("*.json")
        if not p.name.startswith(("race-", "confirm-"))  # another constraint may have another candidate
    }


def test_resume_of_a_finished_run_repeats_nothing(printed: str, here: Path, watched: Watched) -> None:
    assert written(here / "ray_results" / "notebook") == written(watched.study.run)


def test_resume_of_a_finished_run_leaves_its_trials(printed: str, here: Path, watched: Watched) -> None:
    runs = here / "ray_results" / "notebook", watched.study.run
    after, before = (sorted(Ledger(run).read(TrialRecord), key=lambda t: t.trial_id) for run in runs)
    assert after == before
