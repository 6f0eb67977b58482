"""The variant grid as a step of a run: builds and accuracies at the same time, then one measurement after another."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cifar_tune.config import REFERENCE, Variant
from cifar_tune.errors import DeviceTakenError, StudyFailedError
from cifar_tune.measuring.measurement import latency_skeleton
from cifar_tune.measuring.target import Cell, GridSettings, MeasurementCell, PreparationCell, Target, artifact_folder
from cifar_tune.records import BuildRecord, EvaluationRecord, LatencyRecord
from cifar_tune.runs.ledger import latency_key
from cifar_tune.runs.locks import exclusive_device
from cifar_tune.runtimes import RUNTIMES
from cifar_tune.store import user_cache
from cifar_tune.tuning.metrics import row_measured
from cifar_tune.tuning.proxies import measure_latency, prepare_variant
from cifar_tune.tuning.slots import Slots, exclusive_bundle, preparation_slots
from cifar_tune.tuning.stages import CellStep, run_cells
from cifar_tune.tuning.workbench import MeasureTask, Preparation, PrepareTask
from sweeps.steps.job import Job
from sweeps.steps.variants import study_variants


def measure_grid(work: Job, targets: Sequence[Target], also_read: Sequence[Target] = ()) -> None:
    """All variants of all targets: builds and accuracies at the same time, then one latency after another.

    Args:
        also_read: models that read the test set as FP32 eager, and are not measured.
    """
    variants = study_variants(work.study, work.device)
    # models in turn, so that the references of each lie all over the step: a drift of the machine meets all models
    cells = [MeasurementCell(target=target, variant=variant) for variant in variants for target in targets]
    measure_cells(work, cells, "latency", also_read=also_read)


def grid_settings(work: Job, slots: Slots | None = None) -> GridSettings:
    """How cells are evaluated, built and measured; `slots`: of evaluations and builds."""
    return GridSettings(
        run=work.run.name,
        device=work.device,
        threads=1 if slots is None else slots.cpus,
        latency=work.study.latency,
        race=work.study.race,
        cache=str(build_cache(work.run)),
        input_shape=work.input_shape,
        environment=work.info.measuring.environment,
    )


def build_cache(run: Path) -> Path:
    """Compiled code and artifacts of a run: outside of it, since they run, and a run may come from elsewhere."""
    return user_cache() / "builds" / f"{run.name}-{hashlib.sha256(str(run.absolute()).encode()).hexdigest()[:12]}"


def forget_builds(run: Path) -> None:
    """Remove the compiler caches and artifacts of a finished run."""
    shutil.rmtree(build_cache(run), ignore_errors=True)


# --- preparation ------------------------------------------------------------------------------------------------


class Preparations:
    """What the ledger holds of builds and evaluations."""

    def __init__(self, work: Job) -> None:
        self._settings = grid_settings(work)
        self._builds = {(r.trial_id or r.model, r.variant): r for r in work.ledger.read(BuildRecord)}
        self._evaluations = {(r.trial_id, r.variant): r for r in work.ledger.read(EvaluationRecord)}

    def build(self, cell: Cell) -> BuildRecord | None:
        """The build of a cell; None where it needs none, or has none yet. A lost artifact is none."""
        target, variant = cell.target, cell.variant
        if not needs_build(variant):
            return None
        of = target.model if variant.runtime == "torch" else target.trial_id
        record = self._builds.get((of, variant.built.name))
        lost = RUNTIMES[variant.runtime].export and not artifact_folder(self._settings, cell).is_dir()
        return None if record is not None and record.status == "ok" and lost else record

    def evaluation(self, cell: Cell) -> EvaluationRecord | None:
        """The reading of the test set that counts for a cell."""
        return self._evaluations.get((cell.target.trial_id, cell.variant.evaluated.name))

    def reference(self, target: Target) -> EvaluationRecord | None:
        """The reading of the test set in FP32 eager."""
        return self.evaluation(Cell(target=target, variant=REFERENCE))

    def obstacle(self, cell: Cell) -> BuildRecord | EvaluationRecord | None:
        """The preparation of a cell that did not succeed, if any."""
        records = (self.build(cell), self.evaluation(cell))
        return next((r for r in records if r is not None and r.status != "ok"), None)

    def beside(self, build: BuildRecord) -> int | None:
        """Most builds that ran at one time beside this one."""
        spans = [
            (b.started_at, b.started_at + b.compile_seconds)
            for b in self._builds.values()
            if b is not build and b.started_at is not None and b.compile_seconds is not None
        ]
        if build.started_at is None or build.compile_seconds is None:
            return None
        end = build.started_at + build.compile_seconds
        moments = [build.started_at, *(start for start, _ in spans if build.started_at <= start < end)]
        return max(sum(start <= moment < stop for start, stop in spans) for moment in moments)


def needs_build(variant: Variant) -> bool:
    """Whether a variant is compiled or exported before it is measured."""
    return variant.compile != "none" or RUNTIMES[variant.runtime].export is not None


def prepare_variants(work: Job, wanted: Sequence[Cell], *, evaluate: bool) -> None:
    """Compile and export, and read the test set, as many at a time as there are slots, before anything is measured."""
    cells = preparation_cells(work, wanted, evaluate=evaluate and work.labelled)

    def keep(cell: PreparationCell, prepared: Preparation | None, error: str | None) -> str:
        build, evaluation = prepared or _died(cell, error)
        shown = f"{cell.target.model} {cell.variant.name}"
        if build is not None:
            work.ledger.put_build(build)
            shown += f" {build.compile_seconds:.0f} s" if build.compile_seconds is not None else f" {build.status}"
        if evaluation is not None:
            work.ledger.put_evaluation(evaluation)
        return shown

    slots = preparation_slots(work.study, work.info, work.device, max(1, len(cells)))
    bundle = {**slots.bundle, **work.info.measuring.touch}
    step = CellStep(title="prepare variants", trainable=prepare_variant, bundle=bundle)
    task = PrepareTask(cells=tuple(cells), settings=grid_settings(work, slots), data=work.data)
    run_cells(work, step, task, keep)


def preparation_cells(work: Job, wanted: Sequence[Cell], *, evaluate: bool) -> list[PreparationCell]:
    """What is still to be built or evaluated, each once; the longest work, compilation, first."""
    done = Preparations(work)
    compiles: dict[tuple[str, str], PreparationCell] = {}
    exports: list[PreparationCell] = []
    evaluations: dict[tuple[str, str], PreparationCell] = {}
    for cell in dict.fromkeys(Cell(target=c.target, variant=c.variant.built) for c in wanted):
        target, variant = cell.target, cell.variant
        build, evaluation = done.build(cell), done.evaluation(cell)
        # what failed before is tried again: a run is resumed when its cause has been mended
        built = not needs_build(variant) or (build is not None and build.status != "failed")
        if variant.compile != "none" and not built:  # one build serves all weights of an architecture
            due = PreparationCell(target=target, variant=variant, build=True, evaluate=False)
            compiles.setdefault((target.model, variant.name), due)
        read = not evaluate or (evaluation is not None and evaluation.status != "failed")
        if RUNTIMES[variant.runtime].export is not None and not (built and read):
            exports.append(PreparationCell(target=target, variant=variant, build=not built, evaluate=not read))
        elif not read:
            due = PreparationCell(target=target, variant=variant.evaluated, build=False, evaluate=True)
            evaluations.setdefault((target.trial_id, variant.evaluated.name), due)
    return [*compiles.values(), *exports, *evaluations.values()]


def _died(cell: PreparationCell, error: str | None) -> Preparation:
    """The records of a preparation whose worker died."""
    target, variant = cell.target, cell.variant.name
    built_of = None if cell.variant.runtime == "torch" else target.trial_id
    build = BuildRecord(model=target.model, trial_id=built_of, variant=variant, status="failed", error=error)
    read = EvaluationRecord(trial_id=target.trial_id, variant=variant, status="failed", error=error)
    return build if cell.build else None, read if cell.evaluate else None


# --- measurement ------------------------------------------------------------------------------------------------


def measure_cells(
    work: Job,
    cells: Sequence[MeasurementCell],
    name: str,
    *,
    evaluate: bool = True,
    also_read: Sequence[Target] = (),
) -> None:
    """Prepare, then measure what the ledger does not hold, one trial a node at a time; every cell ends as a row."""
    done = work.ledger.latency_keys(work.study.latency.protocol)
    due = [cell for cell in cells if _key(cell) not in done]
    also = [Cell(target=target, variant=REFERENCE) for target in also_read]
    prepare_variants(work, [*due, *also], evaluate=evaluate)
    prepared = Preparations(work)
    missing = _measurable(work, due, prepared)
    _announce_turn(work)

    def keep(cell: MeasurementCell, measured: LatencyRecord | None, error: str | None) -> str:
        record = with_build(with_accuracy(measured or _dead(work, cell, error), cell, prepared), cell, prepared)
        work.ledger.put_latency(record)
        row_measured(record)
        shown = f"{record.p50_ms:.2f} ms" if record.p50_ms is not None else record.status
        return f"{record.model} {record.variant} {shown}"

    step = CellStep(title=name, trainable=measure_latency, bundle=exclusive_bundle(work.info, work.device))
    task = MeasureTask(cells=tuple(missing), settings=grid_settings(work), data=work.data)
    run_cells(work, step, task, keep)


def _measurable(work: Job, due: Sequence[MeasurementCell], prepared: Preparations) -> list[MeasurementCell]:
    """The cells that can be measured, or their stand-ins; what could not be prepared needs no process to say so."""
    measurable: list[MeasurementCell] = []
    for cell in due:
        obstacle = prepared.obstacle(cell)
        if obstacle is None:
            measurable.append(cell)
        elif obstacle.status == "failed" and cell.variant.compile != "none":  # R12
            measurable.append(dataclasses.replace(cell, fallback=f"torch.compile failed ({obstacle.error})"))
        else:
            row = dataclasses.replace(_dead(work, cell, obstacle.error), status=obstacle.status)
            work.ledger.put_latency(row)
            row_measured(row)
    return measurable


def _announce_turn(work: Job) -> None:
    """Say whose turn it is where another study measures; with --strict, stop.

    Raises:
        StudyFailedError: the device is taken, and the user asked not to wait.
    """
    try:
        with exclusive_device(work.device, wait=False):
            return
    except DeviceTakenError as taken:
        if work.study.latency.strict:
            raise StudyFailedError(f"{taken}; without --strict this run would wait for its turn") from taken
        work.view.say(f"Waiting for a turn: {taken}")


def _key(cell: MeasurementCell) -> str:
    return latency_key(cell.stage, cell.target.checkpoint_sha256, cell.variant.name, cell.block)


def _dead(work: Job, cell: MeasurementCell, error: str | None) -> LatencyRecord:
    """The row of a cell that was not measured."""
    return dataclasses.replace(latency_skeleton(cell, grid_settings(work)), error=error)


def with_accuracy(record: LatencyRecord, cell: Cell, prepared: Preparations) -> LatencyRecord:
    """The row with the accuracy that its runtime, precision, layout and weights have over the test set."""
    own, reference = prepared.evaluation(cell), prepared.reference(cell.target)
    if record.status not in ("ok", "fallback") or own is None:
        return record
    quality = ("test_accuracy", "balanced_accuracy", "auroc", "precision_score", "recall_score")
    read = {name: getattr(own, name) for name in (*quality, "correct", "compressed_mb")}
    return dataclasses.replace(record, **read, agreement=_agreement(own, reference))


def _agreement(own: EvaluationRecord, reference: EvaluationRecord | None) -> float | None:
    if reference is None or own.predictions is None or reference.predictions is None:
        return None
    same = np.frombuffer(own.predictions, "<u2") == np.frombuffer(reference.predictions, "<u2")
    return float(same.mean())


def with_build(record: LatencyRecord, cell: Cell, prepared: Preparations) -> LatencyRecord:
    """The row with the time that its compilation or export took."""
    build = prepared.build(cell)
    if build is None:
        return record
    return dataclasses.replace(
        record,
        compile_seconds=build.compile_seconds,
        compile_cold=build.compile_cold,
        compile_beside=prepared.beside(build),
    )
