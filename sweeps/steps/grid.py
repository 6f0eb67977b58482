"""The variant grid as a stage of a run: what can be prepared beside each other, then each measurement alone."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cifar_tune.config import REFERENCE, Variant, grid_variants
from cifar_tune.errors import DeviceTakenError, StudyFailedError
from cifar_tune.measuring.measurement import latency_skeleton
from cifar_tune.measuring.target import GridSettings, Target, artifact_folder
from cifar_tune.records import BuildRecord, EvaluationRecord, LatencyRecord
from cifar_tune.runs.ledger import latency_key
from cifar_tune.runs.locks import exclusive_device
from cifar_tune.runtimes import RUNTIMES
from cifar_tune.store import from_row, user_cache
from cifar_tune.study import StudyConfig
from cifar_tune.tuning.metrics import row_measured
from cifar_tune.tuning.proxies import measure_latency, prepare_variant
from cifar_tune.tuning.slots import Slots, exclusive_bundle, preparation_slots
from cifar_tune.tuning.stages import run_cells
from cifar_tune.tuning.workbench import MeasureTask
from sweeps.steps.job import Job

Cell = dict[str, Any]


def study_variants(study: StudyConfig, device: str) -> list[Variant]:
    """The grid, FP32 eager first, then what the chosen runtimes add to it."""
    chosen = [RUNTIMES[name] for name in (RUNTIMES if study.runtimes is None else study.runtimes)]
    added = [v for runtime in chosen for v in (*runtime.variants, *(runtime.cuda_variants if device == "cuda" else ()))]
    zeroed = [Variant(zeroed=share, zeroed_by_layer=each) for share in study.magnitude for each in (False, True)]
    variants = dict.fromkeys([*grid_variants(), *added, *zeroed])
    return [v for v in variants if v.compile == "none" or study.compiled_variants]


def measure_grid(work: Job, targets: Sequence[Target], also_read: Sequence[Target] = ()) -> None:
    """All variants of all targets: builds and accuracy beside each other, then latency, each alone.

    Args:
        also_read: models that read the test set as FP32 eager, and are not measured.
    """
    variants = study_variants(work.study, work.device)
    # models in turn, so that the references of each lie all over the stage, and a drift of the machine in none alone
    cells = [cell_of(s, v) for v in variants for s in targets]
    measure_cells(work, cells, "latency", also_read=also_read)


def grid_settings(work: Job, slots: Slots | None = None) -> GridSettings:
    """How cells are evaluated, built and measured; `slots`: of evaluations and builds."""
    return GridSettings(
        run=work.run.name,
        device=work.device,
        threads=1 if slots is None else slots.cpus,
        latency=work.study.latency,
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

    def build(self, target: Target, variant: Variant) -> BuildRecord | None:
        """The build of a variant; None where it needs none, or has none yet. A lost artifact is none."""
        if not needs_build(variant):
            return None
        of = target.model if variant.runtime == "torch" else target.trial_id
        record = self._builds.get((of, variant.built.name))
        lost = RUNTIMES[variant.runtime].export and not artifact_folder(self._settings, target, variant).is_dir()
        return None if record is not None and record.status == "ok" and lost else record

    def evaluation(self, target: Target, variant: Variant) -> EvaluationRecord | None:
        """The reading of the test set that counts for a variant."""
        return self._evaluations.get((target.trial_id, variant.evaluated.name))

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


def prepare_variants(work: Job, wanted: Sequence[tuple[Target, Variant]], *, evaluate: bool) -> None:
    """Compile and export, and read the test set, as many at a time as there are slots, before anything is measured."""
    cells = preparation_cells(work, wanted, evaluate=evaluate and work.labelled)

    def keep(cell: Cell, row: dict[str, Any] | None, error: str | None) -> str:
        target, variant = Target(**cell["target"]), Variant(**cell["variant"])
        if row is None:
            row = _died(target, variant, cell, error)
        shown = f"{target.model} {variant.name}"
        if "build" in row:
            build = from_row(BuildRecord, row["build"])
            work.ledger.put_build(build)
            shown += f" {build.compile_seconds:.0f} s" if build.compile_seconds is not None else f" {build.status}"
        if "evaluation" in row:
            work.ledger.put_evaluation(from_row(EvaluationRecord, row["evaluation"]))
        return shown

    slots = preparation_slots(work.study, work.info, work.device, max(1, len(cells)))
    run_cells(
        prepare_variant,
        work.workbench,
        MeasureTask(settings=grid_settings(work, slots), data=work.data),
        cells,
        {**slots.bundle, **work.info.measuring.touch},
        work.run,
        "prepare variants",
        work.view,
        keep,
        node=work.info.measuring,
        verbose=work.study.verbose,
    )


def preparation_cells(work: Job, wanted: Sequence[tuple[Target, Variant]], *, evaluate: bool) -> list[Cell]:
    """What is still to be built or evaluated, each once; the longest work, compilation, first."""
    done = Preparations(work)
    compiles: dict[tuple[str, str], Cell] = {}
    exports: list[Cell] = []
    evaluations: dict[tuple[str, str], Cell] = {}
    for target, variant in dict.fromkeys((target, variant.built) for target, variant in wanted):
        build, evaluation = done.build(target, variant), done.evaluation(target, variant)
        # what failed before is tried again: a run is resumed when its cause has been mended
        built = not needs_build(variant) or (build is not None and build.status != "failed")
        if variant.compile != "none" and not built:  # one build serves all weights of an architecture
            key = (target.model, variant.name)
            compiles.setdefault(key, cell_of(target, variant, build=True, evaluate=False))
        read = not evaluate or (evaluation is not None and evaluation.status != "failed")
        if RUNTIMES[variant.runtime].export is not None and not (built and read):
            exports.append(cell_of(target, variant, build=not built, evaluate=not read))
        elif not read:
            key = (target.trial_id, variant.evaluated.name)
            evaluations.setdefault(key, cell_of(target, variant.evaluated, build=False, evaluate=True))
    return [*compiles.values(), *exports, *evaluations.values()]


def _died(target: Target, variant: Variant, cell: Cell, error: str | None) -> dict[str, Any]:
    """The records of a preparation whose worker died."""
    row: dict[str, Any] = {}
    if cell["build"]:
        trial_id = None if variant.runtime == "torch" else target.trial_id
        row["build"] = dataclasses.asdict(
            BuildRecord(model=target.model, trial_id=trial_id, variant=variant.name, status="failed", error=error)
        )
    if cell["evaluate"]:
        row["evaluation"] = dataclasses.asdict(
            EvaluationRecord(trial_id=target.trial_id, variant=variant.name, status="failed", error=error)
        )
    return row


# --- measurement ------------------------------------------------------------------------------------------------


def cell_of(target: Target, variant: Variant, **more: Any) -> Cell:
    """One preparation or measurement as plain data, which is what Tune carries."""
    return {
        "target": dataclasses.asdict(target),
        "variant": dataclasses.asdict(variant),
        "stage": "grid",
        "repeat": 0,
        "fallback": None,
        **more,
    }


def measure_cells(
    work: Job, cells: Sequence[Cell], name: str, *, evaluate: bool = True, also_read: Sequence[Target] = ()
) -> None:
    """Prepare, then measure what the ledger does not hold, one trial a node at a time; every cell ends as a row."""
    done = work.ledger.latency_keys(work.study.latency.protocol)
    due = [(cell, Target(**cell["target"]), Variant(**cell["variant"])) for cell in cells if _key(cell) not in done]
    wanted = [(target, variant) for _, target, variant in due] + [(target, REFERENCE) for target in also_read]
    prepare_variants(work, wanted, evaluate=evaluate)
    prepared = Preparations(work)
    missing: list[Cell] = []
    for cell, target, variant in due:
        obstacle = _obstacle(prepared, target, variant)
        if obstacle is None:
            missing.append(cell)
        elif obstacle.status == "failed" and cell["variant"]["compile"] != "none":  # R12
            missing.append({**cell, "fallback": f"torch.compile failed ({obstacle.error})"})
        else:  # what could not be prepared needs no process to say so
            row = dataclasses.replace(_dead(work, cell, obstacle.error), status=obstacle.status)
            work.ledger.put_latency(row)
            row_measured(row)
    _announce_turn(work)

    def keep(cell: Cell, row: dict[str, Any] | None, error: str | None) -> str:
        record = from_row(LatencyRecord, row) if row else _dead(work, cell, error)
        target, variant = Target(**cell["target"]), Variant(**cell["variant"])
        record = with_build(with_accuracy(record, target, variant, prepared), target, variant, prepared)
        work.ledger.put_latency(record)
        row_measured(record)
        shown = f"{record.p50_ms:.2f} ms" if record.p50_ms is not None else record.status
        return f"{record.model} {record.variant} {shown}"

    run_cells(
        measure_latency,
        work.workbench,
        MeasureTask(settings=grid_settings(work), data=work.data),
        missing,
        exclusive_bundle(work.info, work.device),
        work.run,
        name,
        work.view,
        keep,
        node=work.info.measuring,
        verbose=work.study.verbose,
    )


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


def _obstacle(prepared: Preparations, target: Target, variant: Variant) -> BuildRecord | EvaluationRecord | None:
    """The preparation of a variant that did not succeed, if any."""
    records = (prepared.build(target, variant), prepared.evaluation(target, variant))
    return next((r for r in records if r is not None and r.status != "ok"), None)


def _key(cell: Cell) -> str:
    return latency_key(
        cell["stage"], cell["target"]["checkpoint_sha256"], Variant(**cell["variant"]).name, cell["repeat"]
    )


def _dead(work: Job, cell: Cell, error: str | None) -> LatencyRecord:
    """The row of a cell that was not measured."""
    target, variant = Target(**cell["target"]), Variant(**cell["variant"])
    skeleton = latency_skeleton(grid_settings(work), target, variant, cell["stage"], cell["repeat"])
    return dataclasses.replace(skeleton, error=error)


def with_accuracy(record: LatencyRecord, target: Target, variant: Variant, prepared: Preparations) -> LatencyRecord:
    """The row with the accuracy that its runtime, precision, layout and weights have over the test set."""
    own, reference = prepared.evaluation(target, variant), prepared.evaluation(target, REFERENCE)
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


def with_build(record: LatencyRecord, target: Target, variant: Variant, prepared: Preparations) -> LatencyRecord:
    """The row with the time that its compilation or export took."""
    build = prepared.build(target, variant)
    if build is None:
        return record
    return dataclasses.replace(
        record,
        compile_seconds=build.compile_seconds,
        compile_cold=build.compile_cold,
        compile_beside=prepared.beside(build),
    )
