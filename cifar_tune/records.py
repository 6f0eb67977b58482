"""What a trial leaves behind: frozen dataclasses, one a Parquet row.

The columns of `trials.parquet`, `epochs.parquet` and `latency.parquet` follow these fields, so a new figure is
one field here, set where it is measured. Failure is a value: `status` and `error` say what happened, and the
measurements of a trial that did not measure are None. Accuracies are fractions 0 to 1, times are seconds unless
the name ends in `_ms`, sizes are MB = 10**6 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from cifar_tune.config import Compile, Precision, TrainPrecision, Variant

Stage = Literal["teacher", "plain", "distill", "final"]
TrialStatus = Literal["ok", "pruned", "failed"]
LatencyStage = Literal["grid", "confirm", "budget"]
LatencyStatus = Literal["ok", "fallback", "unsupported", "failed", "skipped"]


SEED_MARK = "-seed"
"""Between the recipe and the seed in the name of a finalist."""


def recipe_of(trial_id: str) -> str:
    """What the seeds of one finalist have in common: the trial's name without its seed."""
    return trial_id.rsplit(SEED_MARK, 1)[0]


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
    runtimes: str = ""
    """What else runs models here, such as `onnxruntime==1.31.1 openvino==2026.4.1`."""
    git_commit: str | None = None
    """Commit of the checkout, with `+` when it has local changes; None outside a checkout."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """One training trial. Those of stage `final` have read the test set, once.

    A student's finalists are trained anew, at full length and with new seeds; the teacher's is its best trial.
    """

    run: str
    trial_id: str
    stage: Stage
    arm: str
    """teacher, plain or distill."""
    model: str
    dataset: str
    status: TrialStatus
    error: str | None = None
    note: str | None = None
    """What went another way than planned, though the result is the same."""
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
    precision: TrainPrecision | None = None
    """Arithmetic of the training's steps, whatever `auto` stood for; None: no epoch was finished, or it is unknown."""
    parameters: int | None = None
    checkpoint: str | None = None
    """Path of the weights relative to the run folder."""
    checkpoint_sha256: str | None = None
    teacher_sha256: str | None = None
    """Of the teacher's weights; None where no teacher was asked."""
    start_sha256: str | None = None
    """Of the weights that the training began with; None: fresh ones."""
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
    single_thread: bool
    zeroed: float
    """Share of the weights that are zero, the smallest."""
    zeroed_by_layer: bool
    status: LatencyStatus
    error: str | None = None
    test_accuracy: float | None = None
    """Over the whole test set at a large batch, with this row's runtime, precision, layout and weights."""
    balanced_accuracy: float | None = None
    """Mean over the classes of the share of their test images that are recognised."""
    auroc: float | None = None
    """Area under the ROC curve of the second of two classes; of more the mean over them, each against all others."""
    precision_score: float | None = None
    """Share of the answers `second class` that are right; of more than two classes the mean over them."""
    recall_score: float | None = None
    """Share of the second class's test images that are found; of more than two classes the mean over them."""
    correct: bytes | None = None
    """Packed bits, one per test image in order, most significant first."""
    agreement: float | None = None
    """Share of test images given the same class as FP32 eager gives."""
    batch1_agreement: float | None = None
    """Share of the first 256 test images given the same class by the measured callable at batch 1 as at 256."""
    samples_ms: list[list[float]] | None = None
    """Raw samples, a list per repeat."""
    reference_ms: list[list[float]] | None = None
    """Raw samples of FP32 eager of the same weights in the same process, a list per repeat, in the same rounds."""
    round_calls: int | None = None
    """Calls of the variant in a round; the reference's samples are divided among as many rounds."""
    mean_ms: float | None = None
    p50_ms: float | None = None
    p50_low_ms: float | None = None
    """Lower end of the 95 % confidence interval of the median."""
    p50_high_ms: float | None = None
    """Upper end of it."""
    p95_ms: float | None = None
    """None where the samples cannot bound it: fewer than 130."""
    p95_bound_ms: float | None = None
    """Upper bound of p95 with 99 % confidence, an order statistic."""
    p99_ms: float | None = None
    """None where the samples cannot bound it: fewer than 662."""
    p99_bound_ms: float | None = None
    """Upper bound of p99 with 99 % confidence, an order statistic."""
    std_ms: float | None = None
    spread: float | None = None
    """Run-to-run spread: (largest - smallest) / smallest median of the repeats."""
    protocol: str
    """The settings of the measurement, as JSON: rows of unlike protocols do not compare."""
    settled: bool | None = None
    """Whether the warm-up became stable in each repeat."""
    device_ms: float | None = None
    """Median time between events on the GPU, beside the host's clock; None on CPU."""
    compile_seconds: float | None = None
    """Compilation or export of a batch-1 callable, outside the latency; None where there is none."""
    compile_cold: bool | None = None
    """Whether compile_seconds began with an empty cache."""
    compile_beside: int | None = None
    """Most builds that ran beside this one, on the same cores."""
    load_seconds: float | None = None
    """From weights on disk to the first answer, in the process that measured, caches warm; beside the row's others."""
    measure_seconds: float | None = None
    """What the row took: processes, loading, warm-up and samples, and those of what a fallback gave up."""
    note: str | None = None
    """What a reader of the row must know, for example what the variant's precision leaves out."""
    artifact_mb: float | None = None
    """What this variant deploys: its file, or its weights as held in memory."""
    compressed_mb: float | None = None
    """Of PyTorch's own FP32 weights, deflated: zeros show there alone."""
    checkpoint_mb: float | None = None
    parameters: int | None = None
    speedup: float | None = None
    """Median over the paired rounds of FP32 eager of the same weights divided by this variant."""
    speedup_low: float | None = None
    """Lower end of its 95 % bootstrap interval."""
    speedup_high: float | None = None
    """Upper end of it."""
    contended: bool | None = None
    """Whether others used the device in a window that was kept, after the limit of repetitions."""
    windows: int | None = None
    """Windows of samples that were kept."""
    windows_discarded: int | None = None
    """Windows taken again because others used the device."""
    foreign_cpu: float | None = None
    """Cores used by other processes, steal included, in the worst window."""
    steal_cpu: float | None = None
    """Cores taken by the hypervisor in the worst window."""
    load_average: float | None = None
    """Of one minute, at the end, this measurement included."""
    gpu_processes: int | None = None
    """Other processes on the GPU, the most seen; None: no GPU, or NVML is not at hand. So below."""
    gpu_throttled: bool | None = None
    """Whether heat, power or hardware protection held the clock down."""
    gpu_clock_mhz: int | None = None
    """Lowest seen."""
    gpu_temperature: int | None = None
    """Degrees Celsius, highest seen."""
    gpu_power_w: float | None = None
    """Watts, highest seen."""
    cores: str | None = None
    """Logical cores to which the measuring process was pinned."""
    threads: int | None = None
    """CPU threads of the variant; its reference had all."""
    environment: Environment

    @property
    def measured_variant(self) -> Variant:
        """What the row measured."""
        return Variant(**{f.name: getattr(self, f.name) for f in fields(Variant)})


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationRecord:
    """What a precision and layout of a model answers on the test set; merged into the latency rows."""

    trial_id: str
    variant: str
    """The eager variant, or the variant itself where its runtime answers the whole test set."""
    status: LatencyStatus
    error: str | None = None
    test_accuracy: float | None = None
    balanced_accuracy: float | None = None
    """Mean over the classes of the share of their test images that are recognised."""
    auroc: float | None = None
    """Area under the ROC curve of the second of two classes; of more the mean over them, each against all others."""
    precision_score: float | None = None
    """Share of the answers `second class` that are right; of more than two classes the mean over them."""
    recall_score: float | None = None
    """Share of the second class's test images that are found; of more than two classes the mean over them."""
    test_images: int | None = None
    compressed_mb: float | None = None
    """Of the weights that answered, where they are PyTorch's own in FP32: deflated."""
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
    trial_id: str | None = None
    """Whose weights are in the artifact; None: none are, one build serves all trials of the model."""
    compile_seconds: float | None = None
    compile_cold: bool | None = None
    started_at: float | None = None
    """Unix time; with compile_seconds it says which builds ran beside each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportanceRecord:
    """What one parameter of a search mattered; a row of `importance.parquet`."""

    run: str
    arm: str
    model: str
    parameter: str
    importance: float
    """Share of the variance of validation accuracy that it explains (fANOVA); all of a search's add up to 1."""
    trials: int
    """Finished trials it rests on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingRecord:
    """One load on the candidate behind HTTP; a row of `serving.parquet`."""

    run: str
    trial_id: str
    model: str
    arm: str
    checkpoint_sha256: str
    variant: str
    users: int
    """Who send at the same time, each the next image as soon as the last is answered."""
    seconds: float
    """For how long, the time until all have begun left out."""
    requests: int
    failures: int
    """Requests that were refused, given up or not answered."""
    throughput: float
    """Answered requests a second."""
    p50_ms: float | None = None
    """From sending to the answer, on the machine that serves; of answered requests. So below."""
    p95_ms: float | None = None
    p99_ms: float | None = None
    p95_limit_ms: float
    """What p95 may be."""
    meets: bool
    """Whether p95 is within it, and nothing failed."""
    replicas: int
    batch: int
    """Images that a replica takes at a time, at most."""
    together: float | None = None
    """Images that it did take at a time, as the mean of the answered requests saw it."""
    environment: Environment
    """Of the machine that serves, and sends."""


Record = TrialRecord | EpochRecord | LatencyRecord | EvaluationRecord | BuildRecord
