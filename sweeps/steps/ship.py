"""The candidate's folder as the last step of a run: made on the measuring node, opened in a fresh process, checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis.paired import interval
from analysis.report import Candidate, Report
from cifar_tune.blocks import summarised
from cifar_tune.config import REFERENCE
from cifar_tune.measuring.target import Cell, Target
from cifar_tune.records import EvaluationRecord, LatencyRecord, TrialRecord
from cifar_tune.shipping.candidate import is_shipped
from cifar_tune.shipping.shipment import Shipment, Verification
from cifar_tune.tuning.proxies import ship_candidate
from cifar_tune.tuning.slots import exclusive_bundle
from cifar_tune.tuning.stages import CellStep, run_cells
from cifar_tune.tuning.workbench import ShipTask
from sweeps.steps.checks import Prepared
from sweeps.steps.grid import grid_settings
from sweeps.steps.job import Job


def ship(work: Job, prepared: Prepared, targets: Sequence[Target], report: Report) -> None:
    """Make `<run>/candidate/` for the report's candidate, if there is one, and check it."""
    if report.candidate is None:
        return
    row = _row(work, report.candidate)
    folder = work.run.absolute() / "candidate"
    shipment = _shipment(work, prepared, targets, row, report)
    if is_shipped(folder, shipment):
        return
    target = next(s for s in targets if s.trial_id == row.trial_id)
    task = ShipTask(
        cells=(Cell(target=target, variant=row.measured_variant),),
        settings=grid_settings(work),
        data=work.data,
        shipment=shipment,
        folder=folder,
        fp32=_fp32_classes(work, row),
    )

    def keep(_: Cell, found: Verification | None, error: str | None) -> str:
        verification = found or Verification(ok=False, images=0, problem=error)
        if not verification.ok:
            work.view.say(f"Candidate {verification}")
        return "verified" if verification.ok else "NOT verified"

    bundle = exclusive_bundle(work.info, work.device)
    run_cells(work, CellStep(title="candidate", trainable=ship_candidate, bundle=bundle), task, keep)


def _row(work: Job, candidate: Candidate) -> LatencyRecord:
    """The grid's row of the candidate."""
    wanted = (candidate.trial_id, candidate.variant, "grid")
    return next(r for r in work.ledger.read(LatencyRecord) if (r.trial_id, r.variant, r.stage) == wanted)


def _confirmed(work: Job, row: LatencyRecord) -> LatencyRecord | None:
    """What new processes gave of it after the choice, summed up; None where they were not asked, or failed."""
    found = summarised([r for r in work.ledger.read(LatencyRecord) if r.stage == "confirm"])
    return next((r for r in found if (r.trial_id, r.variant) == (row.trial_id, row.variant) and r.ratio), None)


def _shipment(work: Job, prepared: Prepared, targets: Sequence[Target], row: LatencyRecord, report: Report) -> Shipment:
    target = next(s for s in targets if s.trial_id == row.trial_id)
    data, trials = prepared.data, work.ledger.read(TrialRecord)
    study = json.loads((work.run / "study.json").read_text(encoding="utf-8"))
    assert target.checkpoint is not None
    assert row.test_accuracy is not None
    return Shipment(
        row=row,
        recipe=next((t for t in trials if t.trial_id == row.trial_id), None),
        checkpoint=Path(target.checkpoint),
        data=work.dataset,
        train_images=len(data.train_images),
        test_images=len(data.test_images),
        classes=data.classes,
        mean=data.mean,
        std=data.std,
        image_size=work.input_shape[1],
        accuracy_interval=interval(row.test_accuracy, len(data.test_images)),
        reason=report.text,
        fresh=_confirmed(work, row),
        is_confirmed=report.is_confirmed,
        command=study["command"],
    )


def _fp32_classes(work: Job, row: LatencyRecord) -> np.ndarray:
    """What FP32 eager of the same weights answered on the test set: int (N,)."""
    read = work.ledger.read(EvaluationRecord)
    found = next(r for r in read if (r.trial_id, r.variant) == (row.trial_id, REFERENCE.name))
    assert found.predictions is not None
    return np.frombuffer(found.predictions, dtype="<u2")
