"""What precision, compilation and layout do over the whole grid; fitted in `analysis.effects`."""

# pandas' and Plotly's own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from analysis.decide import MIN_LAYOUT_GAIN
from analysis.effects import Effect
from analysis.markdown import table
from analysis.plots import Picture, chart, colours


def text(found: list[Effect]) -> str:
    """A row for each factor and interaction of factors; empty where no whole grid was measured."""
    lines = [
        (e.model, e.arm, e.term, f"{100 * e.change:+.1f} ({100 * e.low:+.1f} to {100 * e.high:+.1f})", _effect_text(e))
        for e in found
    ]
    header = ("Model", "Arm", "Factor", "Change of latency % (95 %)", "Meaning")
    note = (
        "A linear model of log-latency is fitted to the eight variants of the grid. Each repeat, paired with FP32 "
        "eager, is one observation. The effect of a factor is its average over the settings of the other factors. An "
        "interaction (x) is what factors do together beyond their own effects. The intervals leave out what differs "
        "from build to build."
    )
    return f"## Factor effects\n\n{table(header, lines)}\n\n{note}" if lines else ""


def _effect_text(effect: Effect) -> str:
    """What an effect means; R13 asks channels_last for more than 5 %, R10 asks fp16 for its accuracy."""
    if not effect.clear:
        return "the interval includes zero"
    if effect.term == "channels_last":
        enough = effect.high < -MIN_LAYOUT_GAIN
        return "on average more than 5 % lower" if enough else "on average not clearly 5 % lower"
    if effect.term == "fp16":
        return "slower: nothing to gain" if effect.low > 0 else "faster: kept where accuracy holds"
    return "lower" if effect.high < 0 else "higher"


def figures(found: Sequence[Effect]) -> Iterator[Picture]:
    """Factor effects with their intervals."""
    if not found:
        return
    figure = chart(120 + 20 * len(found), xaxis={"title": "change of latency (%), with 95 % interval"})
    for name, colour in colours([f"{e.model} ({e.arm})" for e in found]).items():
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
