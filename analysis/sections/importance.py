"""What each parameter of a search mattered, as the sweep's fANOVA found it."""

# pandas' and Plotly's own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import html
from collections.abc import Iterator

import pandas as pd

from analysis.frames import rows
from analysis.markdown import fixed, table
from analysis.plots import Picture, chart, colours, series


def text(frame: pd.DataFrame) -> str:
    """A row for each parameter of each search; empty where there was no search."""
    if frame.empty:
        return ""
    lines = [(r["model"], r["arm"], r["parameter"], fixed(r["importance"], 0, 100), r["trials"]) for r in rows(frame)]
    header = ("Model", "Arm", "Parameter", "Share of the variance %", "Finished trials")
    note = (
        "The share is that of the variance of validation accuracy which the parameter explains (fANOVA). "
        "With few trials it is only a hint."
    )
    return f"## Importance of the parameters\n\n{table(header, lines)}\n\n{note}"


def figures(frame: pd.DataFrame) -> Iterator[Picture]:
    """Share of the variance that each parameter explains."""
    found = rows(frame)
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
