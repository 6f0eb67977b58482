"""Every row of the variant grid, and the distributions of the fastest."""

# pandas' and Plotly's own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import html
from collections.abc import Iterator

import numpy as np
import pandas as pd

from analysis.decide import compile_text, grid_rows
from analysis.frames import label, rows
from analysis.justify import speedup_cell
from analysis.markdown import MISSING, fixed, table
from analysis.plots import Picture, chart, colours, series

MOST_DISTRIBUTIONS = 24
"""Rows whose latency distributions are shown: the fastest."""
MOST_SAMPLES = 300
"""Latency samples of a row in the picture, evenly spread over time."""


def text(latency: pd.DataFrame) -> str:
    """Every row of the variant grid."""
    lines = [
        (
            f"{row['model']} ({row['arm']})",
            row["variant"],
            *(fixed(row[key], 3) for key in ("p50_ms", "p95_ms", "p99_ms", "std_ms")),
            speedup_cell(row),
            *(fixed(row[key], 2, 100) for key in ("test_accuracy", "agreement")),
            fixed(row["artifact_mb"], 2),
            compile_text(row) or MISSING,
            row["status"],
        )
        for row in grid_rows(latency)
    ]
    header = ("Model", "Variant", "p50 ms", "p95 ms", "p99 ms", "Std ms", "Speedup", "Accuracy %", "Agreement %", "MB")
    note = (
        "All figures here are of the screen. "
        "Speedup is the latency of FP32 eager of the same weights divided by that of the variant. It is the median "
        "over paired rounds in one process, with its 95 % interval. A percentile that the samples cannot bound is left "
        "out. MB is the size of what is deployed: a file, or the weights as held in memory."
    )
    return f"## All variants\n\n{table((*header, 'Build', 'Status'), lines)}\n\n{note}"


def figures(latency: pd.DataFrame) -> Iterator[Picture]:
    """Distributions of the samples of the fastest rows."""
    measured = [r for r in rows(latency) if r["stage"] == "grid" and r["samples_ms"] is not None and r["p50_ms"]]
    fastest = sorted(measured, key=lambda row: row["p50_ms"])[:MOST_DISTRIBUTIONS]
    if not fastest:
        return
    figure = chart(140 + 30 * len(fastest), showlegend=False, xaxis={"type": "log", "title": "latency of a call (ms)"})
    looks = colours([series(row) for row in fastest])
    for row in fastest:
        samples = np.concatenate([np.asarray(repeat, dtype=float) for repeat in row["samples_ms"]])
        figure.add_violin(
            x=samples[:: max(1, len(samples) // MOST_SAMPLES)], name=html.escape(label(row)), orientation="h",
            side="positive", width=1.6, points=False, line={"width": 1, "color": looks[series(row)]},
            meanline={"visible": True}, hoverinfo="name+x", spanmode="hard",
        )  # fmt: skip
    figure.update_yaxes(automargin=True, autorange="reversed")
    words = f"Distributions of the latency samples of the {len(fastest)} fastest rows"
    yield Picture(name="distributions", alternative=words, figure=figure)
