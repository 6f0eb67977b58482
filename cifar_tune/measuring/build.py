"""What comes before a measurement: the answers of a variant on the test set, and its build. Knows no Ray."""

from __future__ import annotations

import dataclasses
import shutil
import time

import numpy as np
import torch
from torch import Tensor

from cifar_tune.data.augment import Batcher
from cifar_tune.data.datasets import ImageData
from cifar_tune.errors import UnsupportedError
from cifar_tune.measuring.quality import quality
from cifar_tune.measuring.target import Cell, GridSettings, load_target, make_source, use_compile_cache
from cifar_tune.models.outside import make_model
from cifar_tune.models.pruning import compressed_mb
from cifar_tune.records import BuildRecord, EvaluationRecord
from cifar_tune.runtimes import RUNTIMES, Runnable
from cifar_tune.training.loop import predict

EMULATED = 4.0
"""Times of FP32's from which a precision is emulated on this processor: 5 to 50 were seen (docs/log.md)."""
EMULATED_SECONDS = 300.0
"""The most that reading the test set in an emulated precision may take. It can only lose: FP32 is faster and finer."""
PROBED_IMAGES = 4

# --- evaluation -------------------------------------------------------------------------------------------------


def evaluation(cell: Cell, settings: GridSettings, data: ImageData) -> EvaluationRecord:
    """The answers of one model, runtime, precision and layout on the test set.

    PyTorch's eager variants answer in large batches, all others image by image: they are made for one.
    UnsupportedError where the processor only emulates the precision and would take too long.
    """
    variant = cell.variant
    torch.set_num_threads(settings.threads)
    source = make_source(load_target(cell.target), cell, settings, settings.threads)
    runnable = RUNTIMES[variant.runtime].load(source)
    batcher = Batcher(data.test_images, data.mean, data.std, settings.device)
    if settings.device == "cpu" and variant.runtime == "torch" and variant.precision != "fp32":
        refuse_emulated(runnable, cell, settings, batcher)
    with runnable.scope():
        if variant.runtime == "torch":
            logits = predict(
                lambda images: runnable.call(runnable.prepare_input(images)),
                batcher,
                variant.precision,
                settings.device,
            )
        else:
            logits = answers(runnable, batcher, len(data.test_images))
    own = (variant.runtime, variant.precision) == ("torch", "fp32")
    found = logits.float().cpu().numpy()
    predictions = found.argmax(1)
    correct = predictions == data.test_labels
    return EvaluationRecord(
        trial_id=cell.target.trial_id,
        variant=variant.name,
        status="ok",
        test_accuracy=float(correct.mean()),
        **dataclasses.asdict(quality(found, data.test_labels)),
        test_images=len(correct),
        compressed_mb=compressed_mb(source.model) if own else None,
        predictions=predictions.astype("<u2").tobytes(),
        correct=np.packbits(correct).tobytes(),
    )


def refuse_emulated(runnable: Runnable, cell: Cell, settings: GridSettings, batcher: Batcher) -> None:
    """UnsupportedError where a precision of PyTorch's is emulated, and reading all images in it would take too long."""
    fp32 = dataclasses.replace(cell, variant=dataclasses.replace(cell.variant, precision="fp32"))
    reference = RUNTIMES["torch"].load(make_source(load_target(cell.target), fp32, settings, settings.threads))
    own = _probe_seconds(runnable, batcher)
    times = own / _probe_seconds(reference, batcher)
    seconds = own / PROBED_IMAGES * len(batcher.images)
    if times > EMULATED and seconds > EMULATED_SECONDS:
        raise UnsupportedError(
            f"{cell.variant.precision} is emulated on this processor, {times:.0f} times slower than FP32: "
            f"reading {len(batcher.images)} images in it would take {seconds / 60:.0f} min"
        )


def _probe_seconds(runnable: Runnable, batcher: Batcher) -> float:
    """What a few images take, in one batch; the call before it is not in it."""
    images = runnable.prepare_input(batcher.plain(0, PROBED_IMAGES))
    with runnable.scope():
        runnable.call(images)
        started = time.perf_counter()
        runnable.call(images)
    return time.perf_counter() - started


def answers(runnable: Runnable, batcher: Batcher, images: int) -> Tensor:
    """Logits of the first images, one by one: float32 (images, classes)."""
    kept: list[Tensor] = []
    for i in range(images):
        logits = runnable.call(runnable.prepare_input(batcher.plain(i, i + 1)))
        runnable.synchronize()
        kept.append(logits.float().clone())  # some runtimes overwrite their answer
    return torch.cat(kept)


# --- builds -----------------------------------------------------------------------------------------------------


def compiled(cell: Cell, settings: GridSettings) -> BuildRecord:
    """Compile an architecture, whatever its weights, for a torch.compile variant at batch 1."""
    target = cell.target
    cold = use_compile_cache(settings, target.model, cell.variant)
    # inductor writes the thread count into its kernels: another one than the measurement's would miss the cache
    torch.set_num_threads(settings.measurement_threads)
    model = make_model(target.model, target.classes).eval()
    source = make_source(model, cell, settings, settings.measurement_threads)
    started, clock = time.time(), time.perf_counter()
    runnable = RUNTIMES[cell.variant.runtime].load(source)
    runnable.first_call(source.example)
    return _built(cell, started, clock, cold=cold)


def exported(cell: Cell, settings: GridSettings, calibration: ImageData | None = None) -> BuildRecord:
    """Write the artifact of a target's weights for a runtime that has one.

    Args:
        calibration: what static INT8 is calibrated on.
    """
    target, runtime = cell.target, cell.variant.runtime
    export = RUNTIMES[runtime].export
    assert export is not None, f"{runtime} has no artifact"
    cold = use_compile_cache(settings, target.trial_id, cell.variant)
    torch.set_num_threads(settings.measurement_threads)
    source = make_source(load_target(target), cell, settings, settings.measurement_threads, calibration)
    shutil.rmtree(source.folder, ignore_errors=True)
    source.folder.mkdir(parents=True)
    started, clock = time.time(), time.perf_counter()
    export(source)
    return dataclasses.replace(_built(cell, started, clock, cold=cold), trial_id=target.trial_id)


def _built(cell: Cell, started: float, clock: float, *, cold: bool) -> BuildRecord:
    return BuildRecord(
        model=cell.target.model,
        variant=cell.variant.name,
        status="ok",
        compile_seconds=time.perf_counter() - clock,
        compile_cold=cold,
        started_at=started,
    )
