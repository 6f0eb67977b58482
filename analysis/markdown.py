"""Values and tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

MISSING = "-"


def table(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; cells are formatted by `cell`."""
    body = [[cell(value) for value in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *body])


def cell(value: Any) -> str:
    """A value as the text of one cell: None as a hyphen, floats to four digits, pipes and line breaks made harmless."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(str(value).replace("|", "\\|").split())


def fixed(value: float | None, digits: int, scale: float = 1.0) -> str:
    """`value * scale` with so many decimals; a hyphen for None."""
    return MISSING if value is None else f"{value * scale:.{digits}f}"


def bullets(lines: Iterable[str]) -> str:
    """A Markdown list, one line each."""
    return "\n".join(f"- {' '.join(line.split())}" for line in lines)
