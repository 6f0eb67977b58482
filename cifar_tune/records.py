"""What a trial leaves behind: frozen dataclasses, one a Parquet row.

The columns of `trials.parquet`, `epochs.parquet` and `latency.parquet` follow these fields, so a new figure is
one field here, set where it is measured. Failure is a value: `status` and `error` say what happened, and the
measurements of a trial that did not measure are None. Accuracies are fractions 0 to 1, times are seconds unless
the name ends in `_ms`, sizes are MB = 10**6 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cifar_tune.config import Compile, Precision

Stage = Literal["teacher", "plain", "distill", "final"]
TrialStatus = Literal["ok", "pruned", "failed"]
LatencyStage = Literal["grid", "confirm"]
LatencyStatus = Literal["ok", "fallback", "unsupported", "failed", "skipped"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """The machine and the versions a figure was measured with; columns `env_*`."""

    host: str
    os: str
    device: str
    """cpu or cuda."""
    device_name: str
    """Model name of the processor or GPU."""
    cpu_count: int
    """Logical cores that the process may use."""
    python: str
    torch: str
    torchvision: str
    ray: str
    optuna: str
    cifar_tune: str
    git_commit: str | None = None
    """Commit of the checkout, with `+` when it has local changes; None outside a checkout."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """One training trial, or (stage `final`) the one reading of the test set by a finalist."""

    run: str
    trial_id: str
    stage: Stage
    arm: str
    """teacher, plain or distill."""
    model: str
    dataset: str
    status: TrialStatus
    error: str | None = None
    optimizer: str
    lr: float
    schedule: str
    temperature: float | None
    """None where alpha is 0: not read."""
    alpha: float
    weight_decay: float
    batch_size: int
    epochs: int
    epochs_run: int
    seed: int
    val_accuracy: float | None = None
    """Best-ever over the epochs; that epoch's weights are the checkpoint."""
    test_accuracy: float | None = None
    """FP32 eager, read by finalists alone."""
    started_at: float | None = None
    """Unix time at which the training began."""
    train_seconds: float | None = None
    parameters: int | None = None
    checkpoint: str | None = None
    """Path of the weights relative to the run folder."""
    checkpoint_sha256: str | None = None
    environment: Environment


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRecord:
    """One epoch of one trial."""

    trial_id: str
    epoch: int
    """Counted from 1."""
    lr: float
    """Learning rate of the epoch's last step."""
    train_loss: float
    train_accuracy: float
    """On the augmented views of the epoch, while the weights were changing."""
    val_loss: float
    val_accuracy: float
    seconds: float
    """Training and validation of the epoch."""
    images_per_second: float
    """Training alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyRecord:
    """One variant of one trained model, measured alone on its device."""

    run: str
    trial_id: str
    """The training trial whose checkpoint was measured."""
    model: str
    arm: str
    stage: LatencyStage
    repeat: int = 0
    """Which fresh run of a confirmation this is; 0 in the grid."""
    checkpoint_sha256: str
    variant: str
    runtime: str
    precision: Precision
    compile: Compile
    channels_last: bool
    status: LatencyStatus
    error: str | None = None
    test_accuracy: float | None = None
    """Over the whole test set at a large batch, with this row's runtime, precision, layout and weights."""
    correct: bytes | None = None
    """Packed bits, one per test image in order, most significant first."""
    agreement: float | None = None
    """Share of test images given the same class as FP32 eager gives."""
    batch1_agreement: float | None = None
    """Share of the first 256 test images given the same class by the measured callable at batch 1 as at 256."""
    samples_ms: list[list[float]] | None = None
    """Raw samples, a list per repeat."""
    reference_ms: list[list[float]] | None = None
    """Raw samples of FP32 eager of the same weights in the same process, a list per repeat."""
    mean_ms: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    std_ms: float | None = None
    spread: float | None = None
    """Run-to-run spread: (largest - smallest) / smallest median of the repeats."""
    compile_seconds: float | None = None
    """Compilation of a batch-1 callable, outside the latency; None for eager variants."""
    compile_cold: bool | None = None
    """Whether compile_seconds began with an empty cache."""
    load_seconds: float | None = None
    """From weights on disk to the first answer, in the process that measured, caches warm."""
    artifact_mb: float | None = None
    """Weights as this variant holds them in memory."""
    checkpoint_mb: float | None = None
    parameters: int | None = None
    speedup: float | None = None
    """Median of the reference divided by the median of this variant, both from this row."""
    contended: bool | None = None
    """Whether other processes used the processor while this was measured."""
    foreign_cpu: float | None = None
    """Cores used by other processes, on average, while this was measured."""
    threads: int | None = None
    environment: Environment


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRecord:
    """What a precision and layout of a model answers on the test set; merged into the latency rows."""

    trial_id: str
    variant: str
    """Name of the eager variant."""
    status: LatencyStatus
    error: str | None = None
    test_accuracy: float | None = None
    test_images: int | None = None
    predictions: bytes | None = None
    """The predicted class of each test image in order, little-endian uint16."""
    correct: bytes | None = None
    """Packed bits, one per test image in order, most significant first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRecord:
    """One compilation of an architecture for a variant, done before anything is measured."""

    model: str
    variant: str
    status: LatencyStatus
    error: str | None = None
    compile_seconds: float | None = None
    compile_cold: bool | None = None


Record = TrialRecord | EpochRecord | LatencyRecord | EvaluationRecord | BuildRecord
