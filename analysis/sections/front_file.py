"""The picture of the front as a file: `front.png` and `front.svg`.

Colour is the model and its arm, shape the runtime, fill the precision (`analysis.plots`).
"""

# pandas' and matplotlib's own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, Locator, LogLocator, MaxNLocator, NullFormatter

from analysis.frames import Row, label
from analysis.labels import Box, around, place
from analysis.plots import FILLS, SHAPES, colours, precision_name, series, shape_of
from analysis.sections.front_view import PALE, X_TITLE, View, fills, shapes, short_name, steps, view_of

_STAR = "#FFD500"


def plot_front(front: pd.DataFrame, min_accuracy: float, title: str, path: str | Path, kind: str = "png") -> None:
    """Write a picture (`kind`: png or svg) of the competing rows (`front.front_table`): accuracy in % over latency.

    Rows below the constraint are pale, the candidate wears a star. ValueError where there are no rows.
    """
    draw_front(front, min_accuracy, title).savefig(path, format=kind)


def draw_front(front: pd.DataFrame, min_accuracy: float, title: str) -> Figure:
    """What `plot_front` writes."""
    if front.empty:
        raise ValueError("front has 0 rows; allowed is 1 or more")
    view = view_of(front, min_accuracy)
    figure = Figure(figsize=(10, 5.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    x, y = steps(view)
    axes.step(x, y, where="post", color="0.45", lw=1.4, zorder=1)
    if view.shows_constraint:
        axes.axhline(view.constraint, color="0.2", lw=1, ls="--", zorder=1)
    looks = colours([series(p) for p in view.points])
    for point in sorted(view.points, key=lambda p: (not view.pale(p), bool(p["on_front"]))):
        _draw_point(axes, point, looks[series(point)], pale=view.pale(point))
    _set_axes(axes, view)
    _write_title(axes, view.points, title)
    axes.text(0.99, 0.015, "\n".join(view.notes), transform=axes.transAxes, ha="right", fontsize=8.5, color="0.3")
    _add_legends(figure, view, looks)
    _name_points(figure, axes, view)
    return figure


def _draw_point(axes: Any, point: Row, colour: str, *, pale: bool) -> None:
    x, y = point["place_ms"], 100 * point["test_accuracy"]
    if point["candidate"]:
        axes.plot(x, y, "*", ms=21, mfc=_STAR, mec="black", mew=1, zorder=2.5)
    look = {"marker": SHAPES[shape_of(point)].marker, "fillstyle": FILLS[point["precision"]].style}
    axes.plot(
        x, y, ls="", ms=7.5, color=colour, markerfacecoloralt="white", mew=1.5, alpha=PALE if pale else 1.0,
        zorder=2 if pale else 3, **look,
    )  # fmt: skip


def _set_axes(axes: Any, view: View) -> None:
    latencies = [p["place_ms"] for p in view.points]
    axes.set_xscale("log")
    axes.set_xlim(min(latencies) / 1.15, max(latencies) * 1.15)
    axes.xaxis.set_major_locator(_tick_locator(max(latencies) / min(latencies)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(view.low, view.high)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}" if value <= 100 else "")  # the margin is no accuracy
    axes.set_axisbelow(True)
    axes.set_xlabel(X_TITLE)
    axes.set_ylabel("test accuracy (%)")
    axes.grid(which="major", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def _tick_locator(ratio: float) -> Locator:
    """Ticks that leave five labels or more on a logarithmic axis whose ends have this ratio."""
    if ratio < 3:
        return MaxNLocator(6)
    return LogLocator(subs=(1, 2, 5) if ratio > 20 else (1, 1.5, 2, 3, 4, 5, 7))


def _write_title(axes: Any, points: list[Row], title: str) -> None:
    """The title, and below it the candidate: there no point can be covered."""
    chosen = [f"candidate: {label(p)}: {_figures(p)}" for p in points if p["candidate"]]
    axes.set_title("\n".join([title, *chosen]), loc="left", fontsize=10.5)


def _figures(point: Row) -> str:
    latency = point["place_ms"] if point["typical_ms"] is None else point["typical_ms"]
    return f"{100 * point['test_accuracy']:.2f} %, {latency:.3g} ms"


def _add_legends(figure: Figure, view: View, looks: dict[str, str]) -> None:
    grey: dict[str, Any] = {"ls": "", "color": "0.3", "ms": 7}
    blank = Line2D([], [], ls="")
    groups: dict[str, list[Any]] = {
        "Model (arm)": [Line2D([], [], marker="o", ls="", color=c, ms=7, label=name) for name, c in looks.items()],
        "Runtime": [Line2D([], [], marker=SHAPES[name].marker, label=name, **grey) for name in shapes(view)],
        "Precision": [
            Line2D([], [], marker="o", fillstyle=FILLS[name].style, markerfacecoloralt="white", mew=1.5,  # pyright: ignore[reportArgumentType] - a str
                   label=precision_name(name), **grey) for name in fills(view)
        ],
        "Lines and marks": _marks(view, grey),
    }  # fmt: skip
    handles = [h for group in groups.values() for h in (blank, *group)]
    names = [str(n) for title, group in groups.items() for n in (title, *(h.get_label() for h in group))]
    legend = figure.legend(handles, names, loc="outside right upper", fontsize=8.5, frameon=False)
    for text in legend.get_texts():
        if text.get_text() in groups:
            text.set_fontweight("bold")


def _marks(view: View, grey: dict[str, Any]) -> list[Any]:
    """What the lines, the star and pale markers mean, as far as the picture has them."""
    marks: list[Any] = [Line2D([], [], color="0.45", lw=1.4, label="Pareto front")]
    if view.shows_constraint:
        marks.append(Line2D([], [], color="0.2", lw=1, ls="--", label="accuracy constraint"))
    if any(p["candidate"] for p in view.points):
        marks.append(Line2D([], [], marker="*", ls="", ms=13, mfc=_STAR, mec="black", label="candidate"))
    if any(map(view.pale, view.points)):
        marks.append(Line2D([], [], marker="o", alpha=PALE, label=view.pale_text, **grey))
    return marks


def _name_points(figure: Figure, axes: Any, view: View) -> None:
    """Names beside the front's points, where there is room, with a line to what they name."""
    if not view.named:
        return
    figure.draw_without_rendering()
    where = axes.transData.transform([(p["place_ms"], 100 * p["test_accuracy"]) for p in view.points])
    scale = figure.dpi / 72
    taken = [around(x, y, 5 * scale) for x, y in where]
    ends = [tuple(axes.transData.transform((p["place_ms"], 100 * p["test_accuracy"]))) for p in view.named]
    area = axes.get_window_extent()
    bounds = Box(area.x0, area.y0, area.x1, area.y1)
    names = [short_name(p) for p in view.named]
    texts = [axes.text(0, 0, name, fontsize=7.5, transform=None, zorder=4) for name in names]
    sizes = [(box.width, box.height) for box in (t.get_window_extent() for t in texts)]
    for text, box, end in zip(texts, place(ends, sizes, taken, bounds), ends, strict=True):
        text.set_position((box.left, box.bottom))
        near = min(max(end[0], box.left), box.right), min(max(end[1], box.bottom), box.top)
        (x0, y0), (x1, y1) = axes.transData.inverted().transform([end, near])
        axes.plot([x0, x1], [y0, y1], color="0.55", lw=0.6, zorder=1.5)
