"""Command lines from dataclasses: flags from the fields, help from their docstrings, errors in one line."""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import io
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from cifar_tune.errors import BucketError, InterruptedRunError, StudyFailedError, UsageError
from cifar_tune.settings import MISSING, Setting, made, nested, settings_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")

USAGE_ERROR, INTERRUPTED = 2, 130


def fail(message: str) -> NoReturn:
    """Say in one line what is wrong, and exit with 2."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    raise SystemExit(USAGE_ERROR)


def parse(kind: type[C], argv: Sequence[str], *, default: C | None = None, prog: str, description: str) -> C:
    """A dataclass from command line arguments. Exits with 2 and one line on a wrong flag or value."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                kind,
                args=list(argv),
                prog=prog,
                description=description,
                config=(tyro.conf.FlagCreatePairsOff,) if hasattr(tyro.conf, "FlagCreatePairsOff") else (),
                registry=_registry(kind, default),
            )
    except SystemExit as ended:
        if not ended.code:
            raise
        fail(one_line(said.getvalue()))
    except ValueError as error:
        fail(str(error))


def _registry(kind: type[C], default: C | None) -> ConstructorRegistry:
    """Tells the parser that a configuration has one flag for each of its settings, however deep they lie."""
    registry = ConstructorRegistry()

    @registry.struct_rule
    def flags(info: StructTypeInfo) -> StructConstructorSpec | None:  # pyright: ignore[reportUnusedFunction]
        if info.type is not kind:
            return None
        return StructConstructorSpec(
            instantiate=lambda **values: made(kind, nested(kind, values), default),
            fields=tuple(
                StructFieldSpec(
                    name=setting.flag,
                    type=setting.kind,
                    default=_default(setting, kind if default is None else default),
                    helptext=functools.partial(helptext, setting),
                )
                for setting in settings_of(kind)
                if setting.flag is not None
            ),
        )

    return registry


def _default(setting: Setting, config: object) -> Any:
    """What a flag that is not given stands for."""
    value = setting.of(config)
    return tyro.MISSING if value is MISSING else value


def helptext(setting: Setting) -> str:
    """The docstring below a setting's field, on one line."""
    return _docstrings(setting.owner).get(setting.path[-1], "")


@functools.cache
def _docstrings(kind: type) -> dict[str, str]:
    """Field -> the docstring below it, in one line."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__[:-1]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(tree, ast.ClassDef)
        for line, below in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                match below:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        found[line.target.id] = " ".join(text.split())
                    case _:
                        pass
    return found


def one_line(box: str) -> str:
    """The message inside the parser's box, without its frame and its pointer to the help."""
    text = " ".join(re.sub(r"[─-╿]|-{4,}", " ", box).split())  # a terminal without Unicode has a frame of dashes
    text = re.sub(r"\s*For full helptext.*$", "", text)
    text = re.sub(r"^(Parsing|Value) error\s*(Error parsing \w+:\s*)?", "", text)  # titles: a user knows no classes
    text = re.sub(r"^Unrecognized options\s+(?=Unrecognized)", "", text)  # the box's title says it once more
    said, meant, suggestions = text.partition(" Perhaps you meant:")
    if not meant:
        return said
    flags = dict.fromkeys(re.findall(r"(?<!\S)--[a-z][\w-]*", suggestions))
    return f"{said}; perhaps you meant {' or '.join(flags)} (see --help)"


@contextlib.contextmanager
def user_input() -> Iterator[None]:
    """A ValueError in here is the user's to mend; one anywhere else is a fault of ours and keeps its traceback."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def run_command(command: Callable[[], object]) -> None:
    """Run a command whose result, if any, is the last line of standard output."""
    try:
        result = command()
    except UsageError as error:
        fail(str(error))
    except (StudyFailedError, BucketError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except InterruptedRunError as error:
        print(error, file=sys.stderr)
        raise SystemExit(INTERRUPTED) from error
    except KeyboardInterrupt as error:  # before a run has begun
        raise SystemExit(INTERRUPTED) from error
    if result is not None:
        print(result)
