"""One evaluation, one measurement, and the fresh processes they run in."""

import os
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch
from small_data import small_data

from cifar_tune import measurement
from cifar_tune.config import LatencyConfig, Variant
from cifar_tune.measurement import (
    GridSettings,
    Subject,
    evaluation,
    failed_status,
    failure,
    in_fresh_process,
    latency_skeleton,
    measured,
)
from cifar_tune.models import build_model, save_weights
from cifar_tune.runtimes import UnsupportedError

DATA = small_data()


def settings(tmp_path: Path) -> GridSettings:
    return GridSettings(
        run="run", device="cpu", threads=1, latency=LatencyConfig(warmup=1, iterations=350, repeats=2),
        compile_cache=str(tmp_path / "cache"), cold_builds=True, image_size=8,
    )  # fmt: skip


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    path = tmp_path / "w.safetensors"
    save_weights(build_model("resnet_narrow", 3, seed=1), path)
    return Subject(
        trial_id="t", model="resnet_narrow", arm="plain", checkpoint=str(path), checkpoint_sha256="0" * 64, classes=3
    )


def test_each_call_has_a_process_of_its_own() -> None:
    assert len({os.getpid(), in_fresh_process(os.getpid), in_fresh_process(os.getpid)}) == 3


def test_exception_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        in_fresh_process(int, "no number")


def test_process_that_dies_is_an_exception_and_the_next_one_works() -> None:
    with pytest.raises(BrokenProcessPool):
        in_fresh_process(os.abort)
    assert in_fresh_process(int, "3") == 3


def test_row_of_a_measurement_is_complete(subject: Subject, tmp_path: Path) -> None:
    skeleton = latency_skeleton(settings(tmp_path), subject, Variant(), "grid", 0)
    row = measured(skeleton, subject, Variant(), settings(tmp_path), DATA)
    assert (row.status, row.batch1_agreement, row.threads) == ("ok", 1.0, len(os.sched_getaffinity(0)))
    assert row.samples_ms is not None
    assert [len(r) for r in row.samples_ms] == [350, 350]
    assert None not in (row.p50_ms, row.p95_ms, row.p99_ms, row.foreign_cpu, row.artifact_mb, row.load_seconds)


def test_callable_that_answers_otherwise_at_batch_1_is_refused(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "_large_batch_logits", lambda n, *_: torch.randn(n, 3))
    skeleton = latency_skeleton(settings(tmp_path), subject, Variant(), "grid", 0)
    with pytest.raises(RuntimeError, match="logits at batch 1 differ from those at a large batch"):
        measured(skeleton, subject, Variant(), settings(tmp_path), DATA)


@pytest.mark.parametrize("variant", [Variant(), Variant(precision="fp16"), Variant(channels_last=True)])
def test_bits_and_predictions_of_an_evaluation_agree_with_its_accuracy(subject: Subject, variant: Variant) -> None:
    record = evaluation(subject, variant, DATA, "cpu", 1)
    assert record.predictions is not None
    assert record.correct is not None
    right = np.frombuffer(record.predictions, "<u2") == DATA.test_labels
    assert right.mean() == record.test_accuracy
    assert np.array_equal(np.unpackbits(np.frombuffer(record.correct, np.uint8))[: len(right)].astype(bool), right)


def test_failure_is_one_line_that_names_the_exception() -> None:
    assert failure(RuntimeError("first\nsecond")) == "RuntimeError: first"


def test_what_cannot_run_here_is_unsupported_and_not_failed() -> None:
    assert [failed_status(e) for e in (UnsupportedError("x"), RuntimeError("x"))] == ["unsupported", "failed"]
