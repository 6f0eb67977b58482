"""Whether the front's probabilities can be believed, and what a front costs.

    python benchmarks/front_calibration.py probability    # 1,000 studies with known truths
    python benchmarks/front_calibration.py speed          # the front of 1,000,000 points, the report of 10,000 trials

`probability`: each study has models whose true accuracy is drawn from 70 to 95 % and whose true latency lies anywhere
from 1 to 8 ms (log-uniform), in variants that cost 0.4 to 1.2 of it. Images differ in how hard they are, so models
err on the same ones. Measured are the answers on the test images, and paired rounds in three processes a row. By how
much processes differ is drawn for each row, from 1.6 to 10 % (log-uniform), as published runs have it. In tenths of the
stated probability: how often such a row is on the true front. Target: mean absolute difference 3 points. It takes about
10 minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import Target, finish, parser
from scipy.special import expit, logit

from analysis.frames import Row
from analysis.pareto import pareto_mask
from analysis.report import write_report
from analysis.uncertain import draw
from cifar_tune.config import Variant, grid_variants
from cifar_tune.records import Environment, EpochRecord, LatencyRecord, TrialRecord
from cifar_tune.store import note_checksums, write_records
from cifar_tune.study import STUDY_FORMAT, StudyConfig

MODELS, REPEATS, ROUNDS = 4, 3, 24
BETWEEN = 0.016, 0.10
"""Least and largest standard deviation between processes, of logarithms."""
VARIANTS = grid_variants()[:5]
DIFFERENCE = Target("at most", 3.0, unit=" points")
FRONT, REPORT = Target("at most", 1.0, unit=" s"), Target("at most", 10.0, unit=" s")


def one_study(rng: np.random.Generator, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Stated probability of each row, and whether it is on the true front."""
    hardness = rng.normal(0, 1.5, images)
    accuracies, latencies, measured = [], [], []
    for model in range(MODELS):
        accuracy, base = rng.uniform(0.70, 0.95), float(np.exp(rng.uniform(0, np.log(8))))
        skill = _skill(accuracy, hardness)
        chance = expit(skill - hardness)
        answers = rng.random(images) < chance
        for variant in range(len(VARIANTS)):
            factor = 1.0 if variant == 0 else rng.uniform(0.4, 1.2)
            # a variant's rounding turns some answers, as likely one way as the other
            turned = rng.random(images) < (0.0 if variant == 0 else 0.01)
            correct = np.where(turned, rng.random(images) < chance, answers)
            accuracies.append(float(chance.mean()))
            latencies.append(base * factor)
            measured.append(_row(f"m{model}", VARIANTS[variant], base, factor, correct, rng))
    stated = draw(measured, measured, images, seed=int(rng.integers(2**31))).front_probability()
    return stated, pareto_mask(np.stack([latencies, -np.array(accuracies)], axis=1))


def _skill(accuracy: float, hardness: np.ndarray) -> float:
    """The skill with which a model is right on this share of images, by bisection."""
    low, high = logit(accuracy) - 8, logit(accuracy) + 8
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if expit(middle - hardness).mean() < accuracy else (low, middle)
    return low


def _row(
    model: str, variant: Variant, base: float, factor: float, correct: np.ndarray, rng: np.random.Generator
) -> Row:
    drift = np.exp(rng.normal(0, 0.3))  # of the minutes in which the row was measured
    apart = np.exp(rng.uniform(*np.log(BETWEEN)))
    reference, samples = [], []
    for _ in range(REPEATS):
        process = np.exp(rng.normal(0, apart))  # what differs from process to process
        level = base * drift * np.exp(rng.normal(0, 0.05, (ROUNDS, 1)))
        reference.append((level * np.exp(rng.normal(0, 0.03, (ROUNDS, 3)))).ravel())
        samples.append((level * factor * process * np.exp(rng.normal(0, 0.03, (ROUNDS, 10)))).ravel())
    p50, speedup = median(samples), median(reference) / median(samples)
    return {
        "model": model, "trial_id": model, **dataclasses.asdict(variant), "correct": np.packbits(correct).tobytes(),
        "samples_ms": samples, "reference_ms": reference, "round_calls": 10, "speedup": speedup, "p50_ms": p50,
        "protocol": "{}",
    }  # fmt: skip


def median(repeats: list[np.ndarray]) -> float:
    return float(np.median(np.concatenate(repeats)))


def probability(options: argparse.Namespace) -> bool:
    rng = np.random.default_rng(options.seed)
    stated, true = (np.concatenate(part) for part in zip(
        *(one_study(rng, options.images) for _ in range(options.studies)), strict=True
    ))  # fmt: skip
    tenths = np.minimum((stated * 10).astype(int), 9)
    differences: list[float] = []
    for tenth in range(10):
        mine = tenths == tenth
        if mine.any():
            difference = 100 * (stated[mine].mean() - true[mine].mean())
            differences.append(abs(difference))
            print(f"stated {stated[mine].mean():.3f}, observed {true[mine].mean():.3f}, {mine.sum()} rows")
    error = float(np.mean(differences))
    what = f"{options.studies} studies, {options.images} images: mean absolute difference"
    return DIFFERENCE.judge(what, error, ".1f")


def speed(_: argparse.Namespace) -> bool:
    rng = np.random.default_rng(0)
    points = rng.random((1_000_000, 2))
    started = time.perf_counter()
    found = pareto_mask(points).sum()
    front = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        run = _large_run(Path(folder) / "large")
        started = time.perf_counter()
        write_report(run)
        report = time.perf_counter() - started
    verdicts = [
        FRONT.judge(f"front of 1,000,000 points ({found} on it)", front, ".2f"),
        REPORT.judge("report of a run with 10,000 trials", report, ".1f"),
    ]
    return all(verdicts)


def _large_run(run: Path) -> Path:
    """10,000 trials of 20 epochs, and a grid with 700 samples a row."""
    run.mkdir()
    rng = np.random.default_rng(0)
    environment = Environment(
        host="box", os="Linux", device="cpu", device_name="CPU", cpu_count=2, python="3", torch="2", torchvision="0",
        ray="2", optuna="5", cifar_tune="0",
    )  # fmt: skip
    study = StudyConfig(students=("mobilenet_v3_small",))
    about = {"name": "x", "fingerprint": "x", "classes": ["a", "b"], "train_images": 1, "validation_images": 1,
             "test_images": 10_000, "label": "x"}  # fmt: skip
    (run / "study.json").write_text(json.dumps({
        "format": STUDY_FORMAT, "run": run.name, "config": dataclasses.asdict(study),
        "environment": dataclasses.asdict(environment),
        "data": about, "command": "x", "created_utc": "x",
    }))  # fmt: skip
    trials = [_trial(n, float(rng.uniform(0.5, 0.9)), environment) for n in range(10_000)]
    epochs = [
        EpochRecord(trial_id=t.trial_id, epoch=e, lr=0.1, train_loss=1.0, train_accuracy=0.5, val_loss=1.0,
                    val_accuracy=0.5, seconds=1.0, images_per_second=1.0)
        for t in trials for e in range(1, 21)
    ]  # fmt: skip
    rows = [_latency(model, arm, variant, rng, environment)
            for model, arm in (("resnet18", "teacher"), (study.students[0], "plain"), (study.students[0], "distill"))
            for variant in grid_variants()]  # fmt: skip
    write_records(run / "trials.parquet", TrialRecord, trials)
    write_records(run / "epochs.parquet", EpochRecord, epochs)
    write_records(run / "latency.parquet", LatencyRecord, rows)
    note_checksums(run, [p.name for p in run.iterdir()])
    return run


def _trial(number: int, accuracy: float, environment: Environment) -> TrialRecord:
    arm = "plain" if number % 2 else "distill"
    return TrialRecord(
        run="large", trial_id=f"{arm}-{number}", stage=arm, arm=arm, model="mobilenet_v3_small", dataset="x",
        status="ok", optimizer="sgd", lr=0.01 + 1e-6 * number, schedule="cosine",
        temperature=4.0 if arm == "distill" else None, alpha=0.5 if arm == "distill" else 0.0, weight_decay=5e-4,
        batch_size=128, epochs=20, epochs_run=20, seed=0, val_accuracy=accuracy, started_at=float(number),
        environment=environment,
    )  # fmt: skip


def _latency(model: str, arm: str, variant: Any, rng: np.random.Generator, environment: Environment) -> LatencyRecord:
    samples = [rng.lognormal(0.5, 0.05, 240).tolist() for _ in range(3)]
    correct = rng.random(10_000) < 0.9
    return LatencyRecord(
        run="large", trial_id=arm, model=model, arm=arm, stage="grid", checkpoint_sha256="0", variant=variant.name,
        **dataclasses.asdict(variant), status="ok", test_accuracy=float(correct.mean()),
        correct=np.packbits(correct).tobytes(), agreement=1.0, protocol="{}", batch1_agreement=1.0, samples_ms=samples,
        reference_ms=[rng.lognormal(0.7, 0.05, 72).tolist() for _ in range(3)], round_calls=10,
        mean_ms=1.65, p50_ms=1.65, p95_ms=1.8, p99_ms=1.9, std_ms=0.1, spread=0.01, speedup=1.2, speedup_low=1.19,
        speedup_high=1.21, contended=False, environment=environment,
    )  # fmt: skip


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("part", choices=["probability", "speed"])
    flags.add_argument("--studies", type=int, default=1000)
    flags.add_argument("--images", type=int, default=2000)
    flags.add_argument("--seed", type=int, default=0)
    options = flags.parse_args()
    met = (probability if options.part == "probability" else speed)(options)
    finish(met=met, runs=options.studies if options.part == "probability" else 1)


if __name__ == "__main__":
    main()
