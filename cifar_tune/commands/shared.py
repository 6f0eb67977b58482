"""What the commands share: the flags that name images, and how a command line becomes a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

from cifar_tune import cli
from cifar_tune.config import DataConfig
from cifar_tune.data.datasets import ImageData, load

C = TypeVar("C")


def run_command(kind: type[C], run: Callable[[C], object], argv: Sequence[str], prog: str) -> None:
    """Run a command on what its flags say; usage errors exit with 2 and one line.

    Args:
        kind: class of its options.
        prog: what the help calls it.
    """
    options = cli.parse(kind, argv, prog=prog, description=kind.__doc__ or "")

    def checked() -> object:
        with cli.user_input():
            return run(options)

    cli.run_command(checked)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataOptions:
    """Which images."""

    data: str = "cifar10"
    """cifar10, digits, or the path of an image folder or a Parquet folder."""
    data_dir: str = "data"
    """Where cifar10 is looked for, and downloaded to."""
    image_size: int | None = None
    """Side of the model input in pixels; None: the data set's own."""
    train_images: int | None = None
    """Stratified subset of the training images; None: all."""
    test_images: int | None = None
    """Stratified subset of the test images; None: all."""
    skip_unreadable: bool = False
    """Count unreadable images and go on."""

    def load(self) -> ImageData:
        """The images, as in a sweep with seed 0."""
        own = {f.name: getattr(self, f.name) for f in fields(DataOptions) if f.name not in ("data", "data_dir")}
        return load(DataConfig(source=self.data, **own), self.data_dir)
