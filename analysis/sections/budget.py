"""The latency budget: which models it let through, before any training."""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any

from analysis.frames import Run, rows, select
from analysis.markdown import fixed, table


def text(run: Run) -> str:
    """The fastest variant of each model beside the budget; empty without a budget."""
    limit = run.config.get("latency_budget_ms")
    measured = [r for r in rows(select(run.latency, run.latency["stage"] == "budget")) if r["p50_ms"] is not None]
    if limit is None or not measured:
        return ""
    lines: list[tuple[Any, ...]] = []
    for model in dict.fromkeys(row["model"] for row in measured):
        best = min((row for row in measured if row["model"] == model), key=lambda row: row["p50_ms"])
        low = best["p50_low_ms"]
        kept = "searched" if low is None or low <= limit else "dropped before the search"
        lines.append((model, best["variant"], fixed(best["p50_ms"], 3), kept))
    header = ("Model", "Fastest variant", "p50 ms", "Verdict")
    return (
        f"## Latency budget of {limit:g} ms\n\n{table(header, lines)}\n\n"
        "The models had random weights when they were measured."
    )
