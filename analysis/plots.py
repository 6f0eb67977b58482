"""The picture of the answer: accuracy against latency, with the front and the candidate."""

# pandas' and matplotlib's own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownLambdaType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, Locator, LogLocator, MaxNLocator, NullFormatter

from analysis.frames import Row, rows
from analysis.tables import ZEROED_FIGURES

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which colour-blind readers tell apart."""
_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<", ">", "p", "h", "d", "8", "H")
_FADED = 0.35
_HEADROOM = 0.22
"""Share of the height that is kept free above the points, for the candidate's label."""


def plot_front(front: pd.DataFrame, min_accuracy: float, title: str, path: str | Path, kind: str = "png") -> None:
    """Write a picture (`kind`: png or svg) of the competing rows (`tables.front_table`): accuracy in % over latency.

    Colour is the model and arm, the marker the precision and compilation, a hollow marker channels_last; rows
    below the constraint are faded, the candidate wears a star. ValueError where there are no rows.
    """
    points = rows(front)
    if not points:
        raise ValueError("front has 0 rows; allowed is 1 or more")
    figure = Figure(figsize=(10, 5.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = _assign(sorted({_model(p) for p in points}), COLOURS)
    markers = _assign(sorted({kind_of(p) for p in points}, key=lambda kind: ("FP32" not in kind, kind)), _MARKERS)
    _draw_front(axes, points, 100 * min_accuracy)
    for point in points:
        _draw_point(axes, point, colours[_model(point)], markers[kind_of(point)])
    for point in points:
        if point["candidate"]:
            _mark_candidate(axes, point)
    _label_axes(axes, points, title)
    _add_legends(figure, colours, markers)
    figure.savefig(path, format=kind)


def plot_magnitude(curves: Mapping[str, list[Row]], path: str | Path) -> None:
    """Write a PNG of the three charts of R30: accuracy, deflated size and latency over the share of zeros.

    Args:
        curves: see `tables.zeroed_curves`; one or more.
    """
    figure = Figure(figsize=(12, 4.2 + 0.2 * len(curves)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    colours = _assign(list(dict.fromkeys(_model(points[0]) for points in curves.values())), COLOURS)
    for axes, (_, title, column, factor) in zip(figure.subplots(1, 3), ZEROED_FIGURES, strict=True):
        for name, points in curves.items():
            known = [p for p in points if p[column] is not None]
            x, y = [100 * p["zeroed"] for p in known], [factor * p[column] for p in known]
            line = "--" if any(p["zeroed_by_layer"] for p in points) else "-"
            axes.plot(x, y, line, marker="o", ms=4, color=colours[_model(points[0])], label=name)
        axes.set_xlabel("weights that are zero (%)")
        axes.set_ylabel(title)
        axes.set_ylim(bottom=0)
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", fontsize=9, frameon=False, ncols=2)
    figure.savefig(path, format="png")


def _model(point: Row) -> str:
    return f"{point['model']} ({point['arm']})"


def kind_of(row: Row) -> str:
    """What a variant is, layout and threads aside."""
    compiled = {"none": "", "default": " + compile"}.get(row["compile"], f" + compile {row['compile']}")
    runtime = "" if row["runtime"] == "torch" else f"{row['runtime']} "
    number, _, how = row["precision"].partition("_")
    zeroed = " zeroed" if row["zeroed"] else ""
    return f"{runtime}{number.upper()}{how and ' ' + how}{compiled}{zeroed}"


def _assign(names: list[str], looks: tuple[str, ...]) -> dict[str, str]:
    """A look for each name; names are given in order, so that two runs of a study look alike."""
    return {name: looks[i % len(looks)] for i, name in enumerate(names)}


def _draw_front(axes: Any, points: list[Row], min_percent: float) -> None:
    on_front = sorted((p["paired_ms"], 100 * p["test_accuracy"]) for p in points if p["on_front"])
    x, y = zip(*on_front, strict=True)
    # A step, not a line between points: nothing was measured that would reach the accuracies in between.
    axes.step(
        [*x, 1.15 * max(p["paired_ms"] for p in points)], [*y, y[-1]], where="post", color="0.45", lw=1.4, zorder=1
    )
    axes.axhline(min_percent, color="0.2", lw=1, ls="--", zorder=1)


def _draw_point(axes: Any, point: Row, colour: str, marker: str) -> None:
    face = "white" if point["channels_last"] else colour
    alpha = 1.0 if point["feasible"] else _FADED
    x, y = point["paired_ms"], 100 * point["test_accuracy"]
    axes.plot(x, y, marker, ms=7.5, mfc=face, mec=colour, mew=1.5, alpha=alpha, zorder=3)


def _mark_candidate(axes: Any, point: Row) -> None:
    x, y = point["paired_ms"], 100 * point["test_accuracy"]
    axes.plot(x, y, "*", ms=21, mfc="#FFD500", mec="black", mew=1, zorder=2.5)
    axes.annotate(
        f"candidate: {point['model']} ({point['arm']}), {point['variant']}\n{y:.2f} %, {x:.3g} ms",
        (x, y),
        xytext=(0.02, 0.97),  # nothing is faster and more accurate than the front, so this corner is free
        textcoords="axes fraction",
        va="top",
        fontsize=9,
        bbox={"boxstyle": "round", "fc": "white", "ec": "0.6"},
        arrowprops={"arrowstyle": "-", "color": "0.6", "shrinkB": 9, "relpos": (0.1, 0)},
        zorder=2,
    )


def _label_axes(axes: Any, points: list[Row], title: str) -> None:
    latencies = [p["paired_ms"] for p in points]
    axes.set_xscale("log")
    axes.set_xlim(min(latencies) / 1.15, max(latencies) * 1.15)
    axes.xaxis.set_major_locator(_tick_locator(max(latencies) / min(latencies)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top + _HEADROOM * (top - bottom))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}" if value <= 100 else "")  # headroom is no accuracy
    axes.set_axisbelow(True)
    axes.set_xlabel("median latency at batch 1 (ms, without the drift between rows; log scale)")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(which="major", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def _tick_locator(ratio: float) -> Locator:
    """Ticks that leave five labels or more on a logarithmic axis whose ends have this ratio."""
    if ratio < 3:
        return MaxNLocator(6)
    return LogLocator(subs=(1, 2, 5) if ratio > 20 else (1, 1.5, 2, 3, 4, 5, 7))


def _add_legends(figure: Figure, colours: dict[str, str], markers: dict[str, str]) -> None:
    shape: dict[str, Any] = {"ls": "", "color": "0.3", "ms": 7}
    handles: list[Any] = [
        *(Line2D([], [], marker="o", ls="", color=colour, ms=7, label=name) for name, colour in colours.items()),
        *(Line2D([], [], marker=marker, label=name, **shape) for name, marker in markers.items()),
        Line2D([], [], marker="o", mfc="white", label="hollow: channels_last", **shape),
        Line2D([], [], color="0.45", lw=1.4, label="Pareto front"),
        Line2D([], [], color="0.2", lw=1, ls="--", label="accuracy constraint"),
        Line2D([], [], marker="o", ls="", color="0.3", ms=7, alpha=_FADED, label="faded: below it"),
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=9, frameon=False)
