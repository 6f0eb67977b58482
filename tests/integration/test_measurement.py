"""One evaluation, one build, one measurement, and the fresh processes they run in."""

import dataclasses
import functools
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import orphan
import psutil
import pytest
import torch
from small_data import small_data

from cifar_tune.config import LatencyConfig, Variant
from cifar_tune.device import CONTENDED_CORES, environment
from cifar_tune.errors import (
    DeviceTakenError,
    DisturbedError,
    ProcessDiedError,
    UnsupportedError,
    failed_status,
    failure,
)
from cifar_tune.measuring import build as preparation
from cifar_tune.measuring import measurement
from cifar_tune.measuring.build import evaluation, exported
from cifar_tune.measuring.drain import drain, others_work
from cifar_tune.measuring.latency import Timed, Timer
from cifar_tune.measuring.measurement import measure_here, measured, on_core, on_one_core, stand_ins
from cifar_tune.measuring.processes import SPIN_COUNT, exclusive_turn, in_fresh_process, in_fresh_processes
from cifar_tune.measuring.target import Cell, GridSettings, MeasurementCell, Target
from cifar_tune.models.registry import build_model
from cifar_tune.models.weights import save_weights
from cifar_tune.records import EvaluationRecord, LatencyRecord
from cifar_tune.store import sha256_file

DATA = small_data()
PROTOCOL = LatencyConfig(warmup=1, iterations=350, max_iterations=350, repeats=2, time_limit=60.0)


def settings(tmp_path: Path, **protocol: Any) -> GridSettings:
    return GridSettings(
        run="run", device="cpu", threads=1, latency=dataclasses.replace(PROTOCOL, **protocol),
        cache=str(tmp_path / "cache"), input_shape=(3, 8, 8), environment=environment("cpu"),
    )  # fmt: skip


@pytest.fixture
def target(tmp_path: Path) -> Target:
    path = tmp_path / "w.safetensors"
    save_weights(build_model("resnet_narrow", 3, seed=1), path)
    return Target(
        trial_id="t", model="resnet_narrow", arm="plain", checkpoint=str(path), checkpoint_sha256=sha256_file(path),
        classes=3,
    )  # fmt: skip


def row(target: Target, variant: Variant, with_settings: GridSettings, fallback: str | None = None) -> LatencyRecord:
    cell = MeasurementCell(target=target, variant=variant, fallback=fallback)
    return measured(cell, with_settings, DATA)


def read(target: Target, variant: Variant, tmp_path: Path) -> EvaluationRecord:
    return evaluation(Cell(target=target, variant=variant), settings(tmp_path), DATA)


def test_each_call_has_a_process_of_its_own() -> None:
    assert len({os.getpid(), in_fresh_process(os.getpid), in_fresh_process(os.getpid)}) == 3


def test_exception_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        in_fresh_process(int, "no number")


def test_process_that_dies_is_an_exception_and_the_next_one_works() -> None:
    with pytest.raises(ProcessDiedError):
        in_fresh_process(os.abort)
    assert in_fresh_process(int, "3") == 3


class AwkwardError(Exception):
    """Cannot be made from what it says alone, as unpickling tries to."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__(f"{name} {number}")


def raise_awkward() -> None:
    raise AwkwardError("seven", 7)


def test_exception_that_cannot_be_sent_is_told() -> None:
    with pytest.raises(RuntimeError, match="AwkwardError: seven 7"):
        in_fresh_process(raise_awkward)


class ForgetfulError(Exception):
    """Can be made again, but says nothing then."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self._words = words

    def __str__(self) -> str:
        return " ".join(self._words)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return ForgetfulError, ()


def raise_forgetful() -> None:
    raise ForgetfulError("data", "dependent")


def test_exception_that_would_arrive_without_its_words_is_told() -> None:
    with pytest.raises(RuntimeError, match="ForgetfulError: data dependent"):
        in_fresh_process(raise_forgetful)


def spans(ready_after: float) -> tuple[float, float, float]:
    """When this process was ready, when its turn began and when it ended."""
    time.sleep(ready_after)
    ready = time.monotonic()
    with exclusive_turn():
        began = time.monotonic()
        time.sleep(0.2)
        return ready, began, time.monotonic()


def test_siblings_get_ready_beside_each_other_and_measure_in_turn() -> None:
    taken = in_fresh_processes([functools.partial(spans, after) for after in (0.0, 0.5, 1.0)])
    turns = sorted((began, ended) for _, began, ended in taken)
    assert turns[0][0] >= max(ready for ready, _, _ in taken)
    assert all(one[1] <= next_one[0] for one, next_one in itertools.pairwise(turns))


def test_a_sibling_that_cannot_get_ready_ends_all_and_says_why() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        in_fresh_processes([functools.partial(spans, 0.0), functools.partial(int, "no number")])


def test_a_sibling_that_dies_ends_all() -> None:
    with pytest.raises(ProcessDiedError):
        in_fresh_processes([functools.partial(spans, 0.0), os.abort])


def test_a_fresh_process_ends_with_its_parent(tmp_path: Path) -> None:
    """Also where the parent was killed, and could tell it nothing."""
    note = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, orphan.__file__, note])
    while not (note.exists() and note.read_text()):
        assert parent.poll() is None
        time.sleep(0.1)
    fresh = psutil.Process(int(note.read_text()))
    parent.kill()
    parent.wait()
    fresh.wait(30)
    assert not fresh.is_running()


def test_row_of_a_measurement_is_complete(target: Target, tmp_path: Path) -> None:
    measured_row = row(target, Variant(), settings(tmp_path))
    assert (measured_row.status, measured_row.batch1_agreement) == ("ok", 1.0)
    assert measured_row.samples_ms is not None
    assert [len(r) for r in measured_row.samples_ms] == [350, 350]
    names = (
        "p50_ms", "p50_low_ms", "p95_bound_ms", "p99_ms", "p99_bound_ms", "foreign_cpu", "load_average", "windows",
        "artifact_mb", "load_seconds", "speedup_low", "speedup_high", "cores", "threads", "settled",
    )  # fmt: skip
    assert [name for name in names if getattr(measured_row, name) is None] == []


def test_all_repeats_can_be_measured_in_one_process(target: Target, tmp_path: Path) -> None:
    samples = row(target, Variant(), settings(tmp_path, fresh_processes=False)).samples_ms
    assert samples is not None
    assert [len(r) for r in samples] == [350, 350]


def test_speedup_of_the_reference_over_itself_is_about_one(target: Target, tmp_path: Path) -> None:
    speedup = row(target, Variant(), settings(tmp_path)).speedup
    assert speedup is not None
    assert 0.5 < speedup < 2


def test_a_one_thread_variant_has_an_anchor_in_as_many_rounds(target: Target, tmp_path: Path) -> None:
    anchored = row(target, Variant(single_thread=True), settings(tmp_path))
    assert anchored.reference_ms is not None
    assert anchored.anchor_ms is not None
    assert [len(r) for r in anchored.anchor_ms] == [len(r) for r in anchored.reference_ms]
    assert row(target, Variant(), settings(tmp_path)).anchor_ms is None


def inside_and_after() -> tuple[set[int], int, set[int], int]:
    torch.set_num_threads(2)
    with on_one_core([max(os.sched_getaffinity(0))]):
        inside = os.sched_getaffinity(0), torch.get_num_threads()
    return *inside, os.sched_getaffinity(0), torch.get_num_threads()


def test_calls_of_one_thread_are_kept_on_one_core_and_later_ones_are_not() -> None:
    cores = os.sched_getaffinity(0)
    assert in_fresh_process(inside_and_after) == ({max(cores)}, 1, cores, 2)


def openmp_spins() -> str | None:
    return os.environ.get("GOMP_SPINCOUNT")


def test_fresh_processes_spin_less() -> None:
    assert in_fresh_process(openmp_spins) == os.environ.get("GOMP_SPINCOUNT", str(SPIN_COUNT))


def test_starting_them_leaves_this_process_s_own_setting() -> None:
    before = openmp_spins()
    in_fresh_process(int)
    assert openmp_spins() == before


def cores_of_calls() -> tuple[set[int], int]:
    seen: list[tuple[set[int], int]] = []
    torch.set_num_threads(2)
    call = Timed(call=lambda _: seen.append((os.sched_getaffinity(0), torch.get_num_threads())), inputs=[None])
    Timer(on_core(call, sorted(os.sched_getaffinity(0))), time.perf_counter).samples(1)
    return seen[-1]


def test_calls_of_an_anchor_are_on_the_last_core_with_one_thread() -> None:
    assert in_fresh_process(cores_of_calls) == ({max(os.sched_getaffinity(0))}, 1)


def threads_that_sleep() -> bool:
    torch.set_num_threads(2)
    torch.ones(1 << 22).sum()
    return drain() and not others_work()


def test_after_draining_no_other_thread_works() -> None:
    assert in_fresh_process(threads_that_sleep)


def test_callable_that_answers_otherwise_at_batch_1_is_refused(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = dataclasses.replace(target, checkpoint=None)
    models = iter([measurement.load_target(target), measurement.load_target(other)])
    monkeypatch.setattr(measurement, "load_target", lambda _: next(models))
    monkeypatch.setattr(measurement.copy, "deepcopy", lambda _: next(models, build_model("resnet_narrow", 3)))
    monkeypatch.setattr(measurement, "pin_to_cores", lambda _: [])
    with pytest.raises(RuntimeError, match="logits at batch 1 differ from those of torch-fp32 at a large batch"):
        measure_here(Cell(target=target, variant=Variant()), settings(tmp_path), DATA, 1)


def test_untrained_weights_that_answer_nothing_in_half_precision_are_measured(target: Target, tmp_path: Path) -> None:
    untrained = dataclasses.replace(target, model="mobilenet_v3_small", checkpoint=None)
    short = settings(tmp_path, fresh_processes=False, time_limit=0.1)
    assert row(untrained, Variant(precision="fp16"), short).status == "ok"


def test_row_says_that_a_process_of_another_user_loaded_a_core(target: Target, tmp_path: Path) -> None:
    other = "nobody" if os.geteuid() == 0 else None  # only root can start one; any other process is foreign too
    with subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"], user=other) as process:
        record = row(target, Variant(), settings(tmp_path, fresh_processes=False, retries=0))
        process.kill()
    assert (record.status, record.contended) == ("ok", True)
    assert record.foreign_cpu is not None
    assert record.foreign_cpu > CONTENDED_CORES


def test_failed_compile_falls_back_to_torchscript_and_says_so(target: Target, tmp_path: Path) -> None:
    fallen = row(target, Variant(compile="default"), settings(tmp_path), "torch.compile failed (why)")
    assert (fallen.status, fallen.compile) == ("fallback", "default")
    assert fallen.error == "torch.compile failed (why); TorchScript was measured instead"
    assert fallen.p50_ms is not None


def test_failed_compile_of_fp16_falls_back_to_fp16_without_it(target: Target, tmp_path: Path) -> None:
    fallen = row(target, Variant(precision="fp16", compile="default"), settings(tmp_path), "torch.compile failed (why)")
    said = "torch.compile failed (why); fp16 without torch.compile was measured instead"
    assert (fallen.status, fallen.error) == ("fallback", said)


def test_r12_the_order_of_stand_ins() -> None:
    assert list(stand_ins(Variant(precision="fp16", compile="default"))) == [
        "fp16 without torch.compile",
        "TorchScript",
    ]
    assert list(stand_ins(Variant(compile="default"))) == ["TorchScript"]


def test_exported_artifact_reads_the_test_set_as_eager_does(target: Target, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="pip install -e '.[onnx]'")
    variant = Variant(runtime="onnxruntime")
    build = exported(Cell(target=target, variant=variant), settings(tmp_path))
    got, expected = (read(target, v, tmp_path) for v in (variant, Variant()))
    assert (build.status, build.trial_id) == ("ok", "t")
    assert got.predictions == expected.predictions


@pytest.mark.parametrize("variant", [Variant(), Variant(precision="fp16"), Variant(channels_last=True)])
def test_bits_and_predictions_of_an_evaluation_agree_with_its_accuracy(
    target: Target, variant: Variant, tmp_path: Path
) -> None:
    record = read(target, variant, tmp_path)
    assert record.predictions is not None
    assert record.correct is not None
    right = np.frombuffer(record.predictions, "<u2") == DATA.test_labels
    assert right.mean() == record.test_accuracy
    assert np.array_equal(np.unpackbits(np.frombuffer(record.correct, np.uint8))[: len(right)].astype(bool), right)


def test_precision_that_is_emulated_for_too_long_is_unsupported(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "EMULATED", 0.0)
    monkeypatch.setattr(preparation, "EMULATED_SECONDS", 0.0)
    with pytest.raises(UnsupportedError, match=r"fp16 is emulated .* reading \d+ images in it would take 0 min"):
        read(target, Variant(precision="fp16"), tmp_path)


def test_precision_that_is_emulated_but_short_is_read(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "EMULATED", 0.0)
    assert read(target, Variant(precision="fp16"), tmp_path).status == "ok"


def test_failure_is_one_line_that_names_the_exception() -> None:
    assert failure(RuntimeError("first\nsecond")) == "RuntimeError: first"


def test_dead_process_is_said_to_be_out_of_memory_or_crashed() -> None:
    assert "out of memory" in failure(ProcessDiedError("the process died: out of memory"))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnsupportedError("x"), "unsupported"),
        (RuntimeError("x"), "failed"),
        (DisturbedError("x"), "skipped"),
        (DeviceTakenError("x"), "skipped"),
    ],
)
def test_status_says_what_kind_of_failure_it_was(error: Exception, status: str) -> None:
    assert failed_status(error) == status


def eat_memory() -> int:
    """Ask for more than the process may have."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    return int(torch.zeros(1 << 40, dtype=torch.uint8).sum())


def test_out_of_memory_is_an_error_and_the_next_process_starts_clean() -> None:
    with pytest.raises(RuntimeError, match="allocate memory"):
        in_fresh_process(eat_memory)
    assert in_fresh_process(int, "3") == 3
