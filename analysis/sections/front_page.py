"""The picture of the front on the page, which says more where it is hovered.

Colour is the model and its arm, shape the runtime, fill the precision (`analysis.plots`).
"""

# pandas' and Plotly's own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from analysis.frames import Row, label
from analysis.justify import between
from analysis.labels import Box, around, place
from analysis.paired import Z95, standard_error
from analysis.plots import FILLS, SHAPES, Picture, chart, colours, precision_name, series, shape_of
from analysis.sections.front_view import PALE, X_TITLE, View, fills, shapes, short_name, steps, view_of

_GREY = "#666666"
_LEGEND = {"orientation": "h", "y": -0.16, "groupclick": "toggleitem", "font": {"size": 12}}
_MARKS: dict[str, Any] = {"legendgroup": "Lines and marks", "legendgrouptitle": {"text": "Lines and marks"}}
_PAGE_WIDTH, _PAGE_HEIGHT = 1020.0, 440.0
"""About the size of the plot on the page, pixels: where labels go is found before a browser draws them."""


def figures(frame: pd.DataFrame, min_accuracy: float, images: int) -> Iterator[Picture]:
    """Accuracy over latency, with the intervals of the front, the constraint and the candidate.

    Args:
        frame: see `front.front_table`.
        min_accuracy: the constraint, 0 to 1.
        images: test images behind the accuracies.
    """
    if frame.empty:
        return
    view = view_of(frame, min_accuracy)
    left, right = _reach(view)
    axis = {"type": "log", "title": X_TITLE, "range": [left, right], "tickvals": _ticks(left, right)}
    figure = chart(680, xaxis=axis, legend=_LEGEND)
    figure.update_yaxes(title="test accuracy (%)", range=[view.low, view.high])
    x, y = steps(view)
    line = {"shape": "hv", "color": "#888", "width": 1.5}
    figure.add_scatter(x=x, y=y, mode="lines", line=line, name="Pareto front", hoverinfo="skip", **_MARKS)
    for name, colour in colours([series(p) for p in view.points]).items():
        figure.add_trace(_front_points(name, colour, [p for p in view.points if series(p) == name], view, images))
    for point in (p for p in view.points if p["candidate"]):
        figure.add_scatter(
            x=[point["place_ms"]], y=[100 * point["test_accuracy"]], mode="markers", name="candidate",
            marker={"symbol": "star-open", "size": 24, "color": _GREY, "line": {"width": 2}}, hoverinfo="skip",
            **_MARKS,
        )  # fmt: skip
    _add_keys(figure, view)
    if view.shows_constraint:
        figure.add_hline(y=view.constraint, line={"dash": "dash", "width": 1, "color": "#888"})
    if view.notes:
        figure.add_annotation(
            text="<br>".join(view.notes), xref="paper", yref="paper", x=1, y=0, xanchor="right", yanchor="bottom",
            showarrow=False, align="right", font={"size": 11},
        )  # fmt: skip
    _annotate(figure, view)
    chosen = next((label(p) for p in view.points if p["candidate"]), "none")
    words = f"Accuracy over latency of {len(view.points)} variants. Candidate: {chosen}."
    yield Picture(name="front", alternative=words, figure=figure)


def _reach(view: View) -> tuple[float, float]:
    """Ends of the logarithmic x axis, as exponents of ten."""
    latencies = [math.log10(p["place_ms"]) for p in view.points]
    return min(latencies) - 0.06, max(latencies) + 0.06


def _ticks(left: float, right: float) -> list[float]:
    """Round values between two exponents of ten."""
    factors = (1, 2, 5) if right - left > 1 else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    values = [f * 10.0**power for power in range(math.floor(left), math.ceil(right) + 1) for f in factors]
    return [value for value in values if left <= math.log10(value) <= right]


def _front_points(name: str, colour: str, points: list[Row], view: View, images: int) -> go.Scatter:
    """The points of one colour, behind a point that is nowhere: the legend shows the look of the first."""
    alphas = [PALE if view.pale(p) else 1.0 for p in points]
    x = [p["place_ms"] for p in points]
    return go.Scatter(
        x=[None, *x],
        y=[None, *(100 * p["test_accuracy"] for p in points)],
        mode="markers",
        name=html.escape(name),
        legendgroup="Model (arm)",
        legendgrouptitle={"text": "Model (arm)"},
        marker={
            "size": 10,
            "color": [colour, *(_inside(colour, p, alpha) for p, alpha in zip(points, alphas, strict=True))],
            "line": {"color": [colour, *(_faded(colour, alpha) for alpha in alphas)], "width": 1.5},
            "symbol": ["circle", *(SHAPES[shape_of(p)].symbol + FILLS[p["precision"]].symbol for p in points)],
        },
        error_x=_bars(colour, points, [((p["place_high_ms"] or ms) - ms, ms - (p["place_low_ms"] or ms))
                                       for p, ms in zip(points, x, strict=True)]),
        error_y=_bars(colour, points, [(error, error) for error in (
            100 * Z95 * standard_error(p["test_accuracy"], images) for p in points)]),
        text=["", *(_hover(p) for p in points)],
        hoverinfo="text",
    )  # fmt: skip


def _bars(colour: str, points: list[Row], up_down: list[tuple[float, float]]) -> dict[str, Any]:
    """Error bars of the front's points: those of all would hide the points, which say theirs when hovered."""
    shown = [p["on_front"] or p["candidate"] for p in points]
    ends = [pair if is_shown else (0.0, 0.0) for pair, is_shown in zip(up_down, shown, strict=True)]
    return {
        "type": "data", "symmetric": False, "thickness": 1, "width": 0, "color": _faded(colour, 0.5),
        "array": [0.0, *(up for up, _ in ends)], "arrayminus": [0.0, *(down for _, down in ends)],
    }  # fmt: skip


def _inside(colour: str, point: Row, alpha: float) -> str:
    """The colour of a marker's inside; an open symbol takes its outline from it."""
    fill = FILLS[point["precision"]]
    return _faded(colour, alpha if "open" in fill.symbol else alpha * fill.alpha)


def _faded(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[n : n + 2], 16) for n in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def _hover(point: Row) -> str:
    probability, interval = point["front_probability"], between(point["place_low_ms"], point["place_high_ms"])
    on_front = "" if probability is None else f"<br>on the front with probability {probability:.2f}"
    return (
        f"<b>{html.escape(label(point))}</b><br>accuracy {100 * point['test_accuracy']:.2f} % "
        f"(at least {100 * point['accuracy_low']:.2f} %)<br>latency {point['place_ms']:.3f} ms{interval} "
        f"in the {'screen' if point['figure'] == 'screen' else 'race'}{on_front}"
    )


def _add_keys(figure: go.Figure, view: View) -> None:
    """What shapes and fills mean, in the legend."""
    keys = [(name, SHAPES[name].symbol, 1.0, "Runtime") for name in shapes(view)]
    keys += [
        (precision_name(name), f"circle{FILLS[name].symbol}", FILLS[name].alpha, "Precision") for name in fills(view)
    ]
    if any(map(view.pale, view.points)):
        keys.append((view.pale_text, "circle", PALE, "Lines and marks"))
    for name, symbol, alpha, group in keys:
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name=name, legendgroup=group, legendgrouptitle={"text": group},
            marker={
                "symbol": symbol, "color": _GREY if "open" in symbol else _faded(_GREY, alpha), "size": 10,
                "line": {"color": _faded(_GREY, alpha) if name == view.pale_text else _GREY, "width": 1.5},
            },
        )  # fmt: skip


def _annotate(figure: go.Figure, view: View) -> None:
    """Names beside the front's points."""
    left, right = _reach(view)

    def pixel(point: Row) -> tuple[float, float]:
        x = (math.log10(point["place_ms"]) - left) / (right - left)
        return _PAGE_WIDTH * x, _PAGE_HEIGHT * (100 * point["test_accuracy"] - view.low) / (view.high - view.low)

    names, ends = [short_name(p) for p in view.named], [pixel(p) for p in view.named]
    sizes = [(6.2 * len(name) + 8, 17.0) for name in names]
    taken = [around(*pixel(p), 7) for p in view.points]
    boxes = place(ends, sizes, taken, Box(0, 0, _PAGE_WIDTH, _PAGE_HEIGHT))
    for point, name, (x, y), box in zip(view.named, names, ends, boxes, strict=True):
        figure.add_annotation(
            text=name, x=math.log10(point["place_ms"]), y=100 * point["test_accuracy"], showarrow=True, arrowhead=0,
            arrowwidth=0.7, arrowcolor="#888", font={"size": 11}, ax=(box.left + box.right) / 2 - x,
            ay=y - (box.bottom + box.top) / 2, standoff=6,
        )  # fmt: skip
