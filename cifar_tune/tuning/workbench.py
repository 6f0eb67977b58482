"""What the `Workbench` on the measuring node does for a cell of the grid: build, read the test set, measure."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from cifar_tune.config import Variant
from cifar_tune.data.datasets import ImageData
from cifar_tune.errors import failed_status, failure
from cifar_tune.measuring.build import compiled, evaluation, exported
from cifar_tune.measuring.measurement import BATCH1_IMAGES, latency_skeleton, measured
from cifar_tune.measuring.processes import environment_of_fresh, in_fresh_process, prepare_fresh_processes
from cifar_tune.measuring.target import GridSettings, Target, load_target, make_source
from cifar_tune.records import BuildRecord, EvaluationRecord
from cifar_tune.runs.locks import exclusive_device
from cifar_tune.runtimes.quantisation import calibration_data
from cifar_tune.shipping.candidate import Shipment, Verification, make_candidate
from cifar_tune.store import to_row


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureTask:
    """What the evaluations, builds and measurements of one grid have in common."""

    settings: GridSettings
    data: ray.ObjectRef


@dataclass(frozen=True, kw_only=True, slots=True)
class ShipTask:
    """What the candidate's folder is made of."""

    shipment: Shipment
    target: Target
    settings: GridSettings
    folder: Path
    """Absolute."""
    fp32: np.ndarray
    """Classes that FP32 eager of the same weights gives the test images: int (N,)."""
    data: ray.ObjectRef


def start(device: str, *, compiles: bool) -> None:
    """Start the server of fresh processes, before anything needs one."""
    prepare_fresh_processes(compiles=compiles)
    with exclusive_device(device, wait=True, purpose="(start)"):  # not beside what another study measures
        in_fresh_process(int)  # the first starts their server


def prepare(cell: dict[str, Any], task: MeasureTask, gpus: str | None) -> dict[str, Any]:
    """Compile or export a variant, and read the whole test set with it: records as rows.

    The cell says what is due: `build`, `evaluate`, or both, in this order.

    Args:
        gpus: CUDA_VISIBLE_DEVICES of the trial.
    """
    settings, target, variant = task.settings, Target(**cell["target"]), Variant(**cell["variant"])
    rows: dict[str, Any] = {}
    with environment_of_fresh(CUDA_VISIBLE_DEVICES=gpus):
        if cell["build"]:
            calibration = calibration_data(ray.get(task.data)) if variant.precision == "int8" else None
            rows["build"] = to_row(_build(target, variant, settings, calibration))
        if cell["evaluate"] and rows.get("build", {"status": "ok"})["status"] == "ok":
            rows["evaluation"] = to_row(_evaluation(target, variant, settings, ray.get(task.data)))
    return rows


def measure(cell: dict[str, Any], task: MeasureTask, gpus: str | None) -> dict[str, Any]:
    """Measure one variant at batch 1: a LatencyRecord as a row.

    Beyond Ray's resources it holds the machine's lock of the device, so that two studies take turns.
    """
    settings, target, variant = task.settings, Target(**cell["target"]), Variant(**cell["variant"])
    skeleton = latency_skeleton(settings, target, variant, cell["stage"], cell["repeat"])
    data: ImageData = ray.get(task.data)
    tests = data.test_images[:BATCH1_IMAGES]
    first = dataclasses.replace(data, train_images=data.train_images[:0], test_images=tests)
    waits = not settings.latency.strict
    try:
        with (
            environment_of_fresh(CUDA_VISIBLE_DEVICES=gpus),
            exclusive_device(settings.device, wait=waits, purpose=f"(run {settings.run})"),
        ):
            started = time.perf_counter()
            record = measured(skeleton, target, variant, settings, first, cell["fallback"])
            record = dataclasses.replace(record, measure_seconds=time.perf_counter() - started)
    except Exception as error:  # noqa: BLE001 - whatever ends a measurement becomes its row
        record = dataclasses.replace(skeleton, status=failed_status(error), error=failure(error))
    return to_row(record)


def ship(_: dict[str, Any], task: ShipTask, gpus: str | None) -> dict[str, Any]:
    """Make the candidate's folder: the Verification as a row."""
    settings, data = task.settings, ray.get(task.data)
    given = (task.shipment, task.target, settings, task.folder, task.fp32)
    purpose = f"(candidate of run {settings.run})"
    with (
        environment_of_fresh(CUDA_VISIBLE_DEVICES=gpus),
        exclusive_device(settings.device, wait=True, purpose=purpose),
    ):
        found = in_fresh_process(_shipped, *given, calibration_data(data), data.test_images, data.test_labels)
    return dataclasses.asdict(found)


def _shipped(
    shipment: Shipment,
    target: Target,
    settings: GridSettings,
    folder: Path,
    fp32: np.ndarray,
    calibration: ImageData,
    pixels: np.ndarray,
    labels: np.ndarray,
) -> Verification:
    variant, threads = shipment.row.measured_variant, settings.measurement_threads
    source = make_source(load_target(target), target, variant, settings, threads, calibration)
    return make_candidate(folder, shipment, source, pixels, labels, fp32)


def _build(target: Target, variant: Variant, settings: GridSettings, calibration: ImageData | None) -> BuildRecord:
    try:
        if variant.runtime == "torch":
            return in_fresh_process(compiled, target, variant, settings)
        return in_fresh_process(exported, target, variant, settings, calibration)
    except Exception as error:  # noqa: BLE001 - whatever ends a build becomes its row
        return BuildRecord(
            model=target.model,
            trial_id=None if variant.runtime == "torch" else target.trial_id,
            variant=variant.name,
            status=failed_status(error),
            error=failure(error),
        )


def _evaluation(target: Target, variant: Variant, settings: GridSettings, data: ImageData) -> EvaluationRecord:
    tests = dataclasses.replace(data, train_images=data.train_images[:0])
    try:
        return in_fresh_process(evaluation, target, variant, tests, settings)
    except Exception as error:  # noqa: BLE001 - whatever ends an evaluation becomes its row
        return EvaluationRecord(
            trial_id=target.trial_id, variant=variant.name, status=failed_status(error), error=failure(error)
        )
