"""The folder that is shipped: the chosen weights, the form that is deployed, what opens it, and a card that says all.

It needs nothing of this package: `example.py` in it classifies image files with the deployed form's own runtime.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
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
from cifar_tune.records import LatencyRecord
from cifar_tune.runtimes import RUNTIMES, Source
from cifar_tune.runtimes.onnxruntime import OPSET
from cifar_tune.shipping.shipment import Shipment, Verification
from cifar_tune.shipping.templates import mlflow_files, model_card
from cifar_tune.store import replace_file

CARD = "candidate.json"
MODEL_CARD = "MODEL_CARD.md"
CHECK_SECONDS = 60.0
"""Of single images, after the candidate has been written: as many test images as this allows are classified again."""
START_SECONDS = 300.0
"""What a fresh process may take besides: imports, and torch.compile."""
MAX_MISMATCH = 0.005
"""Share of test images on which a candidate that is verified may be right where its row was wrong, or wrong."""

_WITHOUT_PACKAGE = (
    "import runpy, sys; sys.modules['cifar_tune'] = None; sys.path.insert(0, '.'); "
    "runpy.run_path('predict.py', run_name='__main__')"
)
"""Runs `predict.py` as if this package were not installed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckImages:
    """What a candidate is checked with."""

    pixels: np.ndarray
    """The test images: uint8 (N, H, W, 3)."""
    labels: np.ndarray
    """int (N,)."""
    fp32: np.ndarray
    """The classes that FP32 eager of the same weights gives them: int (N,)."""


def make_candidate(folder: Path, shipment: Shipment, source: Source, images: CheckImages) -> Verification:
    """Write the folder, check it, and put it in the place of an earlier one.

    Args:
        source: of the chosen row.
    """
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, "candidate")
        write_candidate(made, shipment)
        try:
            deploy(source, made)
        except Exception as error:  # noqa: BLE001 - whatever an exporter cannot do, the weights are there
            verification = Verification(ok=False, images=0, problem=failure(error))
        else:
            verification = verify(made, shipment.row, images)
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
    packages = _requirements(shipment.row.runtime)
    (folder / "requirements.txt").write_text(packages)
    for name, content in mlflow_files(packages.split(), shipment.image_size).items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    _write_card(folder, _card(shipment))


def verify(folder: Path, row: LatencyRecord, images: CheckImages) -> Verification:
    """Classify test images with only what the folder holds, one by one in a fresh process, and compare with the row."""
    assert row.p50_ms is not None
    assert row.correct is not None
    total = len(images.pixels)
    checked = max(1, min(total, int(CHECK_SECONDS * 1e3 / row.p50_ms)))
    with tempfile.TemporaryDirectory() as scratch:
        given, answers = Path(scratch, "images.npy"), Path(scratch, "classes.npy")
        np.save(given, images.pixels[:checked])
        problem = _predict(folder, given, answers)
        if problem is not None:
            return Verification(ok=False, images=checked, problem=problem)
        classes = np.load(answers)
    right = classes == images.labels[:checked]
    recorded = np.unpackbits(np.frombuffer(row.correct, np.uint8), count=total)[:checked].astype(bool)
    mismatch = float((right != recorded).mean())
    # where the row itself differs from FP32, near-ties turn from batch to batch; of few images one may
    allowed = max(MAX_MISMATCH + 1 - (row.agreement or 1.0), 1 / checked)
    said = f"{mismatch:.2%} of the answers are right where the row's were wrong, or wrong where they were right"
    return Verification(
        ok=mismatch <= allowed,
        images=checked,
        accuracy=float(right.mean()),
        agreement=float((classes == images.fp32[:checked]).mean()),
        problem=said if mismatch > allowed else None,
    )


def _predict(folder: Path, images: Path, answers: Path) -> str | None:
    """Run the folder's `predict.py`; what went wrong, or None."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-B", "-c", _WITHOUT_PACKAGE, str(images), str(answers)]
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


def is_shipped(folder: Path, shipment: Shipment) -> bool:
    """Whether the folder holds this candidate already, whole and verified, with the figures that are stated of it."""
    try:
        there: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
        row = shipment.row
        wanted = {"variant": asdict(row.measured_variant), **_latency(shipment)}
        same = there["checkpoint_sha256"] == row.checkpoint_sha256 and wanted.items() <= there.items()
        return same and there["verification"]["ok"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_card(folder: Path, content: dict[str, Any]) -> None:
    (folder / CARD).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


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
        **_latency(shipment),
        "speedup": row.speedup,
        "deployed_mb": row.artifact_mb,
        "checkpoint_mb": row.checkpoint_mb,
        "onnx_opset": OPSET if row.runtime == "onnxruntime" else None,
    }


def _latency(shipment: Shipment) -> dict[str, Any]:
    """The figures of new processes where there are some; their blocks bound no percentile."""
    row, fresh = shipment.row, shipment.fresh
    if fresh is None or fresh.typical_ms is None:
        return {"figure": "screen", "confirmed": None, "p50_ms": row.p50_ms, "p95_ms": row.p95_ms, "p99_ms": row.p99_ms}
    return {
        "figure": "confirm", "confirmed": shipment.is_confirmed, "p50_ms": fresh.typical_ms, "p95_ms": None,
        "p99_ms": None, "floor_ms": fresh.floor_ms, "ratio": fresh.ratio,
    }  # fmt: skip


def _requirements(runtime: str) -> str:
    """The packages that the folder needs, in the versions that were measured."""
    distributions = importlib.metadata.packages_distributions()
    names = [distributions[module][0] for module in ("numpy", "PIL", *RUNTIMES[runtime].modules)]
    with_libraries = {"onnxruntime-gpu": "onnxruntime-gpu[cuda,cudnn]"}
    # a local build's mark, +cpu or +cu130, is in no package index
    versions = {name: importlib.metadata.version(name).partition("+")[0] for name in names}
    return "".join(f"{with_libraries.get(name, name)}=={version}\n" for name, version in versions.items())
