"""What setting the smallest weights to zero costs and gains (R30)."""

# pandas' and Plotly's own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.decide import grid_rows, is_measured
from analysis.frames import Row, variant_of
from analysis.justify import speedup_cell
from analysis.markdown import fixed, table
from analysis.plots import Picture, chart, colours, series
from cifar_tune.config import REFERENCE

PICTURE = "![Accuracy, deflated size and latency over the share of zeros](magnitude.png)"
ZEROED_FIGURES = (
    ("accuracy", "accuracy (%)", "test_accuracy", 100),
    ("size", "deflated size (MB)", "compressed_mb", 1),
    ("latency", "p50 (ms)", "p50_ms", 1),
)
"""Name, title of the axis, column and factor of the three charts of R30."""


def zeroed_rows(latency: pd.DataFrame) -> list[Row]:
    """Measured rows of magnitude pruning, each model's and arm's in order of the rate, after its FP32 eager."""
    grid = [r for r in grid_rows(latency) if is_measured(r)]
    kinds = {(r["model"], r["arm"]) for r in grid if r["zeroed"]}
    shown = [r for r in grid if (r["model"], r["arm"]) in kinds and (r["zeroed"] or variant_of(r) == REFERENCE)]
    return sorted(shown, key=lambda r: (r["model"], r["arm"], r["zeroed_by_layer"], r["zeroed"]))


def zeroed_curves(latency: pd.DataFrame) -> dict[str, list[Row]]:
    """The same as curves: model, arm and where the smallest weights were looked for -> rows, from no zeros on."""
    curves: dict[str, list[Row]] = {}
    for row in zeroed_rows(latency):
        for by_layer in (False, True):  # no zeros at all is where both begin
            if not row["zeroed"] or row["zeroed_by_layer"] == by_layer:
                where = "each layer" if by_layer else "whole model"
                curves.setdefault(f"{row['model']} ({row['arm']}), smallest of {where}", []).append(row)
    return curves


def text(latency: pd.DataFrame) -> str:
    """A row for each share of zeros; empty where no weights were set to zero."""
    found = zeroed_rows(latency)
    lines = [
        (
            r["model"],
            r["arm"],
            "each layer" if r["zeroed_by_layer"] else "whole model" if r["zeroed"] else "-",
            f"{100 * r['zeroed']:.0f}",
            fixed(r["test_accuracy"], 2, 100),
            fixed(r["artifact_mb"], 2),
            fixed(r["compressed_mb"], 2),
            fixed(r["p50_ms"], 3),
            speedup_cell(r),
        )
        for r in found
    ]
    header = ("Model", "Arm", "Smallest of", "Zero %", "Accuracy %", "Dense MB", "Deflated MB", "p50 ms", "Speedup")
    note = (
        "The weights of the smallest magnitude are set to zero, without further training. A dense kernel multiplies a "
        "zero like any other number, so latency stays the same. The file becomes smaller only where it is compressed. "
        "Cutting whole channels (`--prune`) shortens latency."
    )
    return f"## Magnitude pruning\n\n{table(header, lines)}\n\n{note}\n\n{PICTURE}" if lines else ""


def figures(latency: pd.DataFrame) -> Iterator[Picture]:
    """Accuracy, size and latency over the share of weights that are zero (R30)."""
    curves = zeroed_curves(latency)
    if not curves:
        return
    looks = colours(list(curves))
    for what, title, column, factor in ZEROED_FIGURES:
        figure = chart(360, xaxis={"title": "weights that are zero (%)"})
        figure.update_yaxes(title=title, rangemode="tozero")
        for name, points in curves.items():
            known = [r for r in points if r[column] is not None]
            figure.add_scatter(
                x=[100 * r["zeroed"] for r in known], y=[factor * r[column] for r in known], mode="lines+markers",
                name=html.escape(name), line={"color": looks[name]},
            )  # fmt: skip
        yield Picture(name=f"magnitude-{what}", alternative=f"Magnitude pruning: {what} over zeros", figure=figure)


def plot_magnitude(curves: Mapping[str, list[Row]], path: str | Path) -> None:
    """Write a PNG of the three charts of R30: accuracy, deflated size and latency over the share of zeros.

    Args:
        curves: see `zeroed_curves`; one or more.
    """
    figure = Figure(figsize=(12, 4.2 + 0.2 * len(curves)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    looks = colours([series(points[0]) for points in curves.values()])
    for axes, (_, title, column, factor) in zip(figure.subplots(1, 3), ZEROED_FIGURES, strict=True):
        for name, points in curves.items():
            known = [p for p in points if p[column] is not None]
            x, y = [100 * p["zeroed"] for p in known], [factor * p[column] for p in known]
            line = "--" if any(p["zeroed_by_layer"] for p in points) else "-"
            axes.plot(x, y, line, marker="o", ms=4, color=looks[series(points[0])], label=name)
        axes.set_xlabel("weights that are zero (%)")
        axes.set_ylabel(title)
        axes.set_ylim(bottom=0)
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", fontsize=9, frameon=False, ncols=2)
    figure.savefig(path, format="png")
