"""The figures of the HTML report: tables of a run -> Plotly figures. No rule is applied here.

What a name from the data may hold is escaped: Plotly reads some HTML in its labels.
"""

# pandas' and Plotly's own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.decide import Decision
from analysis.effects import Effect
from analysis.frames import Row, label, rows, select
from analysis.paired import Z95, standard_error
from analysis.plots import COLOURS, kind_of
from analysis.tables import ZEROED_FIGURES, DistillationGain, zeroed_curves
from cifar_tune.space import PARAMETERS

MOST_CURVES = 60
"""Learning curves in the picture: the best trials."""
MOST_DISTRIBUTIONS = 24
"""Rows whose latency distributions are shown: the fastest."""
MOST_SAMPLES = 300
"""Latency samples of a row in the picture, evenly spread over time."""
_SYMBOLS = ("circle", "triangle-up", "square", "diamond", "cross", "x", "star-triangle-down", "hexagon")
_SEARCHED = {p.name: p.log for p in PARAMETERS if p.is_number}
"""Numbers that are searched, and whether on a logarithmic scale."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A figure, and what it says to those who do not see it."""

    name: str
    alternative: str
    figure: go.Figure


def _figure(height: int, **layout: Any) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        height=height,
        margin={"l": 60, "r": 20, "t": 30, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": -0.2},
        colorway=list(COLOURS),
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#888", "activecolor": "#0072B2"},
        **layout,
    )
    return figure


def _colours(names: Sequence[str]) -> dict[str, str]:
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(sorted(set(names)))}


def _series(row: Row) -> str:
    return f"{row['model']} ({row['arm']})"


# --- the answer -------------------------------------------------------------------------------------------------


def front(frame: pd.DataFrame, min_accuracy: float, images: int) -> Iterator[Picture]:
    """Accuracy over latency with intervals, the front, the constraint and the candidate."""
    points = rows(frame)
    if not points:
        return
    title = "median latency at batch 1 (ms, without the drift between rows; log scale)"
    figure = _figure(520, xaxis={"type": "log", "title": title})
    figure.update_yaxes(title="test accuracy (%)")
    steps = sorted((p["paired_ms"], 100 * p["test_accuracy"]) for p in points if p["on_front"])
    x, y = [s[0] for s in steps], [s[1] for s in steps]
    x.append(1.15 * max(p["paired_ms"] for p in points))
    line = {"shape": "hv", "color": "#888", "width": 1.5}
    figure.add_scatter(x=x, y=[*y, y[-1]], mode="lines", line=line, name="Pareto front", hoverinfo="skip")
    kinds = sorted({kind_of(p) for p in points})
    symbols = {kind: _SYMBOLS[i % len(_SYMBOLS)] for i, kind in enumerate(kinds)}
    for name, colour in _colours([_series(p) for p in points]).items():
        mine = [p for p in points if _series(p) == name]
        figure.add_trace(_front_points(name, colour, mine, symbols, images))
    for point in (p for p in points if p["candidate"]):
        figure.add_scatter(
            x=[point["paired_ms"]], y=[100 * point["test_accuracy"]], mode="markers", name="candidate",
            hoverinfo="skip",
            marker={"symbol": "star", "size": 24, "color": "#FFD500", "line": {"color": "black", "width": 1}},
        )  # fmt: skip
    for kind, symbol in symbols.items():
        figure.add_scatter(
            x=[None], y=[None], mode="markers", name=html.escape(kind),
            marker={"symbol": symbol, "color": "#888", "size": 9},
        )  # fmt: skip
    figure.add_scatter(
        x=[None], y=[None], mode="markers", name="hollow: channels_last",
        marker={"symbol": "circle-open", "color": "#888", "size": 9},
    )  # fmt: skip
    figure.add_hline(y=100 * min_accuracy, line={"dash": "dash", "width": 1, "color": "#888"})
    chosen = next((label(p) for p in points if p["candidate"]), "none")
    words = f"Accuracy over latency of {len(points)} variants; candidate: {chosen}. The table below has the figures."
    yield Picture(name="front", alternative=words, figure=figure)


def _front_points(name: str, colour: str, points: list[Row], symbols: dict[str, str], images: int) -> go.Scatter:
    error = {"thickness": 1, "width": 0, "color": colour}
    middle = [p["paired_ms"] for p in points]
    return go.Scatter(
        x=middle,
        y=[100 * p["test_accuracy"] for p in points],
        mode="markers",
        name=html.escape(name),
        marker={
            "size": 9,
            "color": ["rgba(0,0,0,0)" if p["channels_last"] else colour for p in points],
            "line": {"color": colour, "width": 1.5},
            "symbol": [symbols[kind_of(p)] for p in points],
            "opacity": [1.0 if p["feasible"] else 0.35 for p in points],
        },
        error_x={
            "type": "data", "symmetric": False, **error,
            "array": [p["paired_high_ms"] - p["paired_ms"] for p in points],
            "arrayminus": [p["paired_ms"] - p["paired_low_ms"] for p in points],
        },
        error_y={
            "type": "data", **error,
            "array": [100 * Z95 * standard_error(p["test_accuracy"], images) for p in points],
        },
        text=[_front_hover(p) for p in points],
        hoverinfo="text",
    )  # fmt: skip


def _front_hover(point: Row) -> str:
    return (
        f"<b>{html.escape(label(point))}</b><br>accuracy {100 * point['test_accuracy']:.2f} % "
        f"(at least {100 * point['accuracy_low']:.2f} %)<br>latency {point['paired_ms']:.3f} ms "
        f"({point['paired_low_ms']:.3f} to {point['paired_high_ms']:.3f}), measured p50 {point['p50_ms']:.3f} ms<br>"
        f"on the front with probability {point['front_probability']:.2f}"
    )


# --- what each step gained --------------------------------------------------------------------------------------


def gains(decisions: Sequence[Decision]) -> Iterator[Picture]:
    """Latency reduction of each optimisation alone, by verdict."""
    shown = [d for d in decisions if d.gain is not None]
    if not shown:
        return
    figure = _figure(120 + 24 * len(shown), xaxis={"title": "reduction of latency (%)"})
    for verdict, colour in (("keep", COLOURS[2]), ("drop", COLOURS[1]), ("refine", "#888")):
        mine = [d for d in shown if d.verdict == verdict]
        figure.add_bar(
            x=[100 * (d.gain or 0.0) for d in mine],
            y=[html.escape(f"{d.optimization}, {d.model} ({d.arm})") for d in mine],
            orientation="h", name=verdict, marker={"color": colour},
            text=[f"{100 * (d.gain or 0.0):+.1f} %" for d in mine],
            hovertext=[html.escape(d.reason) for d in mine], hoverinfo="text",
        )  # fmt: skip
    figure.update_yaxes(automargin=True, autorange="reversed")
    counts = Counter(d.verdict for d in shown)
    verdicts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("keep", "drop", "refine") if counts[verdict])
    words = f"What each optimisation gains alone, by verdict: {verdicts}. The table below has each with its reason."
    yield Picture(name="gains", alternative=words, figure=figure)


def effects(found: Sequence[Effect]) -> Iterator[Picture]:
    """Factor effects with their intervals."""
    if not found:
        return
    figure = _figure(120 + 20 * len(found), xaxis={"title": "change of latency (%), with 95 % interval"})
    for name, colour in _colours([f"{e.model} ({e.arm})" for e in found]).items():
        mine = [e for e in found if f"{e.model} ({e.arm})" == name]
        figure.add_scatter(
            x=[100 * e.change for e in mine], y=[html.escape(f"{e.term}, {name}") for e in mine], mode="markers",
            name=html.escape(name), marker={"color": colour, "size": 9},
            error_x={
                "type": "data", "symmetric": False, "color": colour,
                "array": [100 * (e.high - e.change) for e in mine],
                "arrayminus": [100 * (e.change - e.low) for e in mine],
            },
        )  # fmt: skip
    figure.add_vline(x=0, line={"width": 1, "color": "#888"})
    figure.update_yaxes(automargin=True, autorange="reversed")
    yield Picture(name="effects", alternative="Effects of precision, compilation and layout on latency", figure=figure)


def magnitude(latency: pd.DataFrame) -> Iterator[Picture]:
    """Accuracy, size and latency over the share of weights that are zero (R30)."""
    curves = zeroed_curves(latency)
    if not curves:
        return
    colours = _colours(list(curves))
    for what, title, column, factor in ZEROED_FIGURES:
        figure = _figure(360, xaxis={"title": "weights that are zero (%)"})
        figure.update_yaxes(title=title, rangemode="tozero")
        for name, points in curves.items():
            known = [r for r in points if r[column] is not None]
            figure.add_scatter(
                x=[100 * r["zeroed"] for r in known], y=[factor * r[column] for r in known], mode="lines+markers",
                name=html.escape(name), line={"color": colours[name]},
            )  # fmt: skip
        yield Picture(name=f"magnitude-{what}", alternative=f"Magnitude pruning: {what} over zeros", figure=figure)


def distillation(found: Sequence[DistillationGain]) -> Iterator[Picture]:
    """Gain of distillation over its control: of the measured weights, and over seeds."""
    lines: list[tuple[str, float, float, float]] = []
    for gain in found:
        lines.append(
            (f"{gain.model}, these weights", gain.difference.points, gain.difference.low, gain.difference.high)
        )
        if gain.seeds is not None:
            lines.append((f"{gain.model}, over seeds", gain.seeds.points, gain.seeds.low, gain.seeds.high))
    if not lines:
        return
    figure = _figure(140 + 30 * len(lines), xaxis={"title": "gain of distillation (points), with 95 % interval"})
    figure.add_scatter(
        x=[points for _, points, _, _ in lines], y=[html.escape(name) for name, *_ in lines], mode="markers",
        marker={"size": 10}, showlegend=False,
        error_x={
            "type": "data", "symmetric": False,
            "array": [high - points for _, points, _, high in lines],
            "arrayminus": [points - low for _, points, low, _ in lines],
        },
    )  # fmt: skip
    figure.add_vline(x=0, line={"width": 1, "color": "#888"})
    figure.update_yaxes(automargin=True)
    yield Picture(name="distillation", alternative="Gain of distillation over its control", figure=figure)


# --- the search -------------------------------------------------------------------------------------------------


def learning_curves(trials: pd.DataFrame, epochs: pd.DataFrame) -> Iterator[Picture]:
    """Validation accuracy over epochs of the best trials."""
    if epochs.empty or trials.empty:
        return
    finished = select(trials, trials["val_accuracy"].notna())
    best = finished.nlargest(MOST_CURVES, "val_accuracy")
    colours = _colours([_stage(row) for row in rows(best)])
    figure = _figure(420, xaxis={"title": "epoch"})
    figure.update_yaxes(title="validation accuracy (%)")
    shown = select(epochs, epochs["trial_id"].isin(best["trial_id"]))
    curves = {str(name): curve for name, curve in shown.groupby("trial_id")}
    named: set[str] = set()
    for row in rows(best):
        if row["trial_id"] not in curves:
            continue
        curve, stage = curves[row["trial_id"]], _stage(row)
        figure.add_scatter(
            x=curve["epoch"], y=100 * curve["val_accuracy"], mode="lines+markers", opacity=0.75,
            line={"color": colours[stage], "width": 1.5}, marker={"size": 4}, legendgroup=stage,
            name=html.escape(stage), showlegend=stage not in named, text=html.escape(row["trial_id"]),
            hovertemplate="%{text}<br>epoch %{x}: %{y:.2f} %<extra></extra>",
        )  # fmt: skip
        named.add(stage)
    words = f"Learning curves of the {len(best)} best of {len(finished)} trials"
    yield Picture(name="curves", alternative=words, figure=figure)


def _stage(row: Row) -> str:
    return f"{row['stage']}: {row['arm']} {row['model']}" if row["stage"] == "final" else f"{row['arm']} {row['model']}"


def history(trials: pd.DataFrame) -> Iterator[Picture]:
    """Validation accuracy of each trial in the order in which they began."""
    seen = [row for row in rows(trials) if row["val_accuracy"] is not None]
    if not seen:
        return
    seen.sort(key=lambda row: row["started_at"] or 0.0)
    figure = _figure(380, xaxis={"title": "trial, in the order of its beginning"})
    figure.update_yaxes(title="validation accuracy (%)")
    for name, colour in _colours([_stage(row) for row in seen]).items():
        mine = [(n, row) for n, row in enumerate(seen, start=1) if _stage(row) == name]
        kind = go.Scattergl if len(seen) > 2000 else go.Scatter
        figure.add_trace(
            kind(
                x=[n for n, _ in mine], y=[100 * row["val_accuracy"] for _, row in mine], mode="markers",
                name=html.escape(name), text=[html.escape(f"{r['trial_id']} ({r['status']})") for _, r in mine],
                marker={"color": colour, "symbol": [_ended(row) for _, row in mine]},
                hovertemplate="%{text}: %{y:.2f} %<extra></extra>",
            )
        )  # fmt: skip
    yield Picture(name="history", alternative=f"Validation accuracy of {len(seen)} trials in order", figure=figure)


def _ended(row: Row) -> str:
    return "circle" if row["status"] == "ok" else "x-thin-open"


def parallel(trials: pd.DataFrame) -> Iterator[Picture]:
    """Parallel coordinates of the largest search that varied something."""
    searched = [r for r in rows(trials) if r["stage"] in ("plain", "distill") and r["val_accuracy"] is not None]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in searched:
        groups.setdefault((row["stage"], row["model"]), []).append(row)
    for (stage, model), group in groups.items():
        varied = [n for n in _SEARCHED if all(r[n] is not None for r in group) and len({r[n] for r in group}) > 1]
        if len(group) < 3 or not varied:
            continue
        accuracy = [100 * row["val_accuracy"] for row in group]
        figure = _figure(360)
        figure.add_trace(
            go.Parcoords(
                line={"color": accuracy, "colorscale": "Cividis"},
                dimensions=[
                    *(_dimension(name, group) for name in varied),
                    {"label": "validation %", "values": accuracy},
                ],
            )
        )
        words = f"Parameters and validation accuracy of {len(group)} {stage} trials of {model}"
        yield Picture(name=f"parallel-{stage}-{model}", alternative=words, figure=figure)


def _dimension(name: str, group: list[Row]) -> dict[str, Any]:
    values = [float(row[name]) for row in group]
    if not _SEARCHED[name]:
        return {"label": name, "values": values}
    ticks = np.linspace(math.log10(min(values)), math.log10(max(values)), 5)
    return {
        "label": name,
        "values": [math.log10(value) for value in values],
        "tickvals": ticks.tolist(),
        "ticktext": [f"{10**tick:.2g}" for tick in ticks],
    }


def importance(frame: pd.DataFrame) -> Iterator[Picture]:
    """Share of the variance that each parameter explains."""
    found = rows(frame)
    if not found:
        return
    figure = _figure(120 + 22 * len(found), xaxis={"title": "share of the variance of validation accuracy (%)"})
    for name, colour in _colours([_series(row) for row in found]).items():
        mine = [row for row in found if _series(row) == name]
        figure.add_bar(
            x=[100 * row["importance"] for row in mine],
            y=[html.escape(f"{row['parameter']}, {name}") for row in mine],
            orientation="h", name=html.escape(name), marker={"color": colour},
        )  # fmt: skip
    figure.update_yaxes(automargin=True)
    yield Picture(name="importance", alternative="Importance of the parameters", figure=figure)


# --- latencies --------------------------------------------------------------------------------------------------


def distributions(latency: pd.DataFrame) -> Iterator[Picture]:
    """Distributions of the samples of the fastest rows."""
    measured = [r for r in rows(latency) if r["stage"] == "grid" and r["samples_ms"] is not None and r["p50_ms"]]
    fastest = sorted(measured, key=lambda row: row["p50_ms"])[:MOST_DISTRIBUTIONS]
    if not fastest:
        return
    figure = _figure(
        140 + 30 * len(fastest), showlegend=False, xaxis={"type": "log", "title": "latency of a call (ms)"}
    )
    colours = _colours([_series(row) for row in fastest])
    for row in fastest:
        samples = np.concatenate([np.asarray(repeat, dtype=float) for repeat in row["samples_ms"]])
        figure.add_violin(
            x=samples[:: max(1, len(samples) // MOST_SAMPLES)], name=html.escape(label(row)), orientation="h",
            side="positive", width=1.6, points=False, line={"width": 1, "color": colours[_series(row)]},
            meanline={"visible": True}, hoverinfo="name+x", spanmode="hard",
        )  # fmt: skip
    figure.update_yaxes(automargin=True, autorange="reversed")
    words = f"Distributions of the latency samples of the {len(fastest)} fastest rows"
    yield Picture(name="distributions", alternative=words, figure=figure)
