"""What a million images cost, and the goals of R26."""

import dataclasses
from pathlib import Path

import analysis_data as data
import pytest

from analysis.__main__ import main
from analysis.cost import cost, offers, plot_cost
from analysis.frames import Run, load_run
from cifar_tune.config import Variant
from cifar_tune.records import LatencyRecord

FP16 = Variant(precision="fp16")
GPU = dataclasses.replace(data.ENVIRONMENT, device="cuda", device_name="a GPU")


def run_of(folder: Path, baseline: float, candidate: float, **changes: object) -> Run:
    rows: list[LatencyRecord] = [
        data.latency(p50=baseline, trial_id="t0", model="resnet18", arm="teacher"),
        data.latency(p50=candidate * 1.5),
        data.latency(FP16, p50=candidate),
    ]
    return load_run(data.write_run(folder, [dataclasses.replace(row, **changes) for row in rows]))


@pytest.fixture
def cpu(tmp_path: Path) -> Run:
    return run_of(tmp_path / "cpu", baseline=36.0, candidate=3.6)


@pytest.fixture
def gpu(tmp_path: Path) -> Run:
    return run_of(tmp_path / "gpu", baseline=3.6, candidate=1.8, environment=GPU)


def test_r22_a_million_images_of_36_ms_take_ten_hours(cpu: Run) -> None:
    assert offers([cpu], [0.5])[0].per_million == pytest.approx(5.0)


def test_r22_cpu_and_gpu_stand_beside_each_other_with_their_prices(cpu: Run, gpu: Run) -> None:
    found = offers([cpu, gpu], [0.5, 10.0])
    assert [(o.device, o.what, round(o.per_million, 3)) for o in found] == [
        (data.ENVIRONMENT.device_name, "baseline", 5.0),
        (data.ENVIRONMENT.device_name, "candidate", 0.5),
        ("a GPU", "baseline", 10.0),
        ("a GPU", "candidate", 5.0),
    ]


def test_r26_goals_are_judged_by_the_cheapest_candidate(cpu: Run, gpu: Run) -> None:
    text = cost(offers([cpu, gpu], [0.5, 10.0]))
    assert "- time: -90.0 % (goal -80 %), met" in text
    assert "- cost: -90.0 % (goal -70 %), met" in text


def test_r26_a_goal_that_is_missed_is_said(tmp_path: Path) -> None:
    slow = run_of(tmp_path / "slow", baseline=4.0, candidate=1.0)
    assert "- time: -75.0 % (goal -80 %), missed" in cost(offers([slow], [1.0]))


def test_run_without_a_candidate_says_so(tmp_path: Path) -> None:
    bad = load_run(data.write_run(tmp_path / "bad", [data.latency(right=500)]))
    assert "No run has a candidate" in cost(offers([bad], [1.0]))


@pytest.mark.parametrize(("prices", "reason"), [([1.0, 2.0], "given 2 times"), ([0.0], "above 0"), ([-1.0], "above 0")])
def test_price_that_is_none_is_refused(cpu: Run, prices: list[float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        offers([cpu], prices)


def test_run_without_a_baseline_is_refused(tmp_path: Path) -> None:
    only = load_run(data.write_run(tmp_path / "only", [data.latency(FP16)]))
    with pytest.raises(ValueError, match="no measured FP32 eager"):
        offers([only], [1.0])


def test_runs_of_other_images_are_refused(cpu: Run, gpu: Run) -> None:
    other = dataclasses.replace(gpu, study=gpu.study | {"data": gpu.study["data"] | {"label": "cifar10"}})
    with pytest.raises(ValueError, match="runs are of digits and cifar10"):
        offers([cpu, other], [1, 1])


def test_picture_is_a_png(cpu: Run, gpu: Run, tmp_path: Path) -> None:
    plot_cost(offers([cpu, gpu], [0.5, 10.0]), tmp_path / "cost.png")
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")


def test_command_prints_the_table(cpu: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", str(cpu.path), "--price-per-hour", "0.5"]) == 0
    assert "| 5 | +0.0 |" in capsys.readouterr().out
