"""What each optimisation gains by itself, beside what was expected, and the verdict; decided in `analysis.decide`."""

# pandas' and Plotly's own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Sequence

from analysis.decide import Decision
from analysis.markdown import MISSING, table
from analysis.plots import COLOURS, Picture, chart

_HEADER = ("Model", "Arm", "Optimization", "Gain", "Expected", "Accuracy drop (points, 95 %)", "Verdict", "Why")
_NOTE = """All figures here are of the screen. Gain is the reduction of latency in paired rounds.

A name such as `compile` is compared with FP32 eager. A whole variant's name is compared with the same
variant without its last part.

The verdict is `keep`, `drop` or `refine`. `refine` means that the measurement decides nothing yet. Expected is what the
authors of the study expected."""


def text(decisions: list[Decision]) -> str:
    """Each optimisation by itself: measured beside expected, and the verdict (R10, R11, R13); empty without one."""
    lines = [
        (d.model, d.arm, d.optimization, _signed(d.gain), _expected(d.expected), _drop(d), d.verdict, d.reason)
        for d in decisions
    ]
    return f"## Optimizations, one at a time\n\n{table(_HEADER, lines)}\n\n{_NOTE}" if lines else ""


def _signed(gain: float | None) -> str:
    return MISSING if gain is None else f"{100 * gain:+.1f} %"


def _expected(bounds: tuple[float, float] | None) -> str:
    return MISSING if bounds is None else f"{100 * bounds[0]:.0f} to {100 * bounds[1]:.0f} %"


def _drop(decision: Decision) -> str:
    if decision.accuracy_drop_points is None or decision.interval is None:
        return MISSING
    low, high = decision.interval
    return f"{decision.accuracy_drop_points:+.2f} ({low:+.2f} to {high:+.2f})"


def figures(decisions: Sequence[Decision]) -> Iterator[Picture]:
    """Latency reduction of each optimisation by itself, coloured by verdict."""
    shown = [d for d in decisions if d.gain is not None]
    if not shown:
        return
    figure = chart(120 + 24 * len(shown), xaxis={"title": "reduction of latency (%)"})
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
    words = f"What each optimisation gains by itself: {verdicts}. The table below has each with its reason."
    yield Picture(name="gains", alternative=words, figure=figure)
