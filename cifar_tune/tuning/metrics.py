"""What a run tells Prometheus through Ray while it works: set by the driver as results come in.

Ray exports them as `ray_cifar_tune_…`; `deploy/grafana.json` shows them, docs/monitoring.md says how.
"""

from __future__ import annotations

import functools
from typing import Any

from ray.util.metrics import Counter, Gauge

from cifar_tune.records import LatencyRecord, TrialRecord

_EPOCH = {
    "val_accuracy": "Validation accuracy of a training's last epoch, 0 to 1.",
    "train_loss": "Training loss of its last epoch.",
    "images_per_second": "Images a second that it trained on in its last epoch.",
}


@functools.cache
def _gauge(name: str, description: str, *tags: str) -> Gauge:
    return Gauge(f"cifar_tune_{name}", description=description, tag_keys=tags)


@functools.cache
def _counter(name: str, description: str, *tags: str) -> Counter:
    return Counter(f"cifar_tune_{name}", description=description, tag_keys=tags)


def epoch_ended(run: str, stage: str, model: str, trial_id: str, epoch: dict[str, Any]) -> None:
    """The figures of a training's last epoch: the fields of an EpochRecord."""
    tags = {"run": run, "stage": stage, "model": model, "trial": trial_id}
    for name, description in _EPOCH.items():
        _gauge(name, description, *tags).set(epoch[name], tags)


def trial_ended(record: TrialRecord) -> None:
    """One more training that has ended, and how."""
    tags = {"run": record.run, "stage": record.stage, "status": record.status}
    _counter("trials", "Trainings that have ended.", *tags).inc(1, tags)


def row_measured(record: LatencyRecord) -> None:
    """One more measured variant, and its latency."""
    tags = {"run": record.run, "stage": record.stage, "status": record.status}
    _counter("rows", "Variants that have been measured, or could not be.", *tags).inc(1, tags)
    if record.p50_ms is not None:
        of = {"run": record.run, "model": record.model, "arm": record.arm, "variant": record.variant}
        _gauge("p50_ms", "Median latency of a variant at batch 1, milliseconds.", *of).set(record.p50_ms, of)
