"""What each parameter of a search mattered, as the sweep's fANOVA found it."""

# pandas' and Plotly's own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import html
from collections.abc import Iterator

import pandas as pd

from analysis.frames import Row, rows
from analysis.markdown import fixed, table
from analysis.plots import Picture, chart, colours, series

CHANCE = 0.05
"""Of noise that explains as much, up to which a parameter is shown."""


def text(frame: pd.DataFrame) -> str:
    """A row for each parameter that the trials tell from noise, and the names of the others; empty without a search."""
    if frame.empty:
        return ""
    told = _told(frame)
    lines = [(r["model"], r["arm"], r["parameter"], fixed(r["importance"], 0, 100), r["trials"]) for r in told]
    header = ("Model", "Arm", "Parameter", "Share of the variance %", "Finished trials")
    parts = [table(header, lines)] if told else []
    parts.append(
        "The share is that of the variance of validation accuracy which the parameter explains (fANOVA). A parameter "
        f"is shown where shuffled accuracies give it as large a share in at most {CHANCE:.0%} of cases."
    )
    if others := [f"{r['parameter']} of {series(r)} in {r['trials']} trials" for r in rows(frame) if r not in told]:
        parts.append(f"The trials do not tell these from noise: {', '.join(others)}.")
    return "\n\n".join(["## Importance of the parameters", *parts])


def _told(frame: pd.DataFrame) -> list[Row]:
    """The parameters that the trials tell from noise; those of an older run, which did not ask, with them."""
    return [row for row in rows(frame) if row["chance"] is None or row["chance"] <= CHANCE]


def figures(frame: pd.DataFrame) -> Iterator[Picture]:
    """Share of the variance that each parameter explains."""
    found = _told(frame)
    if not found:
        return
    figure = chart(120 + 22 * len(found), xaxis={"title": "share of the variance of validation accuracy (%)"})
    for name, colour in colours([series(row) for row in found]).items():
        mine = [row for row in found if series(row) == name]
        figure.add_bar(
            x=[100 * row["importance"] for row in mine],
            y=[html.escape(f"{row['parameter']}, {name}") for row in mine],
            orientation="h", name=html.escape(name), marker={"color": colour},
        )  # fmt: skip
    figure.update_yaxes(automargin=True)
    yield Picture(name="importance", alternative="Importance of the parameters", figure=figure)
