"""The report of a run: everything is computed once, then written as Parquet, CSV, pictures, Markdown and HTML.
Command: `python -m analysis report RUN`.
"""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.choose import Choice, choose
from analysis.decide import Decision, decide_steps
from analysis.effects import Effect, factor_effects
from analysis.field import Field, field_of
from analysis.frames import Run, load_run, rows, variant_of
from analysis.goals import judge
from analysis.page import page
from analysis.plots import Picture
from analysis.rivals import Rivals, rivals_of
from analysis.sections import (
    answer,
    budget,
    comparison,
    confirmation,
    distillation,
    effects,
    front,
    front_file,
    front_page,
    goals,
    grid,
    importance,
    loading,
    machine,
    magnitude,
    optimizations,
    pruned,
    quality,
    race,
    serving,
    take,
    trials,
    warnings,
    worked,
)
from analysis.sections.distillation import DistillationGain
from analysis.sections.front import Volume
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
    """See `confirmation.confirm_table`; empty for a run of today's protocol."""
    field: Field
    """Who was to race, by the screen."""


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
    is_confirmed: bool | None
    """Whether new processes repeat the candidate's race; None where none were measured."""
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
        front=front.front_table(rivals, limit, choice),
        volume=front.volume(rivals, limit),
        comparison=comparison.comparison_table(rivals, run.config["teacher"], students, limit, choice),
        gains=distillation.distillation_gains(latency, run.trials, students, images),
        confirmed=confirmation.confirm_table(latency if rivals.race.is_older else latency.iloc[:0]),
        field=field_of(rivals, limit, run.latency_budget_ms, run.most_contenders),
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
    curves = magnitude.zeroed_curves(findings.run.latency)
    pictures: dict[str, Callable[[str], object] | None] = {
        "front.png": None if findings.front.empty else lambda path: _plot(findings, path, "png"),
        "front.svg": None if findings.front.empty else lambda path: _plot(findings, path, "svg"),
        "magnitude.png": (lambda path: magnitude.plot_magnitude(curves, path)) if curves else None,
    }
    for picture, draw_it in pictures.items():
        if draw_it is None:
            (folder / picture).unlink(missing_ok=True)
        else:
            replace_file(folder / picture, draw_it)
    texts = sections_of(findings)
    for name, text in (("report.md", markdown_report(findings, texts)), ("report.html", html_report(findings, texts))):
        replace_file(folder / name, lambda path, text=text: Path(path).write_text(text, encoding="utf-8"))
    return Report(
        candidate=_candidate(findings),
        text=findings.choice.text,
        is_confirmed=_is_confirmed(findings),
        path=folder / "report.html",
    )


def _is_confirmed(findings: Findings) -> bool | None:
    chosen = _candidate(findings)
    found = None if chosen is None else findings.rivals.race.confirmation((chosen.trial_id, chosen.variant))
    return None if found is None else found.agrees


def _plot(findings: Findings, path: str, kind: str) -> None:
    study = findings.run.study
    title = f"{study['data']['label']}, batch 1 on {study['environment']['device_name']}"
    front_file.plot_front(findings.front, findings.run.min_accuracy, title, path, kind)


def _candidate(findings: Findings) -> Candidate | None:
    if findings.choice.index is None:
        return None
    row = findings.run.latency.loc[findings.choice.index]
    return Candidate(trial_id=str(row["trial_id"]), variant=str(row["variant"]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A topic of the report: its Markdown, and its figures on the page."""

    text: Callable[[Findings], str]
    """Begins with the heading; empty where there is nothing to say."""
    figures: Callable[[Findings], Iterable[Picture]] = lambda _: ()


SECTIONS: dict[str, Section] = {
    "warnings": Section(text=lambda f: warnings.text(f.run, f.rivals, f.choice, f.confirmed, f.card)),
    "take": Section(text=lambda f: take.text(f.card)),
    "budget": Section(text=lambda f: budget.text(f.run)),
    "comparison": Section(text=lambda f: comparison.text(f.comparison)),
    "quality": Section(text=lambda f: quality.text(f.run, f.choice)),
    "optimizations": Section(
        text=lambda f: optimizations.text(f.decisions), figures=lambda f: optimizations.figures(f.decisions)
    ),
    "goals": Section(text=lambda f: goals.text(judge(f.run.latency, f.run.test_images))),
    "effects": Section(text=lambda f: effects.text(f.effects), figures=lambda f: effects.figures(f.effects)),
    "magnitude": Section(
        text=lambda f: magnitude.text(f.run.latency), figures=lambda f: magnitude.figures(f.run.latency)
    ),
    "pruned": Section(text=lambda f: pruned.text(pruned.pruned_rows(f.run.trials, f.front), f.run.trials)),
    "worked": Section(text=lambda f: worked.text(f.run, f.decisions)),
    "distillation": Section(
        text=lambda f: distillation.text(f.run, f.gains), figures=lambda f: distillation.figures(f.gains)
    ),
    "serving": Section(text=lambda f: serving.text(f.run)),
    "race": Section(text=lambda f: race.text(f.rivals, f.run, f.field)),
    "confirmation": Section(
        text=lambda f: confirmation.text(f.rivals, f.choice, f.confirmed),
        figures=lambda f: confirmation.figures(f.rivals),
    ),
    "front": Section(text=lambda f: front.text(f.front, f.volume)),
    "grid": Section(text=lambda f: grid.text(f.run.latency), figures=lambda f: grid.figures(f.run.latency)),
    "trials": Section(
        text=lambda f: trials.text(f.run.trials), figures=lambda f: trials.figures(f.run.trials, f.run.epochs)
    ),
    "importance": Section(
        text=lambda f: importance.text(f.run.importance), figures=lambda f: importance.figures(f.run.importance)
    ),
    "machine": Section(text=lambda f: machine.text(f.run)),
    "loading": Section(text=lambda _: loading.TEXT),
}
"""Name -> what follows the answer, in this order. A new topic is a file in `analysis/sections/` and a line here."""


def sections_of(findings: Findings) -> dict[str, str]:
    """Name -> Markdown of each section after the answer; empty where there is nothing to say."""
    return {name: section.text(findings) for name, section in SECTIONS.items()}


def markdown_report(findings: Findings, texts: Mapping[str, str]) -> str:
    """The text of `report.md`, the answer first."""
    parts = [answer.text(findings.run, findings.choice, findings.front), *texts.values()]
    return "\n\n".join(part for part in parts if part) + "\n"


def html_report(findings: Findings, texts: Mapping[str, str]) -> str:
    """The page of `report.html`: the same text, with figures that can be explored."""
    run = findings.run
    first = front_page.figures(findings.front, run.min_accuracy, run.test_images)
    pictures = {name: list(section.figures(findings)) for name, section in SECTIONS.items()}
    headline = answer.headline(findings.rivals, run, findings.choice, findings.card)
    return page(headline, texts, {"answer": list(first), **pictures})
