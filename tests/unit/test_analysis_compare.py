"""Two runs compared: what moved beyond noise, what did not, and the exit code that guards a CI."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import analysis_data as data
import numpy as np
import pytest

from analysis.__main__ import main
from analysis.compare import holm, moves_of, speeds_of
from analysis.decide import grid_rows
from analysis.frames import Row, load_run, variant_of
from analysis.uncertain import row_level
from cifar_tune.between import level
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


def raced(times: float = 1.0, stage: str = "race", blocks: int = 5) -> list[LatencyRecord]:
    """Blocks of FP16 at so many times 0.5 of the baseline, and the baseline beside itself."""
    found: list[LatencyRecord] = []
    for block in range(1, blocks + 1):
        drift, own = 1 + 0.1 * block, 0.5 * times * (1 + 0.01 * (-1) ** block)
        for variant, ratio in ((Variant(), 1.0), (FP16, own)):
            row = data.latency(variant, samples_ms=[[drift * ratio] * 9], reference_ms=[[drift] * 9], ratio=ratio)
            found.append(dataclasses.replace(row, stage=stage, block=block))
    return found


def test_a_row_of_both_races_is_compared_by_its_blocks(tmp_path: Path) -> None:
    screen = [data.latency(), record()]
    runs = [
        load_run(data.write_run(tmp_path / name, [*screen, *raced(times)])) for name, times in (("a", 1.0), ("b", 1.2))
    ]
    move = next(m for m in moves_of(*runs, 0.05, absolute=False) if m.name.endswith("torch-fp16"))
    assert move.moved == "worse"
    assert move.speed is not None
    assert (move.speed.figure, move.speed.times) == ("race", pytest.approx(1 / 1.2))


def test_what_is_confirmed_goes_before_what_was_raced(tmp_path: Path) -> None:
    rows = [data.latency(), record(), *raced(), *raced(stage="confirm")]
    runs = [load_run(data.write_run(tmp_path / name, rows)) for name in "ab"]
    figures = {m.speed.figure for m in moves_of(*runs, 0.05, absolute=False) if m.speed is not None}
    assert figures == {"confirm"}


def test_a_race_in_one_run_alone_is_not_mixed_with_the_screen(tmp_path: Path) -> None:
    screen = [data.latency(), record()]
    assert moved(tmp_path, [*screen, *raced(3.0)], screen) == {"torch-fp32": "same", "torch-fp16": "same"}


@pytest.mark.parametrize(("again", "code"), [(1.0, 0), (1.2, 1)])
def test_fresh_figures_must_confirm_an_alarm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], again: float, code: int
) -> None:
    a, b, c = (str(data.write_run(tmp_path / n, [record(p)])) for n, p in (("a", 1.0), ("b", 1.2), ("c", again)))
    assert main(["compare", a, b]) == 1
    assert f"python sweeps/variant_grid.py --run {b} --name RUN_C --variants torch-fp16" in capsys.readouterr().out
    assert main(["compare", a, b, "--again", c]) == code
    assert ("| refuted |" in capsys.readouterr().out) == (code == 0)


def test_chances_are_corrected_as_holm_says() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_runs_that_are_alike_raise_few_alarms() -> None:
    rng = np.random.default_rng(0)
    alarms: list[bool] = []
    for _ in range(60):
        spreads = np.exp(rng.uniform(np.log(0.016), np.log(0.10), 40))
        runs = [[level(row, fresh=True) for row in rng.normal(0, 1, (40, 3)) * spreads[:, None]] for _ in range(2)]
        speeds = speeds_of(list(zip(*runs, strict=True)))
        alarms.append(
            any(c <= 0.05 and s.times < 0.95 for c, s in zip(holm([s.chance for s in speeds]), speeds, strict=True))
        )
    assert np.mean(alarms) <= 0.12  # 5 % of 60, and what chance adds to it


@pytest.mark.parametrize("name", ["magnitude", "mvtec_screw", "quick", "second_device"])
def test_published_rows_of_other_weights_raise_no_alarm(name: str) -> None:
    latency = load_run(Path(__file__).resolve().parents[2] / "docs" / "results" / name).latency
    found: dict[tuple[str, str], list[Row]] = {}
    for row in grid_rows(latency):
        if row["status"] == "ok" and variant_of(row) != Variant():
            found.setdefault((row["model"], row["variant"]), []).append(row)
    pairs = [tuple(its[:2]) for its in found.values() if len(its) > 1]
    speeds = speeds_of([(row_level(a), row_level(b)) for a, b in pairs])
    chances = holm([speed.chance for speed in speeds])
    assert len(pairs) >= 11  # in one study a compiled variant fell back
    assert [s for c, s in zip(chances, speeds, strict=True) if c <= 0.05 and abs(s.times - 1) >= 0.05] == []


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
