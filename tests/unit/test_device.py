"""Exclusive use of a device, and the proof of it."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest
from neighbours import burn, hold

from cifar_tune import device
from cifar_tune.device import CONTENDED_CORES, DeviceWatch, pin_to_cores
from cifar_tune.errors import DeviceTakenError
from cifar_tune.measuring.processes import in_fresh_process
from cifar_tune.runs import locks
from cifar_tune.runs.locks import exclusive_device

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock folder of the test's own: a study on this machine must not fail it."""
    monkeypatch.setattr(locks, "LOCKS", tmp_path)


def start_holding(tmp_path: Path, seconds: float) -> "multiprocessing.process.BaseProcess":
    held = SPAWN.Event()
    process = SPAWN.Process(target=hold, args=(str(tmp_path), seconds, held))
    process.start()
    assert held.wait(60)
    return process


def test_device_taken_by_another_study_names_its_process(tmp_path: Path) -> None:
    process = start_holding(tmp_path, 60)
    try:
        taken = rf"cpu is taken by process {process.pid} .*\(run other\)"
        with pytest.raises(DeviceTakenError, match=taken), exclusive_device("cpu", wait=False):
            pass
    finally:
        process.kill()
        process.join()


def test_lock_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    process = start_holding(tmp_path, 60)
    process.kill()
    process.join()
    with exclusive_device("cpu", wait=False):
        pass


def test_two_studies_take_turns(tmp_path: Path) -> None:
    process = start_holding(tmp_path, 0.3)
    with exclusive_device("cpu", wait=True):
        assert not process.is_alive() or process.exitcode is None
    process.join()
    assert process.exitcode == 0


def pinned(threads: int) -> tuple[list[int], set[int]]:
    return pin_to_cores(threads), os.sched_getaffinity(0)


def test_process_is_kept_on_as_many_cores_as_it_has_threads() -> None:
    cores, affinity = in_fresh_process(pinned, 1)
    assert (len(cores), affinity) == (1, set(cores))


def test_another_process_that_loads_a_core_during_a_window_is_seen() -> None:
    begun = SPAWN.Event()
    process = SPAWN.Process(target=burn, args=(20.0, begun))
    process.start()
    try:
        assert begun.wait(60)
        watch = DeviceWatch("cpu")
        watch.start()
        time.sleep(1.0)
        assert watch.disturbed()
        assert watch.evidence()["foreign_cpu"] > CONTENDED_CORES
    finally:
        process.kill()
        process.join()


def test_own_work_is_not_taken_for_somebody_elses() -> None:
    watch = DeviceWatch("cpu")
    before, started = time.process_time(), time.perf_counter()
    watch.start()
    while time.process_time() - before < 0.5:
        pass
    watch.disturbed()
    own = (time.process_time() - before) / (time.perf_counter() - started)
    assert watch.evidence()["foreign_cpu"] + own < os.cpu_count() + 0.1  # others have what we left, at most


@pytest.mark.parametrize(
    ("machine", "flags", "overflows"),
    [
        ("x86_64", "fma avx2", True),
        ("x86_64", "avx512f avx512_vnni", False),
        ("x86_64", "avx2 avx_vnni", False),
        ("aarch64", "asimd", False),
    ],
)
def test_int8_overflows_on_x86_without_vnni(
    machine: str, flags: str, overflows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_of_cpu", lambda _: flags)
    monkeypatch.setattr(device.platform, "machine", lambda: machine)
    assert device.overflows_int8() == overflows
