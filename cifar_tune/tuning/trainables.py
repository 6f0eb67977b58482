"""What a Tune worker runs. Functions of the package, so that workers import them by name.

A trial's failure is a value that it reports, so that searcher, scheduler and ledger hear of it in the same way.
The dashboard shows a function's name as the actor's: each is named for its stage.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray import tune

from cifar_tune.config import Arm, LatencyConfig, StudyConfig, Variant
from cifar_tune.data import ImageData
from cifar_tune.device import CONTENDED_CORES, ForeignLoad, environment, usable_cpus
from cifar_tune.latency import measure, statistics
from cifar_tune.models import build_model, count_parameters, save_weights
from cifar_tune.records import BuildRecord, EpochRecord, EvaluationRecord, LatencyRecord
from cifar_tune.runtimes import RUNTIMES, Runnable, UnsupportedError
from cifar_tune.store import to_row
from cifar_tune.teacher import CachedTeacher, TeacherRef, load_model
from cifar_tune.training import Epoch, predict, train
from cifar_tune.views import Batcher

BEST, LAST = "best.safetensors", "last.safetensors"
BATCH1_IMAGES = 256
"""Test images on which the measured callable, at batch 1, must answer as the large batch does."""
BATCH1_MINIMUM_AGREEMENT = 0.98
"""Below it the callable is not the model whose accuracy the row states. Rounding turns a few near-ties."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainTask:
    """What the trials of one search have in common."""

    study: StudyConfig
    arm: Arm
    model: str
    device: str
    threads: int
    teacher: TeacherRef | None
    teacher_folder: str
    data: ray.ObjectRef
    """ImageData in the object store: one copy a node, read in place by every trial."""


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


def failure(error: BaseException) -> str:
    """An exception in one line, for a row."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:500]


# --- training ---------------------------------------------------------------------------------------------------


def _train_trial(sample: dict[str, Any], task: TrainTask) -> None:
    data: ImageData = ray.get(task.data)
    study = task.study
    config = study.train_config(
        task.model,
        task.arm,
        sample,
        seed=study.seed,
        device=task.device,
        threads=task.threads,
        views=study.view_config(flip_suits_data=data.flip),
    )
    teacher = None
    if config.distils:
        assert task.teacher is not None, "a distillation task names its teacher"
        teacher = CachedTeacher(Path(task.teacher_folder), task.teacher, data, config.views, config.device)
    best = -1.0
    epoch_number = 0
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        try:
            for epoch in train(config, data, teacher):
                epoch_number = epoch.number
                if epoch.val_accuracy > best:
                    best = epoch.val_accuracy
                    save_weights(epoch.model, Path(folder, BEST))
                save_weights(epoch.model, Path(folder, LAST))
                _report_epoch(epoch, best, config.epochs, started, folder)
        except Exception as error:  # noqa: BLE001 - whatever ends a trial becomes its row
            tune.report(_trial_metrics(epoch_number, config.epochs, max(best, 0.0), started, failure=failure(error)))


def _trial_metrics(epoch: int, epochs: int, best: float, started: float, **more: Any) -> dict[str, Any]:
    """The metrics that every report of a trial carries: Tune ends the whole search where one is missing."""
    return {
        "epoch": epoch,
        "epochs": epochs,
        "best_val_accuracy": best,
        "started_at": started,
        "train_seconds": time.time() - started,
        **more,
    }


def _report_epoch(epoch: Epoch, best: float, epochs: int, started: float, folder: str) -> None:
    names = [f.name for f in dataclasses.fields(EpochRecord) if f.name not in ("trial_id", "epoch")]
    row = {name: getattr(epoch, name) for name in names}
    metrics = _trial_metrics(epoch.number, epochs, best, started, row=row, parameters=count_parameters(epoch.model))
    tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(folder))


def train_teacher(sample: dict[str, Any], task: TrainTask) -> None:
    """One trial of the teacher search."""
    _train_trial(sample, task)


def train_plain(sample: dict[str, Any], task: TrainTask) -> None:
    """One trial of a student's control: labels alone."""
    _train_trial(sample, task)


def train_distill(sample: dict[str, Any], task: TrainTask) -> None:
    """One trial of the distillation search."""
    _train_trial(sample, task)


TRAINABLES: dict[Arm, Callable[[dict[str, Any], TrainTask], None]] = {
    "teacher": train_teacher,
    "plain": train_plain,
    "distill": train_distill,
}


# --- accuracy of a precision and layout -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureTask:
    """What the evaluations, builds and measurements of one grid have in common."""

    run: str
    device: str
    threads: int
    latency: LatencyConfig
    compile_cache: str
    """Folder for the compiler's caches."""
    cold_builds: bool
    image_size: int
    data: ray.ObjectRef


def evaluate_variant(config: dict[str, Any], task: MeasureTask) -> None:
    """Read the whole test set with one model, precision and layout, at a large batch."""
    cell = config["cell"]
    subject, variant = Subject(**cell["subject"]), Variant(**cell["variant"])
    try:
        record = evaluation(subject, variant, ray.get(task.data), task.device, task.threads)
    except Exception as error:  # noqa: BLE001 - whatever ends an evaluation becomes its row
        status = "unsupported" if isinstance(error, UnsupportedError) else "failed"
        record = EvaluationRecord(trial_id=subject.trial_id, variant=variant.name, status=status, error=failure(error))
    tune.report({"record": to_row(record)})


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


def make_runnable(subject: Subject, variant: Variant, device: str) -> Runnable:
    """The trained model as the variant runs it."""
    model = load_model(subject.model, subject.classes, subject.checkpoint)
    return RUNTIMES[variant.runtime](model, variant, device)


# --- compilation ------------------------------------------------------------------------------------------------


def use_compile_cache(task: MeasureTask, model: str, variant: Variant) -> Path:
    """Point inductor at the cache of this model and variant; returns its folder.

    A cache of its own makes a compile time cold; sharing it between the layouts of a precision makes builds faster.
    """
    import torch._inductor.config as inductor

    shared = variant if task.cold_builds else dataclasses.replace(variant, channels_last=False)
    folder = Path(task.compile_cache, f"{model}-{shared.name}")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    # builds run beside each other, one a core: a pool of compilers in each would only wait
    inductor.compile_threads = 1
    return folder


def measurement_threads(task: MeasureTask) -> int:
    """CPU threads of a measurement."""
    return task.latency.threads or usable_cpus()


def build_variant(config: dict[str, Any], task: MeasureTask) -> None:
    """Compile one architecture for one variant at batch 1, into the cache that the measurement will use."""
    cell = config["cell"]
    model, variant = cell["model"], Variant(**cell["variant"])
    folder = use_compile_cache(task, model, variant)
    cold = not folder.exists()
    try:
        # inductor writes the thread count into its kernels: another one than the measurement's would miss the cache
        torch.set_num_threads(measurement_threads(task))
        runnable = RUNTIMES[variant.runtime](build_model(model, cell["classes"]), variant, task.device)
        image = runnable.prepare_input(torch.randn(1, 3, task.image_size, task.image_size).to(task.device))
        started = time.perf_counter()
        with runnable.scope():
            runnable.call(image)
            runnable.synchronize()
        record = BuildRecord(
            model=model,
            variant=variant.name,
            status="ok",
            compile_seconds=time.perf_counter() - started,
            compile_cold=cold,
        )
    except Exception as error:  # noqa: BLE001 - whatever ends a build becomes its row
        status = "unsupported" if isinstance(error, UnsupportedError) else "failed"
        record = BuildRecord(model=model, variant=variant.name, status=status, error=failure(error))
    tune.report({"record": to_row(record)})


# --- latency ----------------------------------------------------------------------------------------------------


def measure_latency(config: dict[str, Any], task: MeasureTask) -> None:
    """Measure one variant at batch 1, alone on the node: the trial holds all its CPUs or its GPU, and the slot."""
    cell = config["cell"]
    subject, variant = Subject(**cell["subject"]), Variant(**cell["variant"])
    skeleton = latency_skeleton(task.run, subject, variant, cell["stage"], cell["repeat"], task.device)
    try:
        record = measured(skeleton, subject, variant, task, ray.get(task.data))
    except Exception as error:  # noqa: BLE001 - whatever ends a measurement becomes its row
        status = "unsupported" if isinstance(error, UnsupportedError) else "failed"
        record = dataclasses.replace(skeleton, status=status, error=failure(error))
    tune.report({"record": to_row(record)})


def latency_skeleton(
    run: str, subject: Subject, variant: Variant, stage: str, repeat: int, device: str
) -> LatencyRecord:
    """The row of a variant before anything is measured."""
    return LatencyRecord(
        run=run,
        trial_id=subject.trial_id,
        model=subject.model,
        arm=subject.arm,
        stage=stage,  # pyright: ignore[reportArgumentType]
        repeat=repeat,
        checkpoint_sha256=subject.checkpoint_sha256,
        variant=variant.name,
        **dataclasses.asdict(variant),
        status="failed",
        checkpoint_mb=Path(subject.checkpoint).stat().st_size / 1e6,
        environment=environment(device),
    )


def measured(
    skeleton: LatencyRecord, subject: Subject, variant: Variant, task: MeasureTask, data: ImageData
) -> LatencyRecord:
    """The row with its measurements, accuracy aside."""
    threads = measurement_threads(task)
    torch.set_num_threads(threads)
    use_compile_cache(task, subject.model, variant)
    started = time.perf_counter()
    model = load_model(subject.model, subject.classes, subject.checkpoint)
    parameters = count_parameters(model)
    runnable = RUNTIMES[variant.runtime](model, variant, task.device)
    batcher = Batcher(data.test_images, data.mean, data.std, task.device)
    images = [runnable.prepare_input(batcher.plain(i, i + 1)) for i in range(min(BATCH1_IMAGES, len(data.test_images)))]
    with runnable.scope():
        runnable.call(images[0])
        runnable.synchronize()
        load_seconds = time.perf_counter() - started
        answers = np.array([int(runnable.call(image).argmax()) for image in images])
        load = ForeignLoad()
        samples = measure(lambda: runnable.call(images[0]), task.latency, synchronize=runnable.synchronize)
        foreign = load.cores()
    agreement = _batch1_agreement(answers, subject, variant, task, data)
    if agreement < BATCH1_MINIMUM_AGREEMENT:
        raise RuntimeError(f"at batch 1 only {agreement:.1%} of {len(answers)} images get the class of the large batch")
    return dataclasses.replace(
        skeleton,
        status="ok",
        batch1_agreement=agreement,
        samples_ms=samples,
        **statistics(samples),
        load_seconds=load_seconds,
        artifact_mb=runnable.weights_mb,
        parameters=parameters,
        contended=foreign > CONTENDED_CORES,
        foreign_cpu=foreign,
        threads=threads,
    )


def _batch1_agreement(
    answers: np.ndarray, subject: Subject, variant: Variant, task: MeasureTask, data: ImageData
) -> float:
    """Share of images that get the same class at batch 1 and at a large batch, not compiled."""
    runnable = make_runnable(subject, variant.eager, task.device)
    batcher = Batcher(data.test_images, data.mean, data.std, task.device)
    with runnable.scope():
        expected = runnable.call(runnable.prepare_input(batcher.plain(0, len(answers)))).argmax(1).cpu().numpy()
    return float((expected == answers).mean())
