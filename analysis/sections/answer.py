"""The answer: what the study asks, the candidate and why, and the first screen of the page."""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.choose import Choice
from analysis.frames import Row, Run, label, rows
from analysis.justify import between, percent
from analysis.page import Fact, Headline
from analysis.sections.front import Volume
from analysis.sections.take import verification

PICTURE = "![Test accuracy over latency, with the Pareto front](front.png)"


def question(run: Run) -> str:
    """What the study asks, and where."""
    asked = f"Lowest batch-1 latency with a test accuracy of at least {percent(run.min_accuracy)}"
    if not run.labelled:
        asked = "Batch-1 latency, without accuracy"
    return f"{asked}, on {run.study['data']['label']}, {run.study['environment']['device_name']}."


def text(run: Run, choice: Choice, front: pd.DataFrame) -> str:
    """Title, question, answer and the picture of the front."""
    title = f"# {run.study['run']}\n\n{question(run)}\n\n## Answer\n\n{choice.text}"
    return title if front.empty else f"{title}\n\n{PICTURE}"


def headline(
    run: Run, choice: Choice, front: pd.DataFrame, volume: Volume | None, card: dict[str, Any] | None
) -> Headline:
    """The first screen of the page."""
    chosen = None if choice.index is None else rows(front.loc[[choice.index]])[0]
    return Headline(
        title=str(run.study["run"]),
        question=question(run),
        candidate=None if chosen is None else label(chosen),
        facts=[] if chosen is None else _facts(chosen, volume),
        text=choice.text,
        take=None if card is None else verification(card),
    )


def _facts(chosen: Row, volume: Volume | None) -> Sequence[Fact]:
    paired, low, high = (chosen[name] for name in ("paired_ms", "paired_low_ms", "paired_high_ms"))
    facts = [
        Fact(
            value=f"{chosen['p50_ms']:.3g} ms",
            name=f"median latency at batch 1; without the machine's drift {paired:.3g}{between(low, high, '.3g')}",
        ),
        Fact(
            value=f"{100 * chosen['test_accuracy']:.2f} %",
            name=f"test accuracy (at least {100 * chosen['accuracy_low']:.2f} %)",
        ),
    ]
    if volume is not None:
        facts.append(Fact(value=f"{volume.baseline_ms / paired:.1f} x", name=f"faster than {volume.baseline}"))
    return facts
