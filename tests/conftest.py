"""Settings of all tests, and the small data sets that several of them read."""

from pathlib import Path

import pytest
from hypothesis import settings
from image_files import write_classes, write_parquet
from watched import Watched, watch

settings.register_profile("no deadline", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A study that has ended undisturbed; several files read it, so none may write there."""
    return watch(tmp_path_factory.mktemp("watched"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 and 10 training, 4 and 2 test images of cats and dogs."""
    write_classes(tmp_path / "pets", {"train/cat": 20, "train/dog": 10, "test/cat": 4, "test/dog": 2})
    return tmp_path / "pets"


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """Two training shards, 12 images of each of cat and dog, and 3 test images of each."""
    names = ("cat", "dog")
    write_parquet(tmp_path / "shards" / "train-0.parquet", [0, 1] * 6, names=names)
    write_parquet(tmp_path / "shards" / "train-1.parquet", [1, 0] * 6, names=names)
    write_parquet(tmp_path / "shards" / "test-0.parquet", [0, 1] * 3, names=names)
    return tmp_path / "shards"
