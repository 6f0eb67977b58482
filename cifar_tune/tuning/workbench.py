"""What the `Workbench` on the measuring node does for a cell of a grid: build, read the test set, measure, ship.

What it answers passes through the worker of a trial, which must start in seconds: it is made of light modules' types.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray

from cifar_tune.data.datasets import ImageData
from cifar_tune.errors import failed_status, failure
from cifar_tune.measuring.build import compiled, evaluation, exported
from cifar_tune.measuring.measurement import BATCH1_IMAGES, latency_skeleton, measured
from cifar_tune.measuring.processes import environment_of_fresh, in_fresh_process, prepare_fresh_processes
from cifar_tune.measuring.race import raced
from cifar_tune.measuring.target import (
    Cell,
    GridSettings,
    MeasurementCell,
    PreparationCell,
    RaceCell,
    load_target,
    make_source,
)
from cifar_tune.records import BuildRecord, EvaluationRecord, LatencyRecord
from cifar_tune.runs.locks import exclusive_device
from cifar_tune.runtimes.quantisation import calibration_data
from cifar_tune.shipping.candidate import CheckImages, make_candidate
from cifar_tune.shipping.shipment import Shipment, Verification

Preparation = tuple[BuildRecord | None, EvaluationRecord | None]
"""What was done with a cell before it is measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareTask:
    """The builds and evaluations of one step."""

    cells: tuple[PreparationCell, ...]
    settings: GridSettings
    data: ray.ObjectRef


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureTask:
    """The measurements of one step."""

    cells: tuple[MeasurementCell, ...]
    settings: GridSettings
    data: ray.ObjectRef


@dataclass(frozen=True, kw_only=True, slots=True)
class RaceTask:
    """The blocks of a race or of a confirmation."""

    cells: tuple[RaceCell, ...]
    settings: GridSettings
    data: ray.ObjectRef


@dataclass(frozen=True, kw_only=True, slots=True)
class ShipTask:
    """What the candidate's folder is made of."""

    cells: tuple[Cell, ...]
    """The candidate."""
    settings: GridSettings
    data: ray.ObjectRef
    shipment: Shipment
    folder: Path
    """Absolute."""
    fp32: np.ndarray
    """Classes that FP32 eager of the same weights gives the test images: int (N,)."""


def start(device: str, *, compiles: bool) -> None:
    """Start the server of fresh processes, before anything needs one."""
    prepare_fresh_processes(compiles=compiles)
    with exclusive_device(device, wait=True, purpose="(start)"):  # not beside what another study measures
        in_fresh_process(int)  # the first starts their server


def prepare(cell: PreparationCell, task: PrepareTask, gpus: str | None) -> Preparation:
    """Compile or export a variant, then read the whole test set with it, as far as the cell asks for it.

    Args:
        gpus: CUDA_VISIBLE_DEVICES of the trial.
    """
    build = read = None
    with environment_of_fresh(CUDA_VISIBLE_DEVICES=gpus):
        if cell.build:
            build = _build(cell, task)
        if cell.evaluate and (build is None or build.status == "ok"):
            read = _evaluation(cell, task)
    return build, read


def measure(cell: MeasurementCell, task: MeasureTask, gpus: str | None) -> LatencyRecord:
    """Measure one variant at batch 1.

    Beyond Ray's resources it holds the machine's lock of the device, so that two studies take turns.
    """
    try:
        with _exclusive(task.settings, gpus):
            started = time.perf_counter()
            record = measured(cell, task.settings, _first_tests(task.data))
            return dataclasses.replace(record, measure_seconds=time.perf_counter() - started)
    except Exception as error:  # noqa: BLE001 - whatever ends a measurement becomes its row
        return _unmeasured(latency_skeleton(cell, task.settings), error)


def race(cell: RaceCell, task: RaceTask, gpus: str | None) -> list[LatencyRecord]:
    """Measure one block of a race: a row for each contender, in their order. It holds what `measure` holds."""
    try:
        with _exclusive(task.settings, gpus):
            started = time.perf_counter()
            records = raced(cell, task.settings, _first_tests(task.data))
            seconds = (time.perf_counter() - started) / len(records)
            return [dataclasses.replace(record, measure_seconds=seconds) for record in records]
    except Exception as error:  # noqa: BLE001 - whatever ends a block becomes its rows
        return [_unmeasured(latency_skeleton(single, task.settings), error) for single in cell.singles]


def _unmeasured(skeleton: LatencyRecord, error: Exception) -> LatencyRecord:
    return dataclasses.replace(skeleton, status=failed_status(error), error=failure(error))


def _first_tests(reference: ray.ObjectRef) -> ImageData:
    """What a measurement needs of the data."""
    data: ImageData = ray.get(reference)
    tests = data.test_images[:BATCH1_IMAGES]
    return dataclasses.replace(data, train_images=data.train_images[:0], test_images=tests)


@contextlib.contextmanager
def _exclusive(settings: GridSettings, gpus: str | None) -> Iterator[None]:
    """Hold the device; DeviceTakenError where it is taken and the user asked not to wait."""
    waits = not settings.latency.strict
    with (
        environment_of_fresh(CUDA_VISIBLE_DEVICES=gpus),
        exclusive_device(settings.device, wait=waits, purpose=f"(run {settings.run})"),
    ):
        yield


def ship(cell: Cell, task: ShipTask, gpus: str | None) -> Verification:
    """Make the candidate's folder, and check it."""
    settings, data = task.settings, ray.get(task.data)
    images = CheckImages(pixels=data.test_images, labels=data.test_labels, fp32=task.fp32)
    purpose = f"(candidate of run {settings.run})"
    with (
        environment_of_fresh(CUDA_VISIBLE_DEVICES=gpus),
        exclusive_device(settings.device, wait=True, purpose=purpose),
    ):
        calibration = calibration_data(data)
        return in_fresh_process(_shipped, cell, task.shipment, settings, calibration, images, task.folder)


def _shipped(
    cell: Cell, shipment: Shipment, settings: GridSettings, calibration: ImageData, images: CheckImages, folder: Path
) -> Verification:
    source = make_source(load_target(cell.target), cell, settings, settings.measurement_threads, calibration)
    return make_candidate(folder, shipment, source, images)


def _build(cell: PreparationCell, task: PrepareTask) -> BuildRecord:
    variant = cell.variant
    try:
        if variant.runtime == "torch":
            return in_fresh_process(compiled, cell, task.settings)
        calibration = calibration_data(ray.get(task.data)) if variant.precision == "int8" else None
        return in_fresh_process(exported, cell, task.settings, calibration)
    except Exception as error:  # noqa: BLE001 - whatever ends a build becomes its row
        return BuildRecord(
            model=cell.target.model,
            trial_id=None if variant.runtime == "torch" else cell.target.trial_id,
            variant=variant.name,
            status=failed_status(error),
            error=failure(error),
        )


def _evaluation(cell: PreparationCell, task: PrepareTask) -> EvaluationRecord:
    data: ImageData = ray.get(task.data)
    tests = dataclasses.replace(data, train_images=data.train_images[:0])
    try:
        return in_fresh_process(evaluation, cell, task.settings, tests)
    except Exception as error:  # noqa: BLE001 - whatever ends an evaluation becomes its row
        return EvaluationRecord(
            trial_id=cell.target.trial_id, variant=cell.variant.name, status=failed_status(error), error=failure(error)
        )
