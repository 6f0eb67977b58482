"""The search: its trials, their learning curves and their parameters."""

# pandas' and Plotly's own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.frames import Row, rows, select
from analysis.markdown import MISSING, fixed, table
from analysis.plots import Picture, chart, colours
from cifar_tune.space import PARAMETERS

MOST_CURVES = 60
"""Learning curves in the picture: the best trials."""
_SEARCHED = {p.name: p.log for p in PARAMETERS if p.is_number}
"""Parameters of the search, and whether they are searched on a logarithmic scale."""


def text(frame: pd.DataFrame) -> str:
    """A row for each stage, arm and model: how many trials, and the best; empty without trials."""
    if frame.empty:
        return ""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows(frame):
        groups.setdefault((row["stage"], row["arm"], row["model"]), []).append(row)
    lines = [(*key, *_trial_summary(group)) for key, group in groups.items()]
    header = ("Stage", "Arm", "Model", "Trials", "Validation %", "Test %", "Hyperparameters of the best", "Checkpoint")
    return f"## Trials\n\n{table(header, lines)}\n\nOnly the finalists (stage `final`) read the test set."


def _trial_summary(group: list[Row]) -> tuple[Any, ...]:
    counts = ", ".join(f"{n} {status}" for status, n in Counter(row["status"] for row in group).items())
    finished = [row for row in group if row["val_accuracy"] is not None]
    if not finished:
        return (counts, MISSING, MISSING, MISSING, MISSING)
    best = max(finished, key=lambda row: row["val_accuracy"])
    names = ("optimizer", "lr", "schedule", "temperature", "alpha", "weight_decay", "batch_size", "seed")
    settings = [f"{name} {_setting(best[name])}" for name in names if best[name] is not None]
    settings.append(f"epochs {best['epochs_run']} of {best['epochs']}")
    accuracies = (fixed(best["val_accuracy"], 2, 100), fixed(best["test_accuracy"], 2, 100))
    return (counts, *accuracies, ", ".join(settings), best["checkpoint"])


def _setting(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def figures(trials: pd.DataFrame, epochs: pd.DataFrame) -> Iterator[Picture]:
    """Learning curves, the order of the trials and their parameters."""
    yield from learning_curves(trials, epochs)
    yield from history(trials)
    yield from parallel(trials)


def learning_curves(trials: pd.DataFrame, epochs: pd.DataFrame) -> Iterator[Picture]:
    """Validation accuracy over epochs of the best trials."""
    if epochs.empty or trials.empty:
        return
    finished = select(trials, trials["val_accuracy"].notna())
    best = finished.nlargest(MOST_CURVES, "val_accuracy")
    looks = colours([_stage(row) for row in rows(best)])
    figure = chart(420, xaxis={"title": "epoch"})
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
            line={"color": looks[stage], "width": 1.5}, marker={"size": 4}, legendgroup=stage,
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
    figure = chart(380, xaxis={"title": "trial, in order of start"})
    figure.update_yaxes(title="validation accuracy (%)")
    for name, colour in colours([_stage(row) for row in seen]).items():
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
        figure = chart(360)
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
