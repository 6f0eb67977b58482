"""Records to Parquet and back; the schema follows the record's fields.

A column per field; the environment is flattened to `env_*`. Optional fields are nullable columns. Nothing here
knows what a figure means.
"""

# pyarrow ships no types
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import secrets
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from cifar_tune.errors import OtherVersionError

R = TypeVar("R")

_ARROW_TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    bytes: pa.binary(),
    list[list[float]]: pa.list_(pa.list_(pa.float64())),
}
_NESTED_PREFIX = "env_"
RENAMED = {"repeat": "block"}
"""Column of an older version -> its name today."""
PRETRAINED = "pretrained"
"""Folder of a run with the weights, in this package's own names, that the trials of a model begin with."""
CHECKSUMS = "checksums.json"
"""File of a run's folder that holds the digests of its tables."""


def _plain_type(annotation: Any) -> tuple[Any, bool]:
    """The type without `| None` and with Literals as str, and whether None was allowed."""
    args = typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType) and type(None) in args:
        (inner,) = [a for a in args if a is not type(None)]
        return _plain_type(inner)[0], True
    if typing.get_origin(annotation) is typing.Literal:
        return str, False
    return annotation, False


@functools.cache
def _fields(record_type: type) -> list[tuple[str, Any, bool]]:
    """Name, plain type and whether None is allowed, of each field: resolving annotations takes longer than a row."""
    hints = typing.get_type_hints(record_type)
    return [(f.name, *_plain_type(hints[f.name])) for f in fields(record_type)]


@functools.cache
def schema(record_type: type) -> pa.Schema:
    """The Parquet schema of a record type, columns in the order of its fields."""
    columns: list[pa.Field] = []
    for name, kind, nullable in _fields(record_type):
        if is_dataclass(kind):
            columns += [c.with_name(_NESTED_PREFIX + c.name) for c in schema(typing.cast("type", kind))]
        else:
            columns.append(pa.field(name, _ARROW_TYPES[kind], nullable))
    return pa.schema(columns)


@functools.cache
def fillers(record_type: type) -> dict[str, Any]:
    """What stands for a column that an older table lacks: the field's default, else None where None is allowed.

    A column that is not named here is required.
    """
    found: dict[str, Any] = {}
    declared = {f.name: f for f in fields(record_type)}
    for name, kind, nullable in _fields(record_type):
        if is_dataclass(kind):
            nested = fillers(typing.cast("type", kind))
            found |= {_NESTED_PREFIX + inner: value for inner, value in nested.items()}
        elif nullable or _default(declared[name]) is not MISSING:
            default = _default(declared[name])
            found[name] = None if default is MISSING else default
    return found


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def missing_required(record_type: type, names: Iterable[str]) -> list[str]:
    """The columns that a table with these names lacks, and that nothing can stand for (`fillers`)."""
    given = {*names, *fillers(record_type)}
    return [name for name in column_names(record_type) if name not in given]


def filled(table: pa.Table, record_type: type) -> pa.Table:
    """The table with every column of the record type: one that an older version did not write holds its filler.

    Raises:
        OtherVersionError: a column is missing that is required.

    """
    table = table.rename_columns([RENAMED.get(name, name) for name in table.column_names])
    missing = missing_required(record_type, table.column_names)
    if missing:
        raise OtherVersionError(f"without {', '.join(missing)}")
    for field in schema(record_type):
        if field.name not in table.column_names:
            values = pa.array([fillers(record_type)[field.name]] * len(table), field.type)
            table = table.append_column(field, values)
    return table


def to_row(record: Any) -> dict[str, Any]:
    """A record as a flat dict, one key a column."""
    row: dict[str, Any] = {}
    for f in fields(record):
        value = getattr(record, f.name)
        if is_dataclass(value):
            row.update({_NESTED_PREFIX + k: v for k, v in to_row(value).items()})
        else:
            row[f.name] = value
    return row


def from_row(record_type: type[R], row: dict[str, Any]) -> R:
    """The inverse of `to_row`. KeyError names a column that is missing."""
    values: dict[str, Any] = {}
    for name, kind, _ in _fields(record_type):
        if is_dataclass(kind):
            cut = len(_NESTED_PREFIX)
            nested = {k[cut:]: v for k, v in row.items() if k.startswith(_NESTED_PREFIX)}
            values[name] = from_row(typing.cast("type", kind), nested)
        else:
            values[name] = row[name]
    return record_type(**values)


def write_records(path: Path, record_type: type, records: Iterable[Any]) -> None:
    """Write the records as one Parquet file, whole or not at all; no records make an empty table with all columns."""
    write_rows(path, record_type, [to_row(r) for r in records])


def write_rows(path: Path, record_type: type, rows: list[dict[str, Any]]) -> None:
    """`write_records` for records that are rows already."""
    table = pa.Table.from_pylist(rows, schema=schema(record_type))
    replace_file(
        path,
        lambda temporary: pq.write_table(table, temporary, compression="zstd", write_page_checksum=True),
    )


def read_records(path: Path, record_type: type[R]) -> list[R]:
    """The records of a file that `write_records` wrote, this version's or an older one's (`filled`)."""
    return [from_row(record_type, row) for row in read_table(path, record_type).to_pylist()]


def read_table(path: Path, record_type: type) -> pa.Table:
    """The same as a table, which may have more columns. OtherVersionError: one is missing that is required."""
    try:
        return filled(pq.read_table(path, page_checksum_verification=True), record_type)
    except OtherVersionError as error:
        raise OtherVersionError(f"{path} is of another version, {error}") from error


def column_names(record_type: type) -> list[str]:
    """The columns of a record type's table."""
    return list(schema(record_type).names)


def seal(value: Any) -> bytes:
    """A value as JSON, after the SHA-256 of it: `unseal` refuses what was damaged since, or cut."""
    line = json.dumps(value).encode()
    return hashlib.sha256(line).hexdigest().encode() + b"\n" + line + b"\n"


def unseal(content: bytes) -> Any:
    """The value that `seal` was given. ValueError: the content is not what was written."""
    digest, _, rest = content.partition(b"\n")
    line, ended, after = rest.partition(b"\n")
    if hashlib.sha256(line).hexdigest().encode() != digest or not ended or after:
        raise ValueError("the content does not match its checksum")
    return json.loads(line)


def sha256_file(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_file(path: Path, write: typing.Callable[[str], object]) -> None:
    """Call `write` with a temporary path beside `path`, then move it there: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        write(str(temporary))
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException:  # an interrupt leaves no half file either
        temporary.unlink(missing_ok=True)
        raise


def note_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write down the SHA-256 of files of a folder, beside those that are noted there already, if they can be read."""
    noted: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        noted = _checksums(folder)
    noted |= {name: sha256_file(folder / name) for name in names}
    replace_file(folder / CHECKSUMS, lambda temporary: Path(temporary).write_bytes(seal(noted)))


def verify_checksum(path: Path) -> None:
    """ValueError where a file is not what it was when its checksum was noted; one without is not doubted."""
    noted = _checksums(path.parent) if (path.parent / CHECKSUMS).exists() else {}
    if path.name in noted and noted[path.name] != sha256_file(path):
        raise ValueError(f"{path} is damaged: it does not match its checksum")


def _checksums(folder: Path) -> dict[str, str]:
    try:
        return unseal((folder / CHECKSUMS).read_bytes())
    except ValueError as error:
        raise ValueError(f"{folder / CHECKSUMS} is damaged: {error}") from error


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder; what is removed meanwhile may be missing, and is no error."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception says that there is no space; Arrow's own carry no number."""
    return isinstance(error, OSError) and (error.errno == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error))


def user_cache() -> Path:
    """The folder of the user for what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cifar_tune"


def is_temporary(path: Path) -> bool:
    """Whether a file is what `replace_file` had not finished when its process died."""
    return path.name.startswith(".") and path.name.endswith(".part")


def _sync_folder(folder: Path) -> None:
    """Make a move into a folder outlive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
