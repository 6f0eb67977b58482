"""The folder that is shipped: the chosen weights, the form that is deployed, what opens it, and a card that says all.

It needs nothing of this package: `example.py` in it classifies image files with the deployed form's own runtime.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cifar_tune import deployed
from cifar_tune.errors import failure
from cifar_tune.records import LatencyRecord, TrialRecord
from cifar_tune.runtimes import RUNTIMES, Source
from cifar_tune.runtimes.onnxruntime import OPSET
from cifar_tune.store import replace_file

CARD = "candidate.json"
MODEL_CARD = "MODEL_CARD.md"
CHECK_SECONDS = 60.0
"""Of single images, after the candidate has been written: as many test images as this allows are classified again."""
START_SECONDS = 300.0
"""What a fresh process may take besides: imports, and torch.compile."""
MAX_MISMATCH = 0.005
"""Share of test images on which a candidate that is verified may be right where its row was wrong, or wrong."""

_ALONE = (
    "import runpy, sys; sys.modules['cifar_tune'] = None; sys.path.insert(0, '.'); "
    "runpy.run_path('predict.py', run_name='__main__')"
)
"""Runs `predict.py` as if this package were not installed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shipment:
    """What is shipped, and what its card says."""

    row: LatencyRecord
    """Of the grid."""
    recipe: TrialRecord | None
    """How its weights were trained; None: they were given."""
    checkpoint: Path
    data: str
    """What the data set is called."""
    train_images: int
    test_images: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    accuracy_interval: tuple[float, float]
    """95 % interval of the row's test accuracy, fractions."""
    reason: str
    """Why it was chosen."""
    command: str
    """What gave the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What the written folder answered in a fresh process, without this package."""

    ok: bool
    images: int
    """The first of the test images, as many as time allowed."""
    accuracy: float | None = None
    agreement: float | None = None
    """Share of these images given the same class as FP32 eager gives."""
    problem: str | None = None

    def __str__(self) -> str:
        if self.accuracy is None or self.agreement is None:
            return f"NOT verified: {self.problem}"
        read = (
            f"accuracy {self.accuracy:.2%}, agreement with FP32 eager {self.agreement:.2%} on {self.images} test images"
        )
        return f"verified in a fresh process: {read}" if self.ok else f"NOT verified: {self.problem} ({read})"


def make_candidate(
    folder: Path, shipment: Shipment, source: Source, pixels: np.ndarray, labels: np.ndarray, fp32: np.ndarray
) -> Verification:
    """Write the folder, check it, and put it in the place of an earlier one.

    Args:
        source: of the chosen row.
        pixels, labels, fp32: see `verify`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, "candidate")
        write_candidate(made, shipment)
        try:
            deploy(source, made)
        except Exception as error:  # noqa: BLE001 - whatever an exporter cannot do, the weights are there
            verification = Verification(ok=False, images=0, problem=failure(error))
        else:
            verification = verify(made, shipment.row, pixels, labels, fp32)
        note_verification(made, shipment, verification)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made, folder, ignore=shutil.ignore_patterns(CARD))
        replace_file(
            folder / CARD, lambda path: shutil.copyfile(made / CARD, path)
        )  # the last: it says that all is there
    return verification


def deploy(source: Source, folder: Path) -> None:
    """Put the form of a variant that is deployed into the folder: its artifact, or what its runtime makes for it."""
    runtime = RUNTIMES[source.variant.runtime]
    if runtime.export is not None:
        if not source.folder.is_dir():  # a resumed run's artifacts are gone
            source.folder.mkdir(parents=True)
            runtime.export(source)
        shutil.copytree(source.folder, folder, dirs_exist_ok=True)
    if runtime.deploy is not None:
        runtime.deploy(source, folder)


def write_candidate(folder: Path, shipment: Shipment) -> None:
    """Write weights, card and the files that open the deployed form, which `deploy` adds, into the folder."""
    folder.mkdir(exist_ok=True)
    shutil.copyfile(shipment.checkpoint, folder / "model.safetensors")
    code = Path(deployed.__file__).parent
    shutil.copyfile(code / f"{shipment.row.runtime}.py", folder / "model.py")
    for name in ("example.py", "predict.py", "mlflow_model.py"):
        shutil.copyfile(code / name, folder / name)
    requirements = _requirements(shipment.row.runtime)
    (folder / "requirements.txt").write_text(requirements)
    for name, content in _mlflow_files(requirements.split(), shipment.image_size).items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    _write_card(folder, _card(shipment))


def _mlflow_files(requirements: list[str], side: int) -> dict[str, dict[str, Any]]:
    """File -> content, of what makes the folder an MLflow model, as managed endpoints take it. JSON is YAML, too."""
    python = platform.python_version()
    images = [{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, side, side, 3]}}]
    return {
        "MLmodel": {
            "flavors": {
                "python_function": {
                    "loader_module": "mlflow_model",
                    "code": ".",
                    "data": ".",
                    "python_version": python,
                    "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                }
            },
            "signature": {"inputs": json.dumps(images), "outputs": None, "params": None},
        },
        "python_env.yaml": {
            "python": python,
            "build_dependencies": ["pip"],
            "dependencies": ["mlflow", "-r requirements.txt"],
        },
        "conda.yaml": {
            "name": "candidate",
            "channels": ["conda-forge"],
            "dependencies": [f"python={python}", "pip", {"pip": ["mlflow", *requirements]}],
        },
    }


def verify(folder: Path, row: LatencyRecord, pixels: np.ndarray, labels: np.ndarray, fp32: np.ndarray) -> Verification:
    """Classify test images with the folder alone, one by one in a fresh process, and compare with the row.

    Args:
        pixels: uint8 (N, H, W, 3), the test images.
        labels: int (N,).
        fp32: int (N,), the classes that FP32 eager of the same weights gives.
    """
    assert row.p50_ms is not None
    assert row.correct is not None
    images = max(1, min(len(pixels), int(CHECK_SECONDS * 1e3 / row.p50_ms)))
    with tempfile.TemporaryDirectory() as scratch:
        given, answers = Path(scratch, "images.npy"), Path(scratch, "classes.npy")
        np.save(given, pixels[:images])
        problem = _predict(folder, given, answers)
        if problem is not None:
            return Verification(ok=False, images=images, problem=problem)
        classes = np.load(answers)
    right = classes == labels[:images]
    recorded = np.unpackbits(np.frombuffer(row.correct, np.uint8), count=len(pixels))[:images].astype(bool)
    mismatch = float((right != recorded).mean())
    # where the row itself differs from FP32, near-ties turn from batch to batch; of few images one may
    allowed = max(MAX_MISMATCH + 1 - (row.agreement or 1.0), 1 / images)
    said = f"{mismatch:.2%} of the answers are right where the row's were wrong, or wrong where they were right"
    return Verification(
        ok=mismatch <= allowed,
        images=images,
        accuracy=float(right.mean()),
        agreement=float((classes == fp32[:images]).mean()),
        problem=said if mismatch > allowed else None,
    )


def _predict(folder: Path, images: Path, answers: Path) -> str | None:
    """Run the folder's `predict.py`; what went wrong, or None."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-B", "-c", _ALONE, str(images), str(answers)]
    limit = START_SECONDS + 10 * CHECK_SECONDS
    try:
        ended = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it did not answer within {limit:.0f} s"
    if ended.returncode == 0:
        return None
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"it ended with code {ended.returncode}"


def note_verification(folder: Path, shipment: Shipment, verification: Verification) -> None:
    """Write it into both cards."""
    text = model_card(shipment, verification).encode("utf-8", "backslashreplace")  # names of files may be no text
    (folder / MODEL_CARD).write_bytes(text)
    _write_card(folder, {**_card(shipment), "verification": asdict(verification)})


def is_shipped(folder: Path, row: LatencyRecord) -> bool:
    """Whether the folder holds this row already, whole and verified."""
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
        held = (card["checkpoint_sha256"], card["variant"])
        return held == (row.checkpoint_sha256, asdict(row.measured_variant)) and card["verification"]["ok"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_card(folder: Path, card: dict[str, Any]) -> None:
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _card(shipment: Shipment) -> dict[str, Any]:
    row = shipment.row
    return {
        "model": row.model,
        "arm": row.arm,
        "trial_id": row.trial_id,
        "checkpoint_sha256": row.checkpoint_sha256,
        "variant": asdict(row.measured_variant),
        "device": row.environment.device,
        "device_name": row.environment.device_name,
        "threads": row.threads,
        "image_size": shipment.image_size,
        "mean": list(shipment.mean),
        "std": list(shipment.std),
        "classes": list(shipment.classes),
        "test_accuracy": row.test_accuracy,
        "test_accuracy_interval": list(shipment.accuracy_interval),
        "p50_ms": row.p50_ms,
        "p95_ms": row.p95_ms,
        "p99_ms": row.p99_ms,
        "speedup": row.speedup,
        "deployed_mb": row.artifact_mb,
        "checkpoint_mb": row.checkpoint_mb,
        "onnx_opset": OPSET if row.runtime == "onnxruntime" else None,
    }


def _requirements(runtime: str) -> str:
    """The packages that the folder needs, in the versions that were measured."""
    distributions = importlib.metadata.packages_distributions()
    names = [distributions[module][0] for module in ("numpy", "PIL", *RUNTIMES[runtime].modules)]
    with_libraries = {"onnxruntime-gpu": "onnxruntime-gpu[cuda,cudnn]"}
    # a local build's mark, +cpu or +cu130, is in no package index
    versions = {name: importlib.metadata.version(name).partition("+")[0] for name in names}
    return "".join(f"{with_libraries.get(name, name)}=={version}\n" for name, version in versions.items())


def model_card(shipment: Shipment, verification: Verification) -> str:
    """What the model is, what it reaches and under which conditions, what it is not, and how to get it again."""
    row, machine, side = shipment.row, shipment.row.environment, shipment.image_size
    assert row.test_accuracy is not None
    low, high = shipment.accuracy_interval
    return f"""# {row.model}, {row.variant}

Tells {len(shipment.classes)} classes of images apart: {", ".join(map(plain_text, shipment.classes))}.

{shipment.reason}

## Use

    pip install -r requirements.txt
    python example.py IMAGE...

or, as an MLflow model, `mlflow models serve --model-uri . --env-manager local`.

`model.py` opens the deployed form, `candidate.json` has preprocessing and class names, `model.safetensors` the weights.
An image is made RGB, resized to {side} x {side} (bilinear), scaled to 0..1, and normalised with the mean and standard
deviation in `candidate.json`.

## Data

{plain_text(shipment.data)}: {shipment.train_images} training and {shipment.test_images} test images.

## Training

{_recipe(shipment.recipe)}

## Accuracy

{row.test_accuracy:.2%} of the test images (95 % interval {low:.2%} to {high:.2%}), with the runtime, precision and
layout that are shipped. The folder itself: {verification}.

## Latency

{_latency(row)}

## Size

{_size(row)}

## Limits

- The accuracy is that of images like the test images. Other cameras, sizes or classes were not tried.
- The variant was chosen among those measured by accuracy on these test images and by latency: expect it to be slightly
  worse on others.
- The latency is that of one image at a time on the machine named above. Under load, in batches, and on other
  processors it is another one. Reading and resizing the image file is not in it.
{_int8_limit(row)}- The probabilities that `example.py` prints are not calibrated.

## Again

    {shipment.command}

Commit {machine.git_commit or "unknown"}, PyTorch {machine.torch}, Python {machine.python}; weights with the sha256
`{row.checkpoint_sha256}`.{_again(shipment.recipe)}
"""


def _int8_limit(row: LatencyRecord) -> str:
    if not row.precision.startswith("int8") or row.environment.device != "cpu":
        return ""
    return (
        "- INT8 was built and judged on that machine's processor. Sums of its products overflow on x86 processors\n"
        "  without VNNI, unless it was built on one: judge it again where it shall run.\n"
    )


def _size(row: LatencyRecord) -> str:
    if row.artifact_mb is None or row.checkpoint_mb is None:
        return "It was not measured."
    return f"{row.artifact_mb:.2f} MB as deployed; the checkpoint of its FP32 weights has {row.checkpoint_mb:.2f} MB."


def _recipe(trial: TrialRecord | None) -> str:
    if trial is None:
        return "The weights were given; how they were trained is not known here."
    teacher = ""
    if trial.temperature is not None:
        teacher = f" Distilled from a teacher with temperature {trial.temperature:.3g} and weight {trial.alpha:.3g}."
    return (
        f"{trial.epochs_run} epochs of {trial.optimizer}, learning rate {trial.lr:.3g} ({trial.schedule}), batches of "
        f"{trial.batch_size}, weight decay {trial.weight_decay:.3g}, seed {trial.seed}.{teacher} "
        + (
            "Its recipe was chosen by validation accuracy, then trained anew with this seed."
            if trial.stage == "final"
            else "The best of its search by validation accuracy."
        )
    )


def _again(trial: TrialRecord | None) -> str:
    if trial is None:
        return ""
    return f" `python -m cifar_tune train --run RUN --trial {trial.trial_id}` trains them alone once more."


def plain_text(words: str) -> str:
    """Words from data as Markdown that shows them as they are, in one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~&])", r"\\\1", " ".join(words.split()))


def _latency(row: LatencyRecord) -> str:
    machine = row.environment
    tails = [
        f"{name} {value:.3f} ms" for name, value in (("p95", row.p95_ms), ("p99", row.p99_ms)) if value is not None
    ]
    samples = sum(len(repeat) for repeat in row.samples_ms or [])
    text = (
        f"p50 {row.p50_ms:.3f} ms (95 % interval {row.p50_low_ms:.3f} to {row.p50_high_ms:.3f})"
        f"{''.join(f', {tail}' for tail in tails)}: one image a call, from the host's view, {row.threads} thread(s) on "
        f"{machine.device_name}, {samples} samples in {len(row.samples_ms or [])} repeats."
    )
    if row.speedup is not None:
        text += (
            f" {row.speedup:.2f} times ({row.speedup_low:.2f} to {row.speedup_high:.2f}) as fast as FP32 eager of the "
            "same weights, in paired rounds."
        )
    return text + (" Other processes used the machine meanwhile." if row.contended else "")
