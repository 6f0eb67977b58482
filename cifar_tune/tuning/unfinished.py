"""What a training leaves behind after each epoch, so that it can go on when its worker or its driver has died."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_tune.device import environment
from cifar_tune.errors import failure
from cifar_tune.models.registry import count_parameters
from cifar_tune.records import EpochRecord, TrialRecord
from cifar_tune.runs.ledger import Ledger
from cifar_tune.store import is_disk_full, seal, sha256_file, unseal
from cifar_tune.training.loop import Epoch

BEST, LAST, STATE, PROGRESS = "best.safetensors", "last.safetensors", "state.safetensors", "progress.json"
WEIGHTS_AND_STATE = (BEST, LAST, STATE)
METRIC = "best_val_accuracy"
"""Best-ever validation accuracy: what trials are compared by, and whose weights are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BegunTraining:
    """The last epoch of a training that has not ended."""

    trial_id: str
    sample: dict[str, Any]
    epochs: int
    """Done."""
    folder: str


class Progress:
    """How far a trial has come: metrics of every report, since Tune ends a whole search where one is missing."""

    def __init__(self, trial_id: str, sample: dict[str, Any], epochs: int, device: str) -> None:
        self._trial_id, self._sample, self._epochs = trial_id, sample, epochs
        self._environment = dataclasses.asdict(environment(device))
        self._rows: list[dict[str, float]] = []
        self._best = 0.0
        self._parameters: int | None = None
        self.precision: str | None = None
        """Arithmetic of its steps; None before the first epoch is done."""
        self._note: str | None = None
        self._began = self._taken_up = time.time()
        self._seconds_before = 0.0

    @property
    def epoch(self) -> int:
        """The last that is done."""
        return len(self._rows)

    @property
    def _seconds(self) -> float:
        return self._seconds_before + time.time() - self._taken_up

    def note(self, epoch: Epoch, trouble: str | None) -> bool:
        """An epoch is done; whether it is the best so far."""
        better = epoch.number == 1 or epoch.val_accuracy > self._best
        self._best = max(self._best, epoch.val_accuracy)
        names = [f.name for f in dataclasses.fields(EpochRecord) if f.name not in ("trial_id", "epoch")]
        self._rows.append({"epoch": epoch.number, **{name: getattr(epoch, name) for name in names}})
        self._parameters = count_parameters(epoch.model)
        self.precision = epoch.stepper.precision
        self._note = self._note or trouble
        return better

    def save(self, folder: Path) -> None:
        """Write it beside the weights, with their digests: what a dying worker left half copied is known by them."""
        kept = {
            "trial_id": self._trial_id,
            "sample": self._sample,
            "rows": self._rows,
            "best": self._best,
            "parameters": self._parameters,
            "precision": self.precision,
            "note": self._note,
            "began": self._began,
            "seconds": self._seconds,
            "sha256": {name: sha256_file(folder / name) for name in WEIGHTS_AND_STATE},
        }
        (folder / PROGRESS).write_bytes(seal(kept))

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote. ValueError or OSError: it is not whole."""
        kept = read_progress(folder)
        self._rows, self._best, self._parameters = kept["rows"], kept["best"], kept["parameters"]
        self.precision = kept["precision"]
        self._note, self._began, self._seconds_before = kept["note"], kept["began"], kept["seconds"]

    def metrics(self, error: BaseException | None = None) -> dict[str, Any]:
        """What is reported to Tune: all epochs so far, so that a trial's last report tells the whole of it."""
        return {
            "epoch": self.epoch,
            "epochs": self._epochs,
            METRIC: self._best,
            "rows": list(self._rows),
            # the last of them once more, for loggers that take plain figures
            **{name: value for row in self._rows[-1:] for name, value in row.items() if name != "epoch"},
            "started_at": self._began,
            "train_seconds": self._seconds,
            "parameters": self._parameters,
            "precision": self.precision,
            "note": self._note,
            "environment": self._environment,
            "failure": None if error is None else failure(error),
            "traceback": None if error is None else "".join(traceback.format_exception(error)),
            "disk_full": error is not None and is_disk_full(error),
        }


def read_progress(folder: Path) -> dict[str, Any]:
    """What `Progress.save` wrote into a folder. ValueError or OSError: it is not whole, or not as written."""
    kept = unseal((folder / PROGRESS).read_bytes())
    for name, digest in kept["sha256"].items():
        if sha256_file(folder / name) != digest:
            raise ValueError(f"{name} does not match its checksum")
    return kept


def begun_trainings(experiments: Path) -> dict[str, BegunTraining]:
    """Trial id -> the furthest epoch, of all that Tune's experiments below a folder hold; what is damaged is not."""
    found: dict[str, BegunTraining] = {}
    for path in sorted(experiments.glob(f"*/*/checkpoint_*/{PROGRESS}")):
        with contextlib.suppress(ValueError, OSError):
            kept = read_progress(path.parent)
            begun = BegunTraining(
                trial_id=kept["trial_id"], sample=kept["sample"], epochs=len(kept["rows"]), folder=str(path.parent)
            )
            if begun.trial_id not in found or found[begun.trial_id].epochs < begun.epochs:
                found[begun.trial_id] = begun
    return found


def unfinished(run: Path, ledger: Ledger) -> list[BegunTraining]:
    """The trainings that a driver that died has begun, and not ended."""
    ended = {r.trial_id for r in ledger.read(TrialRecord)}
    return [b for b in begun_trainings(run / "ray").values() if b.trial_id not in ended]


def forget_ended(run: Path, ledger: Ledger) -> None:
    """Remove what the trials that have ended left to go on from."""
    open_folders = {b.folder for b in unfinished(run, ledger)}
    for folder in (run / "ray").glob("*/*/checkpoint_*"):
        if str(folder) not in open_folders:
            shutil.rmtree(folder, ignore_errors=True)
