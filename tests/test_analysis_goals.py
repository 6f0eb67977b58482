"""What was hoped of dynamic INT8 and of ONNX Runtime (R23, R24), each bound at its boundary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import analysis_data as data
import pytest

from analysis.goals import judge
from analysis.report import write_report
from cifar_tune.config import Variant
from cifar_tune.records import LatencyRecord

ONNX = Variant(runtime="onnxruntime")
DYNAMIC = Variant(runtime="onnxruntime", precision="int8_dynamic")


def missed(row: LatencyRecord) -> tuple[str, ...]:
    (judged,) = judge(data.frame(data.latency(right=980), row), data.IMAGES)
    return judged.missed


def test_r23_a_row_that_keeps_all_bounds_meets_the_goals() -> None:
    assert missed(data.latency(DYNAMIC, p50=1.0, right=975, artifact_mb=3.0)) == ()


@pytest.mark.parametrize(
    ("bound", "changes"),
    [
        ("speedup 1.5 or more", {"p50": 1.5}),
        ("points lost below 1", {"right": 970}),
        ("MB below 30", {"artifact_mb": 30.0}),
    ],
)
def test_r23_each_bound_is_named_where_it_is_missed(bound: str, changes: dict[str, Any]) -> None:
    kept: dict[str, Any] = {"p50": 1.0, "right": 975, "artifact_mb": 3.0}
    assert missed(data.latency(DYNAMIC, **(kept | changes))) == (bound,)


def test_r23_the_business_goal_is_an_accuracy() -> None:
    row = data.latency(DYNAMIC, p50=1.0, right=950, artifact_mb=3.0)
    (judged,) = judge(data.frame(data.latency(right=950), row), data.IMAGES)
    assert judged.missed == ("accuracy above 95 %",)


def test_r24_onnxruntime_must_not_lose_half_a_point() -> None:
    assert missed(data.latency(ONNX, p50=1.0, right=975)) == ("points lost below 0.5",)


def test_r23_the_report_says_what_was_missed(tmp_path: Path) -> None:
    row = data.latency(DYNAMIC, p50=1.0, right=880, artifact_mb=3.0, arm="plain")
    run = data.write_run(tmp_path / "hoped", [*data.full_latency(), row])
    text = write_report(run).path.with_suffix(".md").read_text(encoding="utf-8")
    assert "| missed: accuracy above 95 % |" in text
