"""One block of a race, with processes that are real."""

import dataclasses
import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_data import small_data

from cifar_tune.config import LatencyConfig, RaceConfig, Variant
from cifar_tune.device import environment
from cifar_tune.measuring import race
from cifar_tune.measuring.race import raced
from cifar_tune.measuring.target import Cell, GridSettings, RaceCell, Target
from cifar_tune.records import LatencyRecord
from cifar_tune.rounds import round_medians

DATA = small_data()
ROUNDS = 5
SETTINGS = GridSettings(
    run="run", device="cpu", threads=1, latency=LatencyConfig(warmup=1, threads=1, retries=0), cache="",
    input_shape=(3, 8, 8), environment=environment("cpu"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "TURN_MS", 2.0)
    monkeypatch.setattr(race, "WARM_UP_MS", 5.0)


def contender(name: str, variant: Variant | None = None) -> Cell:
    target = Target(
        trial_id=name, model=f"faulty_models:{name}", arm="plain", checkpoint=None, checkpoint_sha256=name, classes=3
    )
    return Cell(target=target, variant=variant or Variant())


def block(*names: str, **latency: Any) -> list[LatencyRecord]:
    return raced_with(SETTINGS, *names, **latency)


def raced_with(settings: GridSettings, *names: str, **latency: Any) -> list[LatencyRecord]:
    cell = RaceCell(stage="race", block=3, contenders=tuple(map(contender, names)), rounds=ROUNDS)
    protocol = dataclasses.replace(settings.latency, **latency)
    return raced(cell, dataclasses.replace(settings, latency=protocol), DATA)


def test_each_contender_has_a_row_with_as_many_rounds_as_the_baseline_beside_it() -> None:
    rows = block("never", "never")
    assert [(r.status, r.stage, r.block, r.speedup, r.batch1_agreement) for r in rows] == [
        ("ok", "race", 3, None, 1.0)
    ] * 2
    for row in rows:
        assert row.samples_ms is not None
        assert row.reference_ms == rows[0].samples_ms
        own, beside = round_medians(row.samples_ms[0], rows[0].samples_ms[0], row.round_calls or 0)  # pyright: ignore[reportOptionalSubscript] - as above
        assert (len(own), len(beside)) == (ROUNDS, ROUNDS)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dies", "the process died"),
        ("dies_in_a_turn", "the process died"),
        ("hangs", "no answer"),
        ("hangs_in_a_turn", "no answer"),
    ],
)
def test_a_contender_that_dies_or_hangs_is_a_row_and_the_others_go_on(
    name: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "hangs" in name:
        monkeypatch.setattr(race, "READY_SECONDS", 10.0)
        monkeypatch.setattr(race, "TURN_SECONDS", 5.0)
    rows = block("never", name, "never")
    assert [row.status for row in rows] == ["ok", "failed", "ok"]
    assert reason in (rows[1].error or "")


@pytest.mark.parametrize("name", ["dies", "dies_in_a_turn"])
def test_without_the_baseline_all_rows_fail(name: str) -> None:
    rows = block(name, "never", "never")
    assert [row.status for row in rows] == ["failed"] * 3
    assert all(row.error and row.error.startswith("the baseline failed: the process died") for row in rows[1:])


def test_where_memory_is_small_contenders_race_in_groups_each_with_the_baseline() -> None:
    small = dataclasses.replace(SETTINGS, race=RaceConfig(memory_gb=1e-6))
    rows = raced_with(small, "never", "never", "never")
    assert [row.status for row in rows] == ["ok"] * 3
    assert rows[1].reference_ms == rows[0].samples_ms
    assert rows[2].reference_ms not in (None, rows[0].samples_ms)
    assert all("raced in 2 groups, each with the baseline" in (row.note or "") for row in rows)


def test_a_block_in_which_the_machine_slept_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.chain([5.0], itertools.repeat(65.0))
    monkeypatch.setattr(race, "slept_seconds", lambda: next(seconds))
    assert [(row.status, row.error) for row in block("never", "never")] == [
        ("failed", "the machine slept for 60 s")
    ] * 2


def test_on_a_gpu_for_one_process_contenders_run_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU is not there: only what it says is not true."""
    alive: list[int] = []
    seat = race._Group._seat

    def says_so(group: Any, number: int, ends: Any) -> Any:
        found = seat(group, number, ends)
        found.entry = dataclasses.replace(found.entry, gpu_for_one=True)
        alive.append(number)
        ends.callback(alive.remove, number)
        assert len(alive) == 1
        return found

    monkeypatch.setattr(race._Group, "_seat", says_so)
    rows = block("never", "never", "never")
    assert [row.status for row in rows] == ["ok"] * 3
    assert rows[2].reference_ms == rows[0].samples_ms
    assert all("one process at a time" in (row.note or "") for row in rows)


@pytest.fixture
def neighbours() -> Iterator[None]:
    """Another process on each core."""
    others = [subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"]) for _ in range(os.cpu_count() or 1)]
    yield
    for other in others:
        other.kill()
        other.wait()


@pytest.mark.usefixtures("neighbours")
def test_a_foreign_load_of_the_measured_cores_is_in_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race, "TURN_MS", 50.0)
    monkeypatch.setattr(race, "MOST_CALLS", 10_000)
    rows = block("never", "never")
    assert [(row.status, row.contended) for row in rows] == [("ok", True)] * 2
    assert [row.status for row in block("never", "never", strict=True)] == ["skipped"] * 2


def test_a_contender_of_one_thread_is_kept_on_one_core() -> None:
    """Its process has all measured ones: so had the baseline's."""
    one = dataclasses.replace(contender("never", Variant(single_thread=True)))
    cell = RaceCell(stage="confirm", block=1, contenders=(contender("never"), one), rounds=ROUNDS)
    rows = raced(cell, SETTINGS, DATA)
    assert [(row.status, row.stage, row.threads) for row in rows] == [("ok", "confirm", 1)] * 2


def test_a_block_of_two_small_models_is_short() -> None:
    block("never", "never")  # the server of fresh processes runs
    started = time.perf_counter()
    block("never", "never")
    assert time.perf_counter() - started < 20  # under a second on a quiet machine


def test_its_rows_have_the_checkpoint_of_their_contender(tmp_path: Path) -> None:
    assert [row.checkpoint_sha256 for row in block("never", "dies")] == ["never", "dies"]
