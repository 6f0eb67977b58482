"""How every picture of the analysis looks: colours, the shape of each runtime, the fill of each precision.

A colour is a model and its arm, a shape is a runtime, a fill is a precision: the same in each picture, whatever the
run holds. Matplotlib draws the files, Plotly the page; a look has a name in both.
"""

# Plotly's own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from analysis.frames import Row

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which colour-blind readers tell apart."""
MOST_KINDS = 12
"""Above so many kinds of variant only the front's points are named, and the others are muted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The marker of a runtime."""

    marker: str
    """Matplotlib's name of it."""
    symbol: str
    """Plotly's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fill:
    """How much of a marker is filled."""

    style: str
    """Matplotlib's `fillstyle`."""
    symbol: str
    """What Plotly adds to the name of the symbol."""
    alpha: float
    """Opacity of the inside in Plotly, which knows no half-filled symbols."""


COMPILED = "torch.compile"
ZEROED = "torch, weights set to zero"

SHAPES: dict[str, Shape] = {
    "torch": Shape(marker="o", symbol="circle"),
    COMPILED: Shape(marker="^", symbol="triangle-up"),
    "torchscript": Shape(marker=">", symbol="triangle-right"),
    "aotinductor": Shape(marker="s", symbol="square"),
    "onnxruntime": Shape(marker="D", symbol="diamond"),
    "openvino": Shape(marker="v", symbol="triangle-down"),
    "tensorrt": Shape(marker="p", symbol="pentagon"),
    "cudagraph": Shape(marker="X", symbol="x"),
    ZEROED: Shape(marker="P", symbol="cross"),
}
"""Runtime -> its shape in every picture; a new runtime has its line here."""

FILLS: dict[str, Fill] = {
    "fp32": Fill(style="full", symbol="", alpha=1.0),
    "fp16": Fill(style="left", symbol="", alpha=0.35),
    "bf16": Fill(style="right", symbol="-dot", alpha=0.35),
    "fp16_weights": Fill(style="top", symbol="-dot", alpha=1.0),
    "int8": Fill(style="none", symbol="-open", alpha=0.0),
    "int8_dynamic": Fill(style="bottom", symbol="-open-dot", alpha=0.0),
}
"""Precision -> its fill in every picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A figure of the page, and what it says to those who do not see it."""

    name: str
    alternative: str
    figure: go.Figure


def chart(height: int, legend: dict[str, Any] | None = None, **layout: Any) -> go.Figure:
    """An empty Plotly figure in the page's style; `legend` and `layout` go to Plotly."""
    figure = go.Figure()
    figure.update_layout(
        height=height,
        margin={"l": 60, "r": 20, "t": 30, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        colorway=list(COLOURS),
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#888", "activecolor": "#0072B2"},
        legend=legend or {"orientation": "h", "y": -0.2},
        **layout,
    )
    return figure


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name, in the order of the alphabet: two runs of a study look alike."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(sorted(set(names)))}


def series(row: Row) -> str:
    """What a colour stands for: the model and its arm."""
    return f"{row['model']} ({row['arm']})"


def shape_of(row: Row) -> str:
    """The name of a row's shape in SHAPES."""
    if row["zeroed"]:
        return ZEROED
    return row["runtime"] if row["compile"] == "none" else COMPILED


def precision_name(precision: str) -> str:
    """A precision as a reader knows it, for example `INT8 dynamic`."""
    number, _, how = precision.partition("_")
    return f"{number.upper()}{how and ' ' + how}"


def kind_of(row: Row) -> str:
    """What a variant is, layout and threads aside: what a shape and a fill stand for."""
    return f"{shape_of(row)} {precision_name(row['precision'])}"
