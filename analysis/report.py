"""The report of a run: everything is computed once, then written as Parquet, CSV, pictures, Markdown and HTML.
Command: `python -m analysis report RUN`.
"""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import figures, gains, sections
from analysis.choose import Choice, choose
from analysis.decide import Decision, decide_steps
from analysis.effects import Effect, factor_effects
from analysis.frames import Run, label, load_run, rows, variant_of
from analysis.goals import judge
from analysis.justify import between
from analysis.page import Fact, Headline, page
from analysis.plots import plot_front, plot_magnitude
from analysis.rivals import Rivals, rivals_of
from analysis.tables import (
    DistillationGain,
    Volume,
    comparison_table,
    confirm_table,
    distillation_gains,
    front_table,
    pruned_rows,
    volume,
    zeroed_curves,
)
from cifar_tune.store import replace_file


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """All that the analysis says about a run."""

    run: Run
    rivals: Rivals
    choice: Choice
    card: dict[str, Any] | None
    """The candidate's own card; None where the folder holds no candidate, or another."""
    decisions: list[Decision]
    effects: list[Effect]
    front: pd.DataFrame
    volume: Volume | None
    comparison: pd.DataFrame
    gains: list[DistillationGain]
    confirmed: pd.DataFrame


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """Which measured row was chosen."""

    trial_id: str
    variant: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What `write_report` hands back."""

    candidate: Candidate | None
    """None where no variant holds the constraint."""
    text: str
    """The answer in sentences: the justification, or why there is no candidate."""
    path: Path
    """Path of `report.html`."""


def analyse(run: Run) -> Findings:
    """Apply the rules to a run. Deterministic: the bootstrap has a fixed seed."""
    latency, limit, images = run.latency, run.min_accuracy, run.test_images
    students = tuple(run.config["students"])
    rivals = rivals_of(latency, images)
    choice = choose(rivals, limit, run.latency_budget_ms)
    return Findings(
        run=run,
        rivals=rivals,
        choice=choice,
        card=_card_of(run, choice),
        decisions=decide_steps(rivals.grid, images),
        effects=factor_effects(rivals.grid),
        front=front_table(rivals, limit, choice),
        volume=volume(rivals, limit),
        comparison=comparison_table(latency, run.config["teacher"], students, limit, choice),
        gains=distillation_gains(latency, run.trials, students, images),
        confirmed=confirm_table(latency),
    )


def _card_of(run: Run, choice: Choice) -> dict[str, Any] | None:
    if run.card is None or choice.index is None:
        return None
    row = rows(run.latency.loc[[choice.index]])[0]
    held = run.card.get("trial_id"), run.card.get("variant")
    return run.card if held == (row["trial_id"], dataclasses.asdict(variant_of(row))) else None


REPORT_FILES = (
    "front.parquet", "comparison.csv", "front.png", "front.svg", "magnitude.png", "report.md", "report.html",
)  # fmt: skip
"""What `write_report` writes: the front's pictures where something competes, `magnitude.png` where weights are zero."""


def write_report(run: str | Path) -> Report:
    """Write REPORT_FILES into the run's folder.

    Without competing rows there is no picture. Raises ValueError where the run is unknown or incomplete.
    """
    findings = analyse(load_run(run))
    folder = findings.run.path
    replace_file(folder / "front.parquet", findings.front.to_parquet)
    replace_file(folder / "comparison.csv", lambda path: findings.comparison.to_csv(path, index=False))
    curves = zeroed_curves(findings.run.latency)
    pictures: dict[str, Callable[[str], object] | None] = {
        "front.png": None if findings.front.empty else lambda path: _plot(findings, path, "png"),
        "front.svg": None if findings.front.empty else lambda path: _plot(findings, path, "svg"),
        "magnitude.png": (lambda path: plot_magnitude(curves, path)) if curves else None,
    }
    for picture, draw_it in pictures.items():
        if draw_it is None:
            (folder / picture).unlink(missing_ok=True)
        else:
            replace_file(folder / picture, draw_it)
    texts = sections_of(findings)
    for name, text in (("report.md", markdown_report(findings, texts)), ("report.html", html_report(findings, texts))):
        replace_file(folder / name, lambda path, text=text: Path(path).write_text(text, encoding="utf-8"))
    return Report(candidate=_candidate(findings), text=findings.choice.text, path=folder / "report.html")


_MAGNITUDE_PICTURE = "![Accuracy, deflated size and latency over the share of zeros](magnitude.png)"


def _plot(findings: Findings, path: str, kind: str) -> None:
    study = findings.run.study
    title = f"{study['data']['label']}, batch 1 on {study['environment']['device_name']}"
    plot_front(findings.front, findings.run.min_accuracy, title, path, kind)


def _candidate(findings: Findings) -> Candidate | None:
    if findings.choice.index is None:
        return None
    row = findings.run.latency.loc[findings.choice.index]
    return Candidate(trial_id=str(row["trial_id"]), variant=str(row["variant"]))


def sections_of(findings: Findings) -> dict[str, str]:
    """Name -> Markdown of each section after the answer; empty where there is nothing to say."""
    run = findings.run
    return {
        "warnings": sections.warnings(run, findings.confirmed, findings.card),
        "take": sections.take(findings.card),
        "budget": sections.budget(run),
        "comparison": sections.comparison(findings.comparison),
        "quality": sections.quality(run, findings.choice),
        "optimizations": gains.optimizations(findings.decisions),
        "goals": gains.goals(judge(run.latency, run.test_images)),
        "effects": gains.effects(findings.effects),
        "magnitude": gains.magnitude(findings.run.latency),
        "pruned": gains.pruned(pruned_rows(run.trials, findings.front), run.trials),
        "worked": gains.worked(run, findings.decisions),
        "distillation": gains.distillation(run, findings.gains),
        "serving": sections.serving(run),
        "confirmation": sections.confirmation(findings.confirmed),
        "front": sections.front(findings.front, findings.volume),
        "grid": sections.grid(run.latency),
        "trials": sections.trials(run.trials),
        "importance": sections.importance(run.importance),
        "machine": sections.machine(run),
        "loading": sections.LOADING,
    }


def markdown_report(findings: Findings, texts: Mapping[str, str]) -> str:
    """The text of `report.md`, the answer first."""
    picture = "" if findings.front.empty else "![Test accuracy over latency, with the Pareto front](front.png)"
    texts = {**texts, "magnitude": texts["magnitude"] and f"{texts['magnitude']}\n\n{_MAGNITUDE_PICTURE}"}
    parts = [sections.answer(findings.run, findings.choice), picture, *texts.values()]
    return "\n\n".join(part for part in parts if part) + "\n"


def html_report(findings: Findings, texts: Mapping[str, str]) -> str:
    """The page of `report.html`: the same text, with figures that can be explored."""
    run = findings.run
    pictures = {
        "answer": figures.front(findings.front, run.min_accuracy, run.test_images),
        "optimizations": figures.gains(findings.decisions),
        "effects": figures.effects(findings.effects),
        "magnitude": figures.magnitude(findings.run.latency),
        "distillation": figures.distillation(findings.gains),
        "grid": figures.distributions(run.latency),
        "trials": itertools.chain(
            figures.learning_curves(run.trials, run.epochs), figures.history(run.trials), figures.parallel(run.trials)
        ),
        "importance": figures.importance(run.importance),
    }
    return page(_headline(findings), texts, {name: list(found) for name, found in pictures.items()})


def _headline(findings: Findings) -> Headline:
    run, index = findings.run, findings.choice.index
    chosen = None if index is None else rows(findings.front.loc[[index]])[0]
    facts: list[Fact] = []
    if chosen is not None:
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
    if findings.volume is not None and chosen is not None:
        ratio = findings.volume.baseline_ms / chosen["paired_ms"]
        facts.append(Fact(value=f"{ratio:.1f} x", name=f"faster than {findings.volume.baseline}"))
    return Headline(
        title=str(run.study["run"]),
        question=sections.question(run),
        candidate=None if chosen is None else label(chosen),
        facts=facts,
        text=findings.choice.text,
        take=None if findings.card is None else sections.verification(findings.card),
    )
