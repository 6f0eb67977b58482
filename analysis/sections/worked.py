"""What worked and what did not (R15): the optimisations by verdict, and the fastest variant of each model."""

from __future__ import annotations

from analysis.decide import Decision, Verdict, grid_rows, is_measured
from analysis.frames import Run

MOST_NAMED = 4
"""Optimisations that are named where more have the same cause: the table above has them all."""
_HEADINGS: dict[Verdict, str] = {"keep": "Worked", "drop": "Did not work", "refine": "Open"}


def text(run: Run, decisions: list[Decision]) -> str:
    """A list for each verdict, with the cause of each; empty where nothing was measured."""
    lines: list[str] = []
    for verdict, heading in _HEADINGS.items():
        found = _by_cause([d for d in decisions if d.verdict == verdict])
        if found:
            lines += [f"- {heading}:", *(f"  - {_few(names)}: {cause}" for cause, names in found.items())]
    lines += [f"- {line}" for line in _fastest(run)]
    return "\n".join(["## What worked and what did not", "", *lines]) if lines else ""


def _fastest(run: Run) -> list[str]:
    lines: list[str] = []
    grid = grid_rows(run.latency)
    for model, arm in dict.fromkeys((r["model"], r["arm"]) for r in grid):
        measured = [r for r in grid if (r["model"], r["arm"]) == (model, arm) and is_measured(r) and r["speedup"]]
        if measured:
            best = max(measured, key=lambda r: r["speedup"])
            times = f"{best['speedup']:.2f} times as fast as its FP32 eager"
            lines.append(f"Fastest of {model} ({arm}): {best['variant']}, {times}.")
    return lines


def _by_cause(decisions: list[Decision]) -> dict[str, list[str]]:
    """Cause -> what it decided; what shares one is told together."""
    causes: dict[str, list[str]] = {}
    for d in decisions:
        cause = " ".join(d.cause.split())
        causes.setdefault(cause, []).append(f"{d.optimization} on {d.model} ({d.arm})")
    return causes


def _few(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:MOST_NAMED])} and {more} more"
