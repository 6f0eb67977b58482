"""Records to Parquet and back; the schema follows the record's fields.

A column per field; the environment is flattened to `env_*`. Optional fields are nullable columns. Nothing here
knows what a figure means.
"""

# pyarrow ships no types
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false

from __future__ import annotations

import os
import secrets
import types
import typing
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

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


def _plain_type(annotation: Any) -> tuple[Any, bool]:
    """The type without `| None` and with Literals as str, and whether None was allowed."""
    args = typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType) and type(None) in args:
        (inner,) = [a for a in args if a is not type(None)]
        return _plain_type(inner)[0], True
    if typing.get_origin(annotation) is typing.Literal:
        return str, False
    return annotation, False


def schema(record_type: type) -> pa.Schema:
    """The Parquet schema of a record type, columns in the order of its fields."""
    hints = typing.get_type_hints(record_type)
    columns: list[pa.Field] = []
    for f in fields(record_type):
        kind, nullable = _plain_type(hints[f.name])
        if is_dataclass(kind):
            columns += [c.with_name(_NESTED_PREFIX + c.name) for c in schema(typing.cast("type", kind))]
        else:
            columns.append(pa.field(f.name, _ARROW_TYPES[kind], nullable))
    return pa.schema(columns)


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
    hints = typing.get_type_hints(record_type)
    values: dict[str, Any] = {}
    # R is any record, and every record is a dataclass, which a type variable cannot say
    for f in fields(record_type):  # pyright: ignore[reportArgumentType]
        kind = _plain_type(hints[f.name])[0]
        if is_dataclass(kind):
            cut = len(_NESTED_PREFIX)
            nested = {k[cut:]: v for k, v in row.items() if k.startswith(_NESTED_PREFIX)}
            values[f.name] = from_row(typing.cast("type", kind), nested)
        else:
            values[f.name] = row[f.name]
    return record_type(**values)


def write_records(path: Path, record_type: type, records: Iterable[Any]) -> None:
    """Write the records as one Parquet file, whole or not at all; no records make an empty table with all columns."""
    table = pa.Table.from_pylist([to_row(r) for r in records], schema=schema(record_type))
    replace_file(path, lambda temporary: pq.write_table(table, temporary))


def read_records(path: Path, record_type: type[R]) -> list[R]:
    """The records of a file that `write_records` wrote."""
    return [from_row(record_type, row) for row in pq.read_table(path).to_pylist()]


def replace_file(path: Path, write: typing.Callable[[str], object]) -> None:
    """Call `write` with a temporary path beside `path`, then move it there: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write(str(temporary))
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
