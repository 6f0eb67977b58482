"""What the commands share: how a command line becomes a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from cifar_tune import cli

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")


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
