"""What keeping results costs: python benchmarks/ledger.py [put|resume].

put: a trial's result made durable, beside the shortest trial there is (one step), which is what a study spends on it.
resume: from the command to the end of the plan, on a run with 10,000 finished trials.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Target, finish, parser, spread

from cifar_tune.data.datasets import describe, load
from cifar_tune.device import environment
from cifar_tune.presets import PRESETS
from cifar_tune.records import EpochRecord, TrialRecord
from cifar_tune.runs.ledger import Ledger
from cifar_tune.study import StudyConfig
from sweeps.steps.folder import write_study

ROOT = Path(__file__).parent.parent
TRIALS = 10_000
EPOCHS = 4
PLAN = Target("at most", 10.0, unit=" s")
OVERHEAD = Target("at most", 0.01, ".0%")
SHORTEST_TRIAL = 0.3
"""Seconds of Tune's own overhead that the project allows a trial: no trial is shorter."""


def trial(number: int, study: StudyConfig) -> tuple[TrialRecord, list[EpochRecord]]:
    """A finished trial as the keeper writes it."""
    name = f"plain-{study.students[0]}-{number:012x}"
    record = TrialRecord(
        run="run", trial_id=name, stage="plain", arm="plain", model=study.students[0], dataset="digits", status="ok",
        optimizer="sgd", lr=0.01 + number * 1e-6, schedule="cosine", temperature=None, alpha=0.0, weight_decay=5e-4,
        batch_size=32, epochs=EPOCHS, epochs_run=EPOCHS, seed=0, val_accuracy=0.5, started_at=0.0, train_seconds=1.0,
        parameters=1000, checkpoint=f"checkpoints/{name}/best.safetensors", checkpoint_sha256="0" * 64,
        environment=environment("cpu"),
    )  # fmt: skip
    epochs = [
        EpochRecord(
            trial_id=name, epoch=epoch, lr=0.01, train_loss=1.0, train_accuracy=0.5, val_loss=1.0, val_accuracy=0.5,
            seconds=1.0, images_per_second=100.0,
        )
        for epoch in range(1, EPOCHS + 1)
    ]  # fmt: skip
    return record, epochs


def fill(run: Path, study: StudyConfig, trials: int) -> float:
    """Put that many trials; seconds of each."""
    results = [trial(number, study) for number in range(trials)]
    ledger = Ledger(run)
    started = time.perf_counter()
    for result in results:
        ledger.put_trial(*result)
    return (time.perf_counter() - started) / trials


def put(folder: Path, rounds: int) -> bool:
    """Seconds of a put, against the shortest trial."""
    each = spread([1e3 * fill(folder / f"run{number}", PRESETS["chaos"], 200) for number in range(rounds)])
    print(f"a trial and its {EPOCHS} epochs: {each:.2f} ms, {rounds} rounds of 200")
    return OVERHEAD.judge(
        f"share of the shortest trial ({SHORTEST_TRIAL} s)", each.median / 1e3 / SHORTEST_TRIAL, ".2%"
    )


def resume(folder: Path, rounds: int) -> bool:
    """Seconds until the plan of a resumed run stands there."""
    study = dataclasses.replace(PRESETS["chaos"], name="run", num_samples=TRIALS + 10)
    run = folder / "run"
    run.mkdir()
    write_study(run, study, environment("cpu"), describe(load(study.data)))
    fill(run, study, TRIALS)
    command = [
        sys.executable, str(ROOT / "sweeps" / "distill_search.py"), "--preset", "chaos", "--storage", str(folder),
        "--name", "run", "--resume", "--num-samples", str(TRIALS + 10),
    ]  # fmt: skip
    seconds = spread([until_plan(command) for _ in range(rounds)])
    return PLAN.judge(f"{TRIALS} finished trials, {rounds} rounds: the plan stands after", seconds, ".1f")


def until_plan(command: list[str]) -> float:
    """Start a study, and end it when its plan is printed."""
    started = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("all"):
                break
        seconds = time.perf_counter() - started
        process.kill()
    assert any(f"{TRIALS} of them done" in line for line in said), "".join(said)
    return seconds


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("part", choices=["put", "resume"])
    flags.add_argument("--rounds", type=int, default=3)
    options = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        met = (put if options.part == "put" else resume)(Path(folder), options.rounds)
    finish(met=met, runs=options.rounds)


if __name__ == "__main__":
    main()
