"""What a field of a configuration says of itself: the flag that sets it, and whether a resumed run may change it.

A configuration is a dataclass. Its fields are settings, or parts: configurations of their own. The command line, the
check of a resumed run and the reading of older files all walk the same fields.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")
MISSING = dataclasses.MISSING

CHANGEABLE: Mapping[str, object] = {"changeable": True}
"""Of a setting that a resumed run may change: it extends the run, asks another question, or shows it otherwise."""
NO_FLAG: Mapping[str, object] = {"flag": None}
"""Of a setting that no command line sets."""


def flag(name: str) -> Mapping[str, object]:
    """Of a setting whose flag has another name than its field; with underscores."""
    return {"flag": name}


def part(prefix: str = "", *, hidden: tuple[str, ...] = (), changeable: bool = False) -> Mapping[str, object]:
    """Of a configuration within another.

    Args:
        prefix: what the flags of its settings begin with, but for those that name their flag.
        hidden: settings that this command leaves as they are.
        changeable: whether a resumed run may change all of it.
    """
    return {"prefix": prefix, "hidden": hidden, "changeable": changeable}


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One setting of a configuration, however deep it lies."""

    flag: str | None
    """Name of its flag, with underscores; None: no flag sets it."""
    path: tuple[str, ...]
    """Names of the fields that lead to it."""
    owner: type
    """The dataclass that declares it."""
    kind: Any
    """Type of its values."""
    changeable: bool
    """Whether a resumed run may change it."""

    def of(self, config: object) -> Any:
        """Its value in a configuration; in a class of them its default, or MISSING."""
        for name in self.path:
            config = _default(config, name) if isinstance(config, type) else getattr(config, name)
        return config


def _default(kind: type[DataclassInstance], name: str) -> Any:
    (f,) = (f for f in dataclasses.fields(kind) if f.name == name)
    return f.default if f.default_factory is dataclasses.MISSING else f.default_factory()


def settings_of(kind: type[DataclassInstance]) -> Iterator[Setting]:
    """All settings of a configuration, in the order of its fields."""
    return _settings(kind, {}, ())


def _settings(kind: type[DataclassInstance], about: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Setting]:
    hints, hidden = typing.get_type_hints(kind), about.get("hidden", ())
    fields = dataclasses.fields(kind)
    assert set(hidden) <= {f.name for f in fields}, f"{kind.__name__} lacks one of {hidden}"
    for f in fields:
        own, here = f.metadata, (*path, f.name)
        changeable = about.get("changeable", False) or own.get("changeable", False)
        if _is_part(f):
            yield from _settings(hints[f.name], {**own, "changeable": changeable}, here)
            continue
        shown = None if f.name in hidden else own.get("flag", about.get("prefix", "") + f.name)
        yield Setting(flag=shown, path=here, owner=kind, kind=hints[f.name], changeable=changeable)


def _is_part(f: dataclasses.Field[Any]) -> bool:
    return "prefix" in f.metadata


def nested(kind: type[DataclassInstance], by_flag: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the names of their flags -> values by field, those of parts in mappings of their own.

    What is no flag's name stays as it is, at the top.
    """
    settings = {s.flag: s for s in settings_of(kind) if s.flag is not None}
    values: dict[str, Any] = {}
    for name, value in by_flag.items():
        *parts, last = settings[name].path if name in settings else (name,)
        inner = values
        for each in parts:
            inner = inner.setdefault(each, {})
        inner[last] = value
    return values


def made(kind: type[C], values: Mapping[str, Any], base: C | None = None) -> C:
    """A configuration with these values; those of parts are mappings of their own.

    Args:
        base: whose other values it has; None: the defaults.

    Raises:
        ValueError: a value is not allowed, or a part is no mapping.
        TypeError: there is no such setting, or a value without a default is missing.
    """
    own = dict(values)
    for f in dataclasses.fields(kind):
        if f.name not in own or not _is_part(f):
            continue
        if not isinstance(own[f.name], Mapping):
            raise ValueError(f"{f.name} is {own[f.name]!r}; allowed are its settings")
        whole: DataclassInstance = _default(kind, f.name) if base is None else getattr(base, f.name)
        own[f.name] = made(type(whole), own[f.name], whole)
    return kind(**own) if base is None else dataclasses.replace(base, **own)


def values_of(config: DataclassInstance) -> dict[str, Any]:
    """Values by field; parts as they are."""
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
