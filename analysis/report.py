"""The report of a run: everything is computed once, then written as Parquet, CSV, PNG and Markdown.
Command: `python -m analysis report RUN`.
"""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis import sections
from analysis.decide import Choice, Decision, choose, decide_steps
from analysis.effects import Effect, factor_effects
from analysis.frames import Run, load_run
from analysis.plots import plot_front
from analysis.tables import DistillationGain, comparison_table, confirm_table, distillation_gains, front_table
from cifar_tune.store import replace_file


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """All that the analysis says about a run."""

    run: Run
    choice: Choice
    decisions: list[Decision]
    effects: list[Effect]
    front: pd.DataFrame
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
    """Path of `report.md`."""


def analyse(run: Run) -> Findings:
    """Apply the rules to a run. Deterministic: the bootstrap has a fixed seed."""
    latency, limit, images = run.latency, run.min_accuracy, run.test_images
    students = tuple(run.config["students"])
    choice = choose(latency, limit, images, run.config.get("latency_budget_ms"))
    return Findings(
        run=run,
        choice=choice,
        decisions=decide_steps(latency, images),
        effects=factor_effects(latency),
        front=front_table(latency, limit, choice, images),
        comparison=comparison_table(latency, run.config["teacher"], students, limit, choice),
        gains=distillation_gains(latency, run.trials, students, images),
        confirmed=confirm_table(latency),
    )


REPORT_FILES = ("front.parquet", "comparison.csv", "front.png", "report.md")
"""What `write_report` writes, the picture only where something competes."""


def write_report(run: str | Path) -> Report:
    """Write `front.parquet`, `comparison.csv`, `front.png` and `report.md` into the run's folder.

    Without competing rows there is no picture. Raises ValueError where the run is unknown or incomplete.
    """
    findings = analyse(load_run(run))
    folder = findings.run.path
    replace_file(folder / "front.parquet", findings.front.to_parquet)
    replace_file(folder / "comparison.csv", lambda path: findings.comparison.to_csv(path, index=False))
    if findings.front.empty:
        (folder / "front.png").unlink(missing_ok=True)
    else:
        replace_file(folder / "front.png", lambda path: _plot(findings, path))
    text = markdown_report(findings)
    replace_file(folder / "report.md", lambda path: Path(path).write_text(text, encoding="utf-8"))
    return Report(candidate=_candidate(findings), text=findings.choice.text, path=folder / "report.md")


def _plot(findings: Findings, path: str) -> None:
    study = findings.run.study
    title = f"{study['data']['label']}, batch 1 on {study['environment']['device_name']}"
    plot_front(findings.front, findings.run.min_accuracy, title, path)


def _candidate(findings: Findings) -> Candidate | None:
    if findings.choice.index is None:
        return None
    row = findings.run.latency.loc[findings.choice.index]
    return Candidate(trial_id=str(row["trial_id"]), variant=str(row["variant"]))


def markdown_report(findings: Findings) -> str:
    """The text of `report.md`, the answer first."""
    run = findings.run
    parts = [
        sections.answer(run, findings.choice),
        "" if findings.front.empty else "![Test accuracy over latency, with the Pareto front](front.png)",
        sections.warnings(run, findings.confirmed),
        sections.budget(run),
        sections.comparison(findings.comparison),
        sections.optimizations(findings.decisions),
        sections.effects(findings.effects),
        sections.worked(run, findings.decisions),
        sections.distillation(run, findings.gains),
        sections.confirmation(findings.confirmed),
        sections.front(findings.front),
        sections.grid(run.latency),
        sections.trials(run.trials),
        sections.importance(run.importance),
        sections.machine(run),
        sections.LOADING,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
