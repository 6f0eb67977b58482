"""One evaluation, one build, one measurement of a variant. Knows no Ray.

Builds and measurements run in a fresh process each, so that none inherits allocator, compiler or thread state, and
one that crashes is a row, not the end of the run. The processes are forked from a server that has imported PyTorch
and has computed nothing: a fresh state costs milliseconds instead of the seconds that the imports take.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from cifar_tune.config import LatencyConfig, Variant
from cifar_tune.data import ImageData
from cifar_tune.device import CONTENDED_CORES, ForeignLoad, environment, usable_cpus
from cifar_tune.latency import measure, statistics
from cifar_tune.models import build_model, count_parameters
from cifar_tune.records import BuildRecord, EvaluationRecord, LatencyRecord, LatencyStage, LatencyStatus
from cifar_tune.runtimes import RUNTIMES, Runnable, UnsupportedError
from cifar_tune.teacher import load_model
from cifar_tune.training import predict
from cifar_tune.views import Batcher

P = ParamSpec("P")
R = TypeVar("R")

BATCH1_IMAGES = 256
"""Test images on which the measured callable, at batch 1, must answer as the large batch does."""
BATCH1_MAXIMUM_ERROR = 0.1
"""Relative error of the logits above which the callable is not the model whose accuracy the row states.

Classes would not do: half precision turns the near-ties of a badly trained model, and rightly so. Its rounding
stays near 0.01; other weights, or a wrong kernel, give about 1.
"""
PRELOADED = ["cifar_tune.measurement", "torch._inductor.compile_fx", "cifar_tune.runtimes.probe", "ray"]
"""What the server of fresh processes imports. Ray is not used there; the main module of its workers imports it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A trained model whose variants are measured."""

    trial_id: str
    model: str
    arm: str
    checkpoint: str
    """Absolute path."""
    checkpoint_sha256: str
    classes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GridSettings:
    """How the variants of one run are evaluated, built and measured."""

    run: str
    device: str
    threads: int
    """CPU threads of an evaluation."""
    latency: LatencyConfig
    compile_cache: str
    """Folder for the compiler's caches."""
    cold_builds: bool
    image_size: int

    @property
    def measurement_threads(self) -> int:
        """CPU threads of a measurement."""
        return self.latency.threads or usable_cpus()


def failure(error: BaseException) -> str:
    """An exception in one line, for a row."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:500]


def failed_status(error: BaseException) -> LatencyStatus:
    """Whether a variant cannot run here, or failed."""
    return "unsupported" if isinstance(error, UnsupportedError) else "failed"


def in_fresh_process(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a module-level function in a process of its own; its exception is raised here.

    A process that dies (out of memory, a crash in native code) raises BrokenProcessPool.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(function, *args, **kwargs).result()


def make_runnable(subject: Subject, variant: Variant, device: str) -> Runnable:
    """The trained model as the variant runs it."""
    model = load_model(subject.model, subject.classes, subject.checkpoint)
    return RUNTIMES[variant.runtime](model, variant, device)


def evaluation(subject: Subject, variant: Variant, data: ImageData, device: str, threads: int) -> EvaluationRecord:
    """The answers of one model, precision and layout on the test set."""
    torch.set_num_threads(threads)
    runnable = make_runnable(subject, variant, device)
    batcher = Batcher(data.test_images, data.mean, data.std, device)
    with runnable.scope():
        logits = predict(
            lambda images: runnable.call(runnable.prepare_input(images)), batcher, variant.precision, device
        )
    predictions = logits.argmax(1).cpu().numpy()
    correct = predictions == data.test_labels
    return EvaluationRecord(
        trial_id=subject.trial_id,
        variant=variant.name,
        status="ok",
        test_accuracy=float(correct.mean()),
        test_images=len(correct),
        predictions=predictions.astype("<u2").tobytes(),
        correct=np.packbits(correct).tobytes(),
    )


def use_compile_cache(settings: GridSettings, model: str, variant: Variant) -> Path:
    """Point inductor at the cache of this model and variant; returns its folder.

    A cache of its own makes a compile time cold; sharing it between the layouts of a precision makes builds faster.
    """
    import torch._inductor.config as inductor

    shared = variant if settings.cold_builds else dataclasses.replace(variant, channels_last=False)
    folder = Path(settings.compile_cache, f"{model}-{shared.name}")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    # builds run beside each other, one a core: a pool of compilers in each would only wait
    inductor.compile_threads = 1
    return folder


def build(model: str, classes: int, variant: Variant, settings: GridSettings) -> BuildRecord:
    """Compile an architecture, with random weights, for a variant at batch 1."""
    folder = use_compile_cache(settings, model, variant)
    cold = not folder.exists()
    # inductor writes the thread count into its kernels: another one than the measurement's would miss the cache
    torch.set_num_threads(settings.measurement_threads)
    runnable = RUNTIMES[variant.runtime](build_model(model, classes), variant, settings.device)
    image = torch.randn(1, 3, settings.image_size, settings.image_size).to(settings.device)
    started = time.perf_counter()
    with runnable.scope():
        runnable.call(runnable.prepare_input(image))
        runnable.synchronize()
    seconds = time.perf_counter() - started
    return BuildRecord(model=model, variant=variant.name, status="ok", compile_seconds=seconds, compile_cold=cold)


def latency_skeleton(
    settings: GridSettings, subject: Subject, variant: Variant, stage: LatencyStage, repeat: int
) -> LatencyRecord:
    """The row of a variant before anything is measured."""
    return LatencyRecord(
        run=settings.run,
        trial_id=subject.trial_id,
        model=subject.model,
        arm=subject.arm,
        stage=stage,
        repeat=repeat,
        checkpoint_sha256=subject.checkpoint_sha256,
        variant=variant.name,
        **dataclasses.asdict(variant),
        status="failed",
        checkpoint_mb=Path(subject.checkpoint).stat().st_size / 1e6,
        environment=environment(settings.device),
    )


def measured(
    skeleton: LatencyRecord, subject: Subject, variant: Variant, settings: GridSettings, data: ImageData
) -> LatencyRecord:
    """The row with its measurements, accuracy aside; `data` need hold but the first test images.

    Raises RuntimeError where the callable does not answer at batch 1 as the same weights do at a large batch.
    """
    torch.set_num_threads(settings.measurement_threads)
    if variant.compile != "none":
        use_compile_cache(settings, subject.model, variant)
    started = time.perf_counter()
    model = load_model(subject.model, subject.classes, subject.checkpoint)
    parameters = count_parameters(model)
    runnable = RUNTIMES[variant.runtime](model, variant, settings.device)
    batcher = Batcher(data.test_images, data.mean, data.std, settings.device)
    images = [runnable.prepare_input(batcher.plain(i, i + 1)) for i in range(len(data.test_images))]
    with runnable.scope():
        runnable.call(images[0])
        runnable.synchronize()
        load_seconds = time.perf_counter() - started
        kept: list[Tensor] = []
        load = ForeignLoad()
        samples = measure(
            runnable.call,
            images,
            settings.latency,
            synchronize=runnable.synchronize,
            keep=lambda answer: kept.append(answer.float()) if len(kept) < len(images) else None,
        )
        foreign = load.cores()
        kept += [runnable.call(image).float() for image in images[len(kept) :]]  # where the time limit came first
    answers = torch.cat(kept)
    expected = _large_batch_logits(len(answers), subject, variant, batcher, settings.device)
    error = float((answers - expected).norm() / expected.norm())
    if not error <= BATCH1_MAXIMUM_ERROR:
        raise RuntimeError(f"logits at batch 1 differ from those at a large batch by {error:.1%}")
    return dataclasses.replace(
        skeleton,
        status="ok",
        batch1_agreement=float((answers.argmax(1) == expected.argmax(1)).float().mean()),
        samples_ms=samples,
        **statistics(samples),
        load_seconds=load_seconds,
        artifact_mb=runnable.weights_mb,
        parameters=parameters,
        contended=foreign > CONTENDED_CORES,
        foreign_cpu=foreign,
        threads=settings.measurement_threads,
    )


def _large_batch_logits(images: int, subject: Subject, variant: Variant, batcher: Batcher, device: str) -> Tensor:
    """What the same weights, precision and layout answer at a large batch, not compiled: float32 (images, classes)."""
    runnable = make_runnable(subject, variant.eager, device)
    with runnable.scope():
        return runnable.call(runnable.prepare_input(batcher.plain(0, images))).float()
