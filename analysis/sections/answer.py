"""The answer: what the study asks, the candidate and why, and the first screen of the page."""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from analysis.choose import Choice
from analysis.frames import Row, Run, label
from analysis.justify import between, percent
from analysis.page import Fact, Headline
from analysis.race import key_of
from analysis.rivals import Rivals
from analysis.sections import distillation
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
    weaker = distillation.weaker_teacher(run)
    answered = " ".join(said for said in (choice.text, weaker) if said)
    title = f"# {run.study['run']}\n\n{question(run)}\n\n## Answer\n\n{answered}"
    return title if front.empty else f"{title}\n\n{PICTURE}"


def headline(rivals: Rivals, run: Run, choice: Choice, card: dict[str, Any] | None) -> Headline:
    """The first screen of the page."""
    chosen = next((row for row in rivals.rows if row["index"] == choice.index), None)
    return Headline(
        title=str(run.study["run"]),
        question=question(run),
        candidate=None if chosen is None else _named(chosen, rivals),
        facts=[] if chosen is None else _facts(chosen, rivals),
        text=choice.text,
        take=None if card is None else verification(card),
    )


def _named(chosen: Row, rivals: Rivals) -> str:
    confirmation = rivals.race.confirmation(key_of(chosen))
    return label(chosen) if confirmation is None or confirmation.agrees else f"{label(chosen)}: not confirmed"


def _facts(chosen: Row, rivals: Rivals) -> Sequence[Fact]:
    figure, baseline = rivals.figure(chosen), rivals.baseline
    kind = {"screen": "the screen, drift removed", "race": "the race", "confirm": "new processes after the choice"}
    floor = "" if figure.floor_ms is None else f"; best block {figure.floor_ms:.3g}"
    facts = [
        Fact(
            value=f"{figure.ms:.3g} ms",
            name=f"latency at batch 1{between(figure.low_ms, figure.high_ms, '.3g')}{floor}; {kind[figure.kind]}",
        ),
        Fact(
            value=f"{100 * chosen['test_accuracy']:.2f} %",
            name=f"test accuracy (at least {100 * rivals.accuracy_low(chosen):.2f} %)",
        ),
    ]
    if baseline is not None and figure.ratio is not None and baseline["index"] != chosen["index"]:
        low, high = (None if end is None else 1 / end for end in (figure.ratio_high, figure.ratio_low))
        times = f"faster than {label(baseline)}{between(low, high, '.1f')}"
        facts.append(Fact(value=f"{1 / figure.ratio:.1f} x", name=times))
    return facts
