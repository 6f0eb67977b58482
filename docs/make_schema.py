"""Write docs/schema.md: the columns of a run's tables, from the records and the words beside their fields.

python docs/make_schema.py
"""

from __future__ import annotations

import ast
import inspect
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

from cifar_tune import records
from cifar_tune.store import schema

PAGE = Path(__file__).with_name("schema.md")
TABLES = {
    "trials.parquet": records.TrialRecord,
    "epochs.parquet": records.EpochRecord,
    "latency.parquet": records.LatencyRecord,
    "importance.parquet": records.ImportanceRecord,
    "serving.parquet": records.ServingRecord,
}
ADDED = """## front.parquet

The rows of `latency.parquet` that compete, without raw samples and bits, and with:

| column | meaning |
|---|---|
| `paired_ms`, `paired_low_ms`, `paired_high_ms` | latency free of the drift between rows, with its 95 % interval |
| `paired_accuracy` | accuracy; that of FP32 eager of the same weights where nothing tells the two apart |
| `accuracy_low` | one-sided lower bound of the test accuracy; all of them hold together at 95 % |
| `figure` | the best figures that there are of the row: `screen`, `race`, `confirm`; `ratio` to `floor_ms` are theirs |
| `place_ms`, `place_low_ms`, `place_high_ms` | by the race if it finished it, else `paired_ms` |
| `on_front` | no other row is as fast and as accurate, and better in one; after a race, of the rows that finished it |
| `front_probability` | share of bootstrap draws in which it is on the front |
| `on_wide_front` | on the front where size, build time and energy count as well; what is unknown does not count |
| `feasible` | the accuracy holds the constraint |
| `candidate` | the row that was chosen |
"""


def words(record: type) -> dict[str, str]:
    """Field -> the docstring below it, in one line; empty where there is none."""
    (body,) = [n for n in ast.parse(inspect.getsource(record)).body if isinstance(n, ast.ClassDef)]
    found: dict[str, str] = {}
    for field, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and after.value.value
            found[field.target.id] = " ".join(str(said).split()) if isinstance(said, str) else ""
    return found


def allowed(record: type, name: str) -> str:
    """What a column may hold where the field is a choice of words."""
    hint = typing.get_type_hints(record)[name]
    options = [a for a in typing.get_args(hint) if a is not type(None)] if isinstance(hint, types.UnionType) else [hint]
    values = [v for option in options if typing.get_origin(option) is typing.Literal for v in typing.get_args(option)]
    return ", ".join(f"`{value}`" for value in values)


def lines(record: type, prefix: str = "") -> list[str]:
    """A line of the table for each column."""
    columns = {f.name: f for f in schema(record)} if not prefix else {}
    said, found = words(record), []
    for field in fields(record):
        hint = typing.get_type_hints(record)[field.name]
        if is_dataclass(hint):
            found += lines(hint, f"{field.name[:3]}_")
            continue
        kind = str(columns[field.name].type) if columns else _kind(hint)
        text = " ".join(part for part in (said[field.name], allowed(record, field.name)) if part).replace("|", r"\|")
        optional = " or null" if field.default is not MISSING and field.default is None else ""
        found.append(f"| `{prefix}{field.name}` | {kind}{optional} | {text} |")
    return found


def _kind(hint: object) -> str:
    options = [a for a in typing.get_args(hint) if a is not type(None)] or [hint]
    return {str: "string", int: "int64", float: "double", bool: "bool"}[options[0]]


def page() -> str:
    """The whole page."""
    parts = [
        "# Schema",
        (
            "Written by `python docs/make_schema.py` from `cifar_tune/records.py`. Accuracies are fractions 0 to 1, "
            "times seconds unless the name ends in `_ms`, sizes MB = 10⁶ bytes. "
            "A table of an older version may lack a column: "
            "it then reads as the column's default or null. Only a table without a required column is refused."
        ),
    ]
    for name, record in TABLES.items():
        head = inspect.getdoc(record) or ""
        parts.append(
            "\n".join([f"## {name}", "", head, "", "| column | type | meaning |", "|---|---|---|", *lines(record)])
        )
    return "\n\n".join([*parts, ADDED])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
