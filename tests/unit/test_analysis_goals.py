"""What was hoped of dynamic INT8 and of ONNX Runtime (R23, R24), each bound at its boundary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import analysis_data as data
import pytest

from analysis.goals import Judged, judge
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


def judged(row: LatencyRecord) -> Judged:
    (found,) = judge(data.frame(data.latency(right=980), row), data.IMAGES)
    return found


def test_what_has_no_accuracy_is_open() -> None:
    row = data.latency(ONNX, p50=1.0, test_accuracy=None, correct=None)
    assert (judged(row).missed, judged(row).open) == ((), ("points lost below 0.5",))


@pytest.mark.parametrize("changes", [{"contended": True}, {"speedup_low": 1.4, "speedup_high": 2.1}])
def test_a_speedup_that_is_not_sure_is_open(changes: dict[str, Any]) -> None:
    row = data.latency(ONNX, p50=1.0, right=980, **changes)
    assert (judged(row).missed, judged(row).open) == ((), ("speedup 1.5 or more",))


def test_r24_one_thread_has_the_same_goals() -> None:
    row = data.latency(Variant(runtime="onnxruntime", single_thread=True), p50=1.9, right=980)
    assert missed(row) == ("speedup 1.5 or more",)


def test_r30_zeros_have_none() -> None:
    assert judge(data.frame(data.latency(Variant(runtime="onnxruntime", zeroed=0.5))), data.IMAGES) == []


def test_r23_the_report_says_what_was_missed(tmp_path: Path) -> None:
    row = data.latency(DYNAMIC, p50=1.0, right=880, artifact_mb=3.0, arm="plain")
    run = data.write_run(tmp_path / "hoped", [*data.full_latency(), row])
    assert "| missed: accuracy above 95 %" in data.markdown(run)
