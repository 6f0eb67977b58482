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
LatencyStage = Literal["grid", "race", "confirm", "budget"]
LatencyStatus = Literal["ok", "fallback", "unsupported", "failed", "skipped"]


SEED_MARK = "-seed"
"""Between the recipe and the seed in the name of a finalist."""


def recipe_of(trial_id: str) -> str:
    """What the seeds of one finalist, or of a teacher, have in common: the trial's name without its seed."""
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
    """Distillation temperature; None where alpha is 0, since it is not used."""
    alpha: float
    weight_decay: float
    batch_size: int
    epochs: int
    epochs_run: int
    seed: int
    val_accuracy: float | None = None
    """Best-ever over the epochs; that epoch's weights are the checkpoint."""
    test_accuracy: float | None = None
    """Accuracy of FP32 eager on the test set, which only finalists read."""
    started_at: float | None = None
    """Unix time at which the training began."""
    train_seconds: float | None = None
    precision: TrainPrecision | None = None
    """Arithmetic of the training's steps; for `auto` what it chose. None: no epoch was finished, or it is unknown."""
    parameters: int | None = None
    checkpoint: str | None = None
    """Path of the weights relative to the run folder."""
    checkpoint_sha256: str | None = None
    teacher_sha256: str | None = None
    """Digest of the teacher's weights; None where no teacher was asked."""
    start_sha256: str | None = None
    """Digest of the weights that the training began with; None: fresh ones."""
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
    """In training; validation is not counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyRecord:
    """One variant of one trained model, measured with its device to itself."""

    run: str
    trial_id: str
    """The training trial whose checkpoint was measured."""
    model: str
    arm: str
    stage: LatencyStage
    block: int = 0
    """Which block of fresh processes of a race or a confirmation this is, counted from 1; 0 in the grid."""
    checkpoint_sha256: str
    variant: str
    runtime: str
    precision: Precision
    compile: Compile
    channels_last: bool
    single_thread: bool
    zeroed: float
    """Share of the weights that were set to zero: the smallest ones."""
    zeroed_by_layer: bool
    """Whether each layer has that share of zeros; else it is of the whole model."""
    status: LatencyStatus
    error: str | None = None
    test_accuracy: float | None = None
    """Over the whole test set, at a large batch, with this row's runtime, precision, layout and weights."""
    balanced_accuracy: float | None = None
    """Share of a class's test images that are recognised, as the mean over the classes."""
    auroc: float | None = None
    """Area under the ROC curve of the second of two classes. Of more: the mean, each class against all others."""
    precision_score: float | None = None
    """Share of the answers `second class` that are right. Of more than two classes: the mean over them."""
    recall_score: float | None = None
    """Share of the second class's test images that are found. Of more than two classes: the mean over them."""
    correct: bytes | None = None
    """A bit per test image, in order: whether the answer is right. Packed, most significant first."""
    agreement: float | None = None
    """Share of test images that get the same class as from FP32 eager."""
    batch1_agreement: float | None = None
    """Share of the first 256 test images that get the same class at batch 1, as measured, as at batch 256."""
    samples_ms: list[list[float]] | None = None
    """Raw samples, a list per repeat."""
    reference_ms: list[list[float]] | None = None
    """Raw samples of FP32 eager of the same weights, from the same process and rounds, a list per repeat. In a race and
    a confirmation: of the baseline, in a process of its own, from the rounds that this row took part in."""
    anchor_ms: list[list[float]] | None = None
    """Raw samples of one-thread FP32 eager of the same weights on the same core, in the rounds of a one-thread variant,
    a list per repeat; None for all others."""
    round_calls: int | None = None
    """Calls of the variant in a round. The samples of reference and anchor are divided among as many rounds."""
    mean_ms: float | None = None
    p50_ms: float | None = None
    """Geometric mean of the processes' medians; of one process the median of its samples."""
    p50_low_ms: float | None = None
    """Lower end of the 95 % confidence interval of the median that fresh processes give: a t-interval over the row's
    processes. Of one process it is wide: processes count as 15 % apart then."""
    p50_high_ms: float | None = None
    """Upper end of that interval."""
    ratio: float | None = None
    """How many times the baseline's latency this is, over all blocks of the stage, each beside the baseline. This and
    the next eight are the same in all of a stage's rows of one variant of one model, and None in the grid."""
    ratio_low: float | None = None
    """Lower end of its 95 % confidence interval over the blocks: where the true ratio lies."""
    ratio_high: float | None = None
    """Upper end of it."""
    rerun_low: float | None = None
    """Lower end of its 95 % prediction interval: where the ratio of another race of as many blocks will lie."""
    rerun_high: float | None = None
    """Upper end of it."""
    typical_ms: float | None = None
    """Median over the blocks of each block's median."""
    typical_low_ms: float | None = None
    """Lower end of its 95 % confidence interval; of fewer than six blocks the least of them."""
    typical_high_ms: float | None = None
    """Upper end of it; of fewer than six blocks the largest of them."""
    floor_ms: float | None = None
    """The best block's median, without an interval."""
    p95_ms: float | None = None
    """None where the samples cannot bound it: fewer than 130."""
    p95_bound_ms: float | None = None
    """Upper bound of p95 with 99 % confidence, by resampling processes, then calls. Where a row has few processes it
    covers those that are like them."""
    p99_ms: float | None = None
    """None where the samples cannot bound it: fewer than 662."""
    p99_bound_ms: float | None = None
    """The same of p99."""
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
    """Time of compilation or export for batch 1, not part of the latency; None where there is none."""
    compile_cold: bool | None = None
    """Whether compile_seconds began with an empty cache."""
    compile_beside: int | None = None
    """The most builds that ran at one time beside this one, on the same cores."""
    load_seconds: float | None = None
    """From weights on disk to the first answer, with warm caches. The row's other processes load beside it."""
    measure_seconds: float | None = None
    """What the row took: processes, loading, warm-up and samples. What a fallback gave up is part of it."""
    note: str | None = None
    """What a reader of the row must know: for example, what the variant's precision leaves out."""
    artifact_mb: float | None = None
    """Size of what this variant deploys: its file, or its weights as held in memory."""
    compressed_mb: float | None = None
    """Size of PyTorch's own FP32 weights, deflated. Only there do zeros show."""
    checkpoint_mb: float | None = None
    parameters: int | None = None
    speedup: float | None = None
    """FP32 eager of the same weights divided by this variant, in paired rounds: the median of a process's rounds, the
    geometric mean over processes."""
    speedup_low: float | None = None
    """Lower end of its 95 % confidence interval, over processes as that of the median."""
    speedup_high: float | None = None
    """Upper end of that interval."""
    contended: bool | None = None
    """Whether others used the device in a window that was kept, since it could not be taken again."""
    windows: int | None = None
    """Windows of samples that were kept."""
    windows_discarded: int | None = None
    """Windows taken again because others used the device."""
    foreign_cpu: float | None = None
    """Cores used by other processes, steal included, in the worst window."""
    steal_cpu: float | None = None
    """Cores taken by the hypervisor in the worst window."""
    load_average: float | None = None
    """Load average of one minute, at the end, with this measurement in it."""
    gpu_uuid: str | None = None
    """Which card it was, as NVML names it; None: no GPU, or NVML is not at hand."""
    gpu_processes: int | None = None
    """The most other processes seen on the GPU. This and the next four are None without a GPU or NVML."""
    gpu_throttled: bool | None = None
    """Whether heat, power or hardware protection held the clock down."""
    gpu_clock_mhz: int | None = None
    """Lowest clock seen."""
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
    """What a precision and layout of a model answers on the test set. It is merged into the latency rows."""

    trial_id: str
    variant: str
    """The eager variant, or the variant itself where its runtime answers the whole test set."""
    status: LatencyStatus
    error: str | None = None
    test_accuracy: float | None = None
    balanced_accuracy: float | None = None
    """Share of a class's test images that are recognised, as the mean over the classes."""
    auroc: float | None = None
    """Area under the ROC curve of the second of two classes. Of more: the mean, each class against all others."""
    precision_score: float | None = None
    """Share of the answers `second class` that are right. Of more than two classes: the mean over them."""
    recall_score: float | None = None
    """Share of the second class's test images that are found. Of more than two classes: the mean over them."""
    test_images: int | None = None
    compressed_mb: float | None = None
    """Size of the weights that answered, deflated, where they are PyTorch's own in FP32."""
    predictions: bytes | None = None
    """The predicted class of each test image in order, little-endian uint16."""
    correct: bytes | None = None
    """A bit per test image, in order: whether the answer is right. Packed, most significant first."""


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
    """How much one parameter of a search mattered."""

    run: str
    arm: str
    model: str
    parameter: str
    importance: float
    """Share of the variance of validation accuracy that it explains (fANOVA). The shares of a search add up to 1."""
    trials: int
    """Finished trials that the figure rests on."""
    chance: float | None = None
    """How often the parameter has as large a share where accuracies are shuffled among the trials, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingRecord:
    """One load on the candidate behind HTTP."""

    run: str
    trial_id: str
    model: str
    arm: str
    checkpoint_sha256: str
    variant: str
    users: int
    """Users at the same time. Each sends the next image as soon as the last is answered."""
    seconds: float
    """Length of the load, counted from when all users have begun."""
    requests: int
    failures: int
    """Requests that were refused, given up or not answered."""
    throughput: float
    """Answered requests a second."""
    p50_ms: float | None = None
    """From sending to the answer, of answered requests, on the machine that serves. The same for p95 and p99."""
    p95_ms: float | None = None
    p99_ms: float | None = None
    p95_limit_ms: float
    """The limit that p95 is held against."""
    meets: bool
    """Whether p95 is within the limit and no request failed."""
    replicas: int
    batch: int
    """The most images that a replica takes at a time."""
    together: float | None = None
    """Images that it did take at a time, as the mean over the answered requests."""
    environment: Environment
    """The machine that serves and sends."""
