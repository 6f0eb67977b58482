"""The second sweep: every inference variant of trained models, each measured alone on its device.

    python sweeps/variant_grid.py --run RUN      # measure a finished run's finalists again, as a run of its own

The last line of standard output is the path of the new run's report.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.frames import find_run
from analysis.report import write_report
from cifar_tune import cli
from cifar_tune.config import REFERENCE, StudyConfig, Variant, check, grid_variants
from cifar_tune.device import environment
from cifar_tune.ledger import latency_key
from cifar_tune.measurement import GridSettings, Subject, latency_skeleton
from cifar_tune.records import BuildRecord, EvaluationRecord, LatencyRecord, TrialRecord
from cifar_tune.store import from_row, read_records
from cifar_tune.tuning.stages import exclusive_bundle, run_cells, training_slots
from cifar_tune.tuning.trainables import MeasureTask, build_variant, evaluate_variant, measure_latency
from sweeps.job import Job, Prepared, job, prepare, write_tables

Cell = dict[str, Any]


def measure_task(work: Job, threads: int = 1) -> MeasureTask:
    """What the trials of this run's grid have in common; `threads` are an evaluation's."""
    settings = GridSettings(
        run=work.run.name,
        device=work.device,
        threads=threads,
        latency=work.study.latency_config(),
        compile_cache=str(compile_cache(work.run)),
        cold_builds=work.study.cold_builds,
        image_size=work.image_size,
    )
    return MeasureTask(settings=settings, data=work.data)


def compile_cache(run: Path) -> Path:
    """Compiler caches of a run: outside of it, since they hold code that runs, and a run may come from elsewhere."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "cifar_tune" / "compile" / run.name


def cell_of(subject: Subject, variant: Variant, stage: str = "grid", repeat: int = 0) -> Cell:
    """One measurement as plain data, which is what Tune carries."""
    return {
        "subject": dataclasses.asdict(subject),
        "variant": dataclasses.asdict(variant),
        "stage": stage,
        "repeat": repeat,
    }


def evaluate_subjects(work: Job, subjects: Sequence[Subject]) -> dict[tuple[str, str], EvaluationRecord]:
    """Accuracy of every subject in every precision and layout; keyed by trial and eager variant."""
    done = {(r.trial_id, r.variant) for r in work.ledger.read(EvaluationRecord)}
    variants = sorted({v.eager for v in grid_variants()}, key=lambda v: v.name)
    cells = [cell_of(s, v) for s in subjects for v in variants if (s.trial_id, v.name) not in done]

    def keep(cell: Cell, row: dict[str, Any] | None, error: str | None) -> str:
        record = (
            from_row(EvaluationRecord, row)
            if row
            else EvaluationRecord(
                trial_id=cell["subject"]["trial_id"],
                variant=Variant(**cell["variant"]).name,
                status="failed",
                error=error,
            )
        )
        work.ledger.put_evaluation(record)
        return ""

    slots = training_slots(work.study, work.info, work.device, max(1, len(cells)))
    task = measure_task(work, threads=slots.cpus)
    run_cells(
        evaluate_variant,
        task,
        cells,
        slots.bundle,
        work.run,
        "test accuracy",
        work.view,
        keep,
        verbose=work.study.verbose,
    )
    return {(r.trial_id, r.variant): r for r in work.ledger.read(EvaluationRecord)}


def build_variants(work: Job, subjects: Sequence[Subject]) -> None:
    """Compile each architecture for each compiled variant, several at a time, before anything is measured."""
    done = {(r.model, r.variant) for r in work.ledger.read(BuildRecord)}
    models = {s.model: s.classes for s in subjects}
    # layouts last: with shared caches, the first layout of a model and precision fills the second one's
    variants = sorted((v for v in grid_variants() if v.compile != "none"), key=lambda v: v.channels_last)
    cells: list[Cell] = [
        {"model": model, "classes": classes, "variant": dataclasses.asdict(variant)}
        for variant in variants
        for model, classes in models.items()
        if (model, variant.name) not in done
    ]

    def keep(cell: Cell, row: dict[str, Any] | None, error: str | None) -> str:
        record = (
            from_row(BuildRecord, row)
            if row
            else BuildRecord(model=cell["model"], variant=Variant(**cell["variant"]).name, status="failed", error=error)
        )
        work.ledger.put_build(record)
        return f"{record.model} {record.variant} {record.compile_seconds or 0:.0f} s"

    slots = training_slots(work.study, work.info, work.device, max(1, len(cells)))
    run_cells(
        build_variant,
        measure_task(work),
        cells,
        slots.bundle,
        work.run,
        "compile",
        work.view,
        keep,
        verbose=work.study.verbose,
    )


def measure_cells(work: Job, cells: Sequence[Cell], name: str) -> None:
    """Measure what the ledger does not hold, one trial a node at a time; every cell ends as a row."""
    done = work.ledger.latency_keys()
    missing = [cell for cell in cells if _key(cell) not in done]
    evaluations = {(r.trial_id, r.variant): r for r in work.ledger.read(EvaluationRecord)}
    builds = {(r.model, r.variant): r for r in work.ledger.read(BuildRecord)}

    for cell in missing[:]:
        build = builds.get((cell["subject"]["model"], Variant(**cell["variant"]).name))
        if build is not None and build.status != "ok":  # what could not be built needs no process to say so
            work.ledger.put_latency(dataclasses.replace(_dead(work, cell, build.error), status=build.status))
            missing.remove(cell)

    def keep(cell: Cell, row: dict[str, Any] | None, error: str | None) -> str:
        record = from_row(LatencyRecord, row) if row else _dead(work, cell, error)
        record = with_build(with_accuracy(record, evaluations), builds)
        work.ledger.put_latency(with_speedup(record, work.ledger.read(LatencyRecord)))
        shown = f"{record.p50_ms:.2f} ms" if record.p50_ms is not None else record.status
        return f"{record.model} {record.variant} {shown}"

    run_cells(
        measure_latency,
        measure_task(work),
        missing,
        exclusive_bundle(work.info, work.device),
        work.run,
        name,
        work.view,
        keep,
        verbose=work.study.verbose,
    )


def _key(cell: Cell) -> str:
    return latency_key(
        cell["stage"], cell["subject"]["checkpoint_sha256"], Variant(**cell["variant"]).name, cell["repeat"]
    )


def _dead(work: Job, cell: Cell, error: str | None) -> LatencyRecord:
    """The row of a measurement whose process died."""
    subject, variant = Subject(**cell["subject"]), Variant(**cell["variant"])
    skeleton = latency_skeleton(measure_task(work).settings, subject, variant, cell["stage"], cell["repeat"])
    return dataclasses.replace(skeleton, error=error, environment=environment(work.device))


def with_accuracy(record: LatencyRecord, evaluations: dict[tuple[str, str], EvaluationRecord]) -> LatencyRecord:
    """The row with the accuracy that its precision, layout and weights have over the test set."""
    variant = Variant(
        runtime=record.runtime,
        precision=record.precision,
        channels_last=record.channels_last,
    )
    own = evaluations.get((record.trial_id, variant.name))
    reference = evaluations.get((record.trial_id, REFERENCE.name))
    if record.status != "ok" or own is None:
        return record
    if own.status != "ok":
        return dataclasses.replace(record, status=own.status, error=f"accuracy: {own.error}")
    return dataclasses.replace(
        record,
        test_accuracy=own.test_accuracy,
        correct=own.correct,
        agreement=_agreement(own, reference),
    )


def _agreement(own: EvaluationRecord, reference: EvaluationRecord | None) -> float | None:
    if reference is None or own.predictions is None or reference.predictions is None:
        return None
    same = np.frombuffer(own.predictions, "<u2") == np.frombuffer(reference.predictions, "<u2")
    return float(same.mean())


def with_build(record: LatencyRecord, builds: dict[tuple[str, str], BuildRecord]) -> LatencyRecord:
    """The row with the time its compilation took."""
    build = builds.get((record.model, record.variant))
    if build is None:
        return record
    return dataclasses.replace(record, compile_seconds=build.compile_seconds, compile_cold=build.compile_cold)


def with_speedup(record: LatencyRecord, measured: Sequence[LatencyRecord]) -> LatencyRecord:
    """The row with its speedup over FP32 eager of the same weights in the same stage, once that is measured."""
    for reference in (*measured, record):
        same = (reference.checkpoint_sha256, reference.stage, reference.repeat) == (
            record.checkpoint_sha256,
            record.stage,
            record.repeat,
        )
        if same and reference.variant == REFERENCE.name and reference.p50_ms and record.p50_ms:
            return dataclasses.replace(record, speedup=reference.p50_ms / record.p50_ms)
    return record


def measure_grid(work: Job, subjects: Sequence[Subject]) -> None:
    """The grid of all subjects: accuracy, then compilation, then latency, each alone. FP32 eager comes first."""
    evaluate_subjects(work, subjects)
    build_variants(work, subjects)
    measure_cells(work, [cell_of(s, v) for s in subjects for v in grid_variants()], "latency")


def forget_compile_cache(run: Path) -> None:
    """Remove the compiler caches of a finished run."""
    shutil.rmtree(compile_cache(run), ignore_errors=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class GridConfig:
    """Which run's finalists to measure again."""

    run: str
    """A finished run: a path, or a name in the storage."""
    name: str | None = None
    """Name of the new run; default: data, preset and UTC time."""
    storage: str = "ray_results"
    """Folder that holds the runs."""
    dashboard: bool = True
    """Start the Ray dashboard."""
    verbose: bool = False
    """Show the tables and logs of Ray Tune instead of the progress view."""


def run(config: GridConfig) -> Path:
    """Measure the finalists of a run again; returns the path of the new run's report."""
    with cli.user_input():
        source = find_run(config.run, config.storage)
        prepared, finalists = _prepare_again(source, config)
    with job(prepared) as work:
        for trial in finalists:
            assert trial.checkpoint is not None
            moved = os.path.relpath(source.absolute() / trial.checkpoint, work.run)
            work.ledger.put_trial(dataclasses.replace(trial, run=work.run.name, checkpoint=moved))
        measure_grid(work, [as_subject(work, t) for t in work.ledger.read(TrialRecord)])
        write_tables(work.run, work.ledger)
        forget_compile_cache(work.run)
        report = write_report(work.run)
        work.view.say(report.text)
    return report.path


def _prepare_again(source: Path, config: GridConfig) -> tuple[Prepared, list[TrialRecord]]:
    """The study of a finished run on the same data, and its finalists. ValueError where they are not there."""
    content = json.loads((source / "study.json").read_text())
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in content["config"].items()}
    own = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name != "run"}
    prepared = prepare(StudyConfig(**{**settings, **own, "resume": False, "address": None}))
    same = prepared.data.fingerprint == content["data"]["fingerprint"]
    check(same, "run", config.run, f"a run whose data are still there: {prepared.study.data} has changed")
    trials = source / "trials.parquet"
    finalists = [t for t in read_records(trials, TrialRecord) if t.stage == "final"] if trials.is_file() else []
    check(bool(finalists), "run", config.run, "a run that has finalists")
    return prepared, finalists


def as_subject(work: Job, trial: TrialRecord) -> Subject:
    """A trial's best weights as what is evaluated and measured."""
    assert trial.checkpoint is not None
    assert trial.checkpoint_sha256 is not None
    return Subject(
        trial_id=trial.trial_id,
        model=trial.model,
        arm=trial.arm,
        checkpoint=str(work.run / trial.checkpoint),
        checkpoint_sha256=trial.checkpoint_sha256,
        classes=work.classes,
    )


def main(argv: Sequence[str]) -> None:
    """The command: the last line of standard output is the report's path."""
    cli.run_command(lambda: run(cli.parse(GridConfig, argv, prog="variant_grid.py", description=__doc__ or "")))


if __name__ == "__main__":
    main(sys.argv[1:])
