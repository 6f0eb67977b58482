"""Exclusive use of a device, and the proof of it."""

import contextlib
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_nvml import FakeNvml
from neighbours import hold

from cifar_tune import device
from cifar_tune.device import CONTENDED_CORES, DeviceWatch, ForeignLoad, Gpu, pin_to_cores
from cifar_tune.errors import DeviceTakenError
from cifar_tune.measuring.processes import in_fresh_process
from cifar_tune.runs import locks
from cifar_tune.runs.locks import exclusive_device

SPAWN = multiprocessing.get_context("spawn")
STRANGER = 4_194_305
"""Above the highest process number of Linux."""


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


@contextlib.contextmanager
def burning(processes: int) -> Iterator[None]:
    """That many other processes keep a core each busy."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def test_another_process_that_loads_a_core_during_a_window_is_seen() -> None:
    with burning(1):
        watch = DeviceWatch("cpu")
        watch.start()
        time.sleep(0.5)
        assert watch.disturbed()
        assert watch.evidence()["foreign_cpu"] > CONTENDED_CORES


def kept_on(core: int) -> tuple[float, float]:
    """What a process that is kept on one core sees of it, in cores, and of the whole machine."""
    os.sched_setaffinity(0, {core})
    here, everywhere = ForeignLoad(), ForeignLoad(range(os.cpu_count() or 1))
    time.sleep(1.0)
    return here.cores(), everywhere.cores()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="another core is needed")
def test_work_on_other_cores_than_the_measured_ones_does_not_count() -> None:
    with burning(os.cpu_count() or 1):
        here, machine = in_fresh_process(kept_on, 0)
    assert here < 1.1 < machine


def watched(nvml: FakeNvml) -> DeviceWatch:
    """A watch over a card, after one window."""
    watch = DeviceWatch("cuda", Gpu(nvml, "GPU-1"))  # pyright: ignore[reportArgumentType] - a fake
    watch.start()
    watch.disturbed()
    return watch


def test_row_says_which_card_it_was() -> None:
    assert watched(FakeNvml([os.getpid()])).evidence()["gpu_uuid"] == "GPU-1"


def test_another_process_on_the_card_disturbs() -> None:
    watch = DeviceWatch("cuda", Gpu(FakeNvml([os.getpid(), STRANGER]), "GPU-1"))  # pyright: ignore[reportArgumentType]
    watch.start()
    assert watch.disturbed()


def test_evidence_of_the_gpu_that_is_missing_has_a_reason() -> None:
    assert "does not list this process" in (watched(FakeNvml([STRANGER])).blind or "")
    assert watched(FakeNvml([os.getpid()])).blind is None
    assert DeviceWatch("cpu").blind is None


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
