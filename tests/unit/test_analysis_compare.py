"""Two runs compared: what moved beyond noise, what did not, and the exit code that guards a CI."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import analysis_data as data
import pytest

from analysis.__main__ import main
from analysis.compare import moves_of
from analysis.frames import load_run
from cifar_tune.config import Variant
from cifar_tune.records import LatencyRecord

FP16 = Variant(precision="fp16")


def record(p50: float = 1.0, right: int = 900, **changes: object) -> LatencyRecord:
    """An FP16 row whose speedup over FP32 eager (2 ms) is known to 1 %."""
    row = data.latency(FP16, p50=p50, right=right)
    assert row.speedup is not None
    return dataclasses.replace(row, speedup_low=0.99 * row.speedup, speedup_high=1.01 * row.speedup, **changes)


def moved(tmp_path: Path, before: list[LatencyRecord], after: list[LatencyRecord], **options: bool) -> dict[str, str]:
    runs = [load_run(data.write_run(tmp_path / name, rows)) for name, rows in (("a", before), ("b", after))]
    return {m.name.rsplit(", ", 1)[1]: m.moved for m in moves_of(*runs, 0.05, absolute=options.get("absolute", False))}


@pytest.mark.parametrize(("p50", "expected"), [(1.0, "same"), (1.04, "same"), (1.1, "worse"), (0.9, "better")])
def test_a_row_moves_where_its_speed_does_beyond_noise_and_threshold(tmp_path: Path, p50: float, expected: str) -> None:
    assert moved(tmp_path, [record()], [record(p50)]) == {"torch-fp16": expected}


def test_a_machine_that_was_slower_is_no_regression(tmp_path: Path) -> None:
    slow = record(p50=2.0, speedup=2.0, reference_ms=[[4.0] * 4] * 3)
    assert moved(tmp_path, [record()], [slow]) == {"torch-fp16": "same"}


@pytest.mark.parametrize(("absolute", "expected"), [(False, "same"), (True, "worse")])
def test_fp32_eager_itself_counts_where_asked(tmp_path: Path, absolute: bool, expected: str) -> None:
    before, after = data.latency(p50=2.0), data.latency(p50=3.0, speedup=1.0)
    assert moved(tmp_path, [before], [after], absolute=absolute) == {"torch-fp32": expected}


@pytest.mark.parametrize(("right", "expected"), [(898, "same"), (880, "worse"), (930, "better")])
def test_accuracy_is_compared_in_pairs(tmp_path: Path, right: int, expected: str) -> None:
    assert moved(tmp_path, [record()], [record(right=right)]) == {"torch-fp16": expected}


def test_a_row_that_is_measured_no_more_is_a_regression(tmp_path: Path) -> None:
    assert moved(tmp_path, [record(), data.latency()], [data.latency()]) == {"torch-fp16": "gone", "torch-fp32": "same"}


@pytest.mark.parametrize(("p50", "code"), [(1.0, 0), (1.2, 1)])
def test_the_exit_code_guards_a_ci(tmp_path: Path, capsys: pytest.CaptureFixture[str], p50: float, code: int) -> None:
    paths = [data.write_run(tmp_path / n, [record(p)]) for n, p in (("a", 1.0), ("b", p50))]
    assert main(["compare", *map(str, paths)]) == code
    assert ("No regression." in capsys.readouterr().out) == (code == 0)


def test_settings_and_environment_that_differ_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [data.write_run(tmp_path / f"r{seed}", [record()], seed=seed) for seed in (0, 1)]
    main(["compare", *map(str, paths)])
    assert "- setting seed: 0, then 1" in capsys.readouterr().out


def test_an_unknown_run_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = data.write_run(tmp_path / "a", [record()])
    assert main(["compare", str(there), str(tmp_path / "nope")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("threshold", ["nan", "-0.1", "1"])
def test_a_threshold_that_would_pass_everything_is_refused(tmp_path: Path, threshold: str) -> None:
    run = data.write_run(tmp_path / "run", data.full_latency())
    assert main(["compare", str(run), str(run), f"--threshold={threshold}"]) == 2
