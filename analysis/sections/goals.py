"""What dynamic INT8 and ONNX Runtime should reach, beside what they reach (R23, R24); judged in `analysis.goals`."""

from __future__ import annotations

from analysis.goals import Judged
from analysis.justify import speedup_cell
from analysis.markdown import MISSING, fixed, table

_HEADER = ("Model", "Arm", "Variant", "MB", "Speedup", "Points lost", "Accuracy %", "Goals", "Note")
_NOTE = """Two kinds of variant have goals:

- Dynamic INT8 should be 1.5 to 3 times as fast, take less than 30 MB and have an accuracy above 95 %. It should lose
  less than 1 point of accuracy.
- ONNX Runtime in FP32 should be 1.5 to 3 times as fast. It should lose less than 0.5 points of accuracy.

The speedup is over FP32 eager of the same weights, in the screen. On one machine the cost of an inference falls by the
same factor. What dynamic INT8 gains over ONNX Runtime in FP32 stands under Optimizations.

A goal is open where its figure is missing or the measurement was disturbed. A speedup is also open where its interval
includes the goal."""


def text(judged: list[Judged]) -> str:
    """A row for each variant that has goals; empty without one."""
    lines = [
        (
            *(j.row[key] for key in ("model", "arm", "variant")),
            fixed(j.row["artifact_mb"], 2),
            speedup_cell(j.row),
            MISSING if j.points is None else f"{j.points:+.2f}",
            fixed(j.row["test_accuracy"], 2, 100),
            _outcome(j),
            j.row["note"] or "",
        )
        for j in judged
    ]
    return f"## Goals\n\n{table(_HEADER, lines)}\n\n{_NOTE}" if lines else ""


def _outcome(judged: Judged) -> str:
    """Which goals a row missed, and of which nothing is known."""
    found = {"missed": judged.missed, "open": judged.open}
    return "; ".join(f"{name}: {', '.join(bounds)}" for name, bounds in found.items() if bounds) or "met"
