"""Builders of synthetic runs for the tests of the analysis."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.frames import load_run
from analysis.report import analyse, markdown_report, sections_of
from cifar_tune.config import Variant, grid_variants
from cifar_tune.records import Environment, EpochRecord, LatencyRecord, TrialRecord
from cifar_tune.store import note_checksums, schema, to_row, write_records
from cifar_tune.study import STUDY_FORMAT, StudyConfig

IMAGES = 1000
STUDENT = "mobilenet_v3_small"
TEACHER = "resnet18"
ENVIRONMENT = Environment(
    host="box", os="Linux", device="cpu", device_name="Test CPU", cpu_count=2, python="3.11", torch="2.13",
    torchvision="0.28", ray="2.60", optuna="5.0", cifar_tune="0.1",
)  # fmt: skip


def bits(right: int, images: int = IMAGES, first: int = 0) -> bytes:
    """Packed bits with `right` images right, beginning at image `first`."""
    return np.packbits(np.isin(np.arange(images), np.arange(first, first + right))).tobytes()


def latency(variant: Variant | None = None, *, p50: float = 2.0, right: int = 900, **changes: Any) -> LatencyRecord:
    """A measured row; its paired reference is 2 ms, so that speedup is 2 / p50, unless the speedup is given."""
    variant = variant or Variant()
    speedup = changes.get("speedup", 2.0 / p50)
    reference = [[p50 * speedup] * 4] * 3
    samples = [[p50 * process * f for f in (0.98, 1.0, 1.0, 1.02)] for process in (0.99, 1.0, 1.01)]
    measured = LatencyRecord(
        run="r", trial_id="t1", model=STUDENT, arm="plain", stage="grid", checkpoint_sha256="0", variant=variant.name,
        **dataclasses.asdict(variant), status="ok", test_accuracy=right / IMAGES, correct=bits(right), agreement=0.99,
        protocol="{}", batch1_agreement=1.0, samples_ms=samples, reference_ms=reference, round_calls=1, mean_ms=p50,
        p50_ms=p50,
        p95_ms=p50 * 1.02, p99_ms=p50 * 1.02, std_ms=0.01, spread=0.01, checkpoint_mb=6.0, parameters=1_500_000,
        compile_seconds=None if variant.compile == "none" else 21.0, speedup=speedup, contended=False,
        compile_cold=None if variant.compile == "none" else False, environment=ENVIRONMENT,
    )  # fmt: skip
    return dataclasses.replace(measured, **changes)


def blocked(
    p50: float, block: int, *, beside_ms: float, variant: Variant | None = None, **changes: Any
) -> LatencyRecord:
    """A row of a block of a race, or of another stage: `beside_ms` is the baseline's median in that block."""
    given: dict[str, Any] = {"stage": "race", **changes}
    own, beside = [[p50 * f for f in (0.98, 1.0, 1.02)]], [[beside_ms * f for f in (0.98, 1.0, 1.02)]]
    return latency(variant, p50=p50, block=block, samples_ms=own, reference_ms=beside, **given)


def turns(
    rows: Sequence[LatencyRecord],
    ratios: Sequence[Sequence[float]],
    first: int = 1,
    baseline_ms: float = 9.0,
    **changes: Any,
) -> list[LatencyRecord]:
    """Blocks of a race, or of another stage, in which these rows of the grid took turns, the baseline first.

    Args:
        ratios: of each row, how many times the baseline's latency it took in each block.
        first: number of the first block.
    """
    found: list[LatencyRecord] = []
    for place in range(len(ratios[0])):
        beside = baseline_ms * (1 + 0.05 * (-1) ** place)  # a machine with moods
        for row, times in zip(rows, ratios, strict=True):
            block = blocked(times[place] * beside, first + place, beside_ms=beside, variant=row.measured_variant)
            who = {name: getattr(row, name) for name in ("trial_id", "model", "arm", "test_accuracy", "correct")}
            found.append(dataclasses.replace(block, **{**who, **changes}))
    return found


def around(ratio: float, blocks: int = 5, spread: float = 0.01) -> list[float]:
    """Ratios of blocks that differ a little, with this one as their geometric mean."""
    steps = np.linspace(-1, 1, blocks)
    return [float(ratio * np.exp(spread * step)) for step in np.roll(steps, 2)]


def plain(records: Sequence[LatencyRecord]) -> list[dict[str, Any]]:
    """The records as rows."""
    return [to_row(record) for record in records]


def failed(variant: Variant, error: str = "no compiler", **changes: Any) -> LatencyRecord:
    """A row that was not measured."""
    names = ("test_accuracy", "correct", "agreement", "batch1_agreement", "samples_ms", "reference_ms", "spread")
    figures = ("mean_ms", "p50_ms", "p95_ms", "p99_ms", "std_ms", "speedup", "contended", "compile_seconds")
    nothing = dict.fromkeys(names + figures)
    return dataclasses.replace(latency(variant), **nothing, status="failed", error=error, **changes)


def frame(*records: LatencyRecord) -> pd.DataFrame:
    """The records as `latency.parquet` gives them back."""
    return pd.DataFrame([to_row(r) for r in records], columns=schema(LatencyRecord).names)


def trial(**changes: Any) -> TrialRecord:
    """A finished plain trial."""
    record = TrialRecord(
        run="r", trial_id="t1", stage="plain", arm="plain", model=STUDENT, dataset="digits", status="ok",
        optimizer="sgd", lr=0.05, schedule="cosine", temperature=None, alpha=0.0, weight_decay=5e-4, batch_size=64,
        epochs=12, epochs_run=12, seed=0, val_accuracy=0.9, checkpoint="checkpoints/t1.safetensors",
        environment=ENVIRONMENT,
    )  # fmt: skip
    return dataclasses.replace(record, **changes)


def grid(model: str, arm: str, trial_id: str, p50: float, right: int) -> list[LatencyRecord]:
    """The whole grid of one model: FP16 takes 0.6, compile 0.8, channels_last 0.97 of the time."""
    factors = {"fp16": 0.6, "default": 0.8, True: 0.97}
    found: list[LatencyRecord] = []
    for number, variant in enumerate(grid_variants()):
        factor = float(np.prod([factors.get(value, 1.0) for value in dataclasses.astuple(variant)]))
        figures = latency(variant, p50=p50 * factor, right=right - number % 4, speedup=1 / factor)
        found.append(dataclasses.replace(figures, model=model, arm=arm, trial_id=trial_id))
    return found


def full_latency() -> list[LatencyRecord]:
    """Teacher, plain and distilled student, one failure, and the confirmation of candidate and baseline."""
    rows = grid(TEACHER, "teacher", "t0", 9.0, 940) + grid(STUDENT, "plain", "t1", 3.0, 880)
    rows += grid(STUDENT, "distill", "t2", 3.05, 890)
    rows[9] = dataclasses.replace(failed(grid_variants()[1], "a | b"), arm="plain", trial_id="t1")
    best = rows[22]
    fresh = [dataclasses.replace(best, stage="confirm", block=n, p50_ms=(best.p50_ms or 0) * f)
             for n, f in ((1, 1.0), (2, 1.03), (3, 0.98))]  # fmt: skip
    return [*rows, *fresh]


def write_run(
    folder: Path, records: list[LatencyRecord], trials: list[TrialRecord] | None = None, **config: Any
) -> Path:
    """A run's folder as a study leaves it."""
    settings = StudyConfig(students=(STUDENT,), **config)
    study = {
        "format": STUDY_FORMAT,
        "run": folder.name,
        "config": dataclasses.asdict(settings),
        "environment": dataclasses.asdict(ENVIRONMENT),
        "data": {
            "name": "digits", "fingerprint": "abc", "classes": [str(n) for n in range(10)], "train_images": 700,
            "validation_images": 97, "test_images": IMAGES, "label": "digits",
            "largest_class": "3", "largest_share": 0.11,
        },
        "command": "python sweeps/distill_search.py",
        "created_utc": "2030-01-01T00:00:00Z",
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps(study), encoding="utf-8")
    write_records(folder / "trials.parquet", TrialRecord, [trial()] if trials is None else trials)
    write_records(folder / "epochs.parquet", EpochRecord, [])
    write_records(folder / "latency.parquet", LatencyRecord, records)
    note_checksums(folder, [p.name for p in folder.iterdir()])
    return folder


def markdown(run: Path) -> str:
    """The text of a run's `report.md`, without the pictures, which take seconds."""
    findings = analyse(load_run(run))
    return markdown_report(findings, sections_of(findings))
