"""A disk that runs full while a study works."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mounts import mounted
from small_study import Study

pytestmark = pytest.mark.timeout(600)
ROOM = "20m"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with room for the search of a small teacher."""
    with mounted(tmp_path / "disk", f"size={ROOM}") as folder:
        yield folder


def keep_full(path: Path, process: psutil.Popen) -> None:
    """Write a file until nothing goes in any more, again and again: what the study removes makes room for a while."""
    with path.open("ab", buffering=0) as file:
        while process.poll() is None:
            with contextlib.suppress(OSError):
                file.write(bytes(64 * 1024))
                continue
            time.sleep(0.01)


def test_a_full_disk_stops_the_study_in_a_line_and_it_can_go_on(small_disk: Path, tmp_path: Path) -> None:
    study = Study(tmp_path, "run", str(small_disk), "teacher_search.py")
    process = study.start()
    while not list(study.run.glob("ray/*/*/checkpoint_*")):
        assert process.is_running(), study.last_words()
        time.sleep(0.1)
    filler = small_disk / "filler"
    keep_full(filler, process)
    assert process.wait() == 1
    assert "no space is left for" in study.last_words()
    filler.unlink()
    assert study.finish() is None
