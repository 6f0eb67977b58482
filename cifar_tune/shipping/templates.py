"""The texts of a candidate's folder: the model card, and the files that make the folder an MLflow model."""

from __future__ import annotations

import json
import platform
import re
from typing import Any

from cifar_tune.records import LatencyRecord, TrialRecord
from cifar_tune.shipping.shipment import Shipment, Verification


def mlflow_files(requirements: list[str], side: int) -> dict[str, dict[str, Any]]:
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


def model_card(shipment: Shipment, verification: Verification) -> str:
    """What the model is, what it reaches and under which conditions, what it is not, and how to reproduce it."""
    row = shipment.row
    assert row.test_accuracy is not None
    low, high = shipment.accuracy_interval
    return f"""# {row.model}, {row.variant}

Tells {len(shipment.classes)} classes of images apart: {", ".join(map(plain_text, shipment.classes))}.

{shipment.reason}

{_use(shipment.image_size)}
## Data

{plain_text(shipment.data)}: {shipment.train_images} training and {shipment.test_images} test images.

## Training

{_recipe(shipment.recipe)}

## Accuracy

{row.test_accuracy:.2%} of the test images (95 % interval {low:.2%} to {high:.2%}), with the runtime, precision and
layout that are shipped. The folder itself: {verification}.

## Latency

{_latency(shipment)}

## Size

{_size(row)}

{_limits(row)}
{_reproduction(shipment)}
"""


def _use(side: int) -> str:
    return f"""## Use

    pip install -r requirements.txt
    python example.py IMAGE...

or, as an MLflow model, `mlflow models serve --model-uri . --env-manager local`.

`model.py` opens the deployed form, `candidate.json` has preprocessing and class names, `model.safetensors` the weights.
An image is made RGB, resized to {side} x {side} (bilinear), scaled to 0..1, and normalised with the mean and standard
deviation in `candidate.json`.
"""


def _limits(row: LatencyRecord) -> str:
    return f"""## Limits

- The accuracy is that of images like the test images. Other cameras, sizes or classes were not tried.
- The variant was chosen among those measured by accuracy on these test images and by latency: expect it to be slightly
  worse on others.
- The latency is that of one image at a time on the machine named above. Under load, in batches, and on other
  processors it is another one. Reading and resizing the image file is not in it.
{_int8_limit(row)}- The probabilities that `example.py` prints are not calibrated.
"""


def _reproduction(shipment: Shipment) -> str:
    row, machine, trial = shipment.row, shipment.row.environment, shipment.recipe
    only = (
        f" `python -m cifar_tune train --run RUN --trial {trial.trial_id}` trains only these weights." if trial else ""
    )
    return f"""## Reproduce

    {shipment.command}

Commit {machine.git_commit or "unknown"}, PyTorch {machine.torch}, Python {machine.python}; weights with the sha256
`{row.checkpoint_sha256}`.{only}"""


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


def plain_text(words: str) -> str:
    """Words from data as Markdown that shows them as they are, in one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~&])", r"\\\1", " ".join(words.split()))


def _latency(shipment: Shipment) -> str:
    row, fresh = shipment.row, shipment.fresh
    where = f"one image a call, from the host's view, {row.threads} thread(s) on {row.environment.device_name}"
    text = _screened(row, where) if fresh is None or fresh.typical_ms is None else _confirmed(fresh, where)
    if shipment.is_confirmed is False:
        text = f"NOT confirmed: new processes did not repeat the figures by which it was chosen. {text}"
    if row.speedup is not None:
        text += (
            f" {row.speedup:.2f} times ({row.speedup_low:.2f} to {row.speedup_high:.2f}) as fast as FP32 eager of the "
            f"same weights, in paired rounds{'' if fresh is None else ' before the choice'}."
        )
    return text + (" Other processes used the machine meanwhile." if (fresh or row).contended else "")


def _confirmed(fresh: LatencyRecord, where: str) -> str:
    """Of new processes after the choice, so that the winner's luck is not in it."""
    text = (
        f"Typically {fresh.typical_ms:.3f} ms ({fresh.typical_low_ms:.3f} to {fresh.typical_high_ms:.3f}), at best "
        f"{fresh.floor_ms:.3f} ms: {where}, in blocks of new processes after the choice."
    )
    if fresh.ratio is None or fresh.ratio_low is None:
        return text
    return (
        f"{text} That is {fresh.ratio:.3f} times the baseline's latency (95 % interval {fresh.ratio_low:.3f} to "
        f"{fresh.ratio_high:.3f})."
    )


def _screened(row: LatencyRecord, where: str) -> str:
    tails = [
        f"{name} {value:.3f} ms" for name, value in (("p95", row.p95_ms), ("p99", row.p99_ms)) if value is not None
    ]
    samples = sum(len(repeat) for repeat in row.samples_ms or [])
    return (
        f"p50 {row.p50_ms:.3f} ms (95 % interval {row.p50_low_ms:.3f} to {row.p50_high_ms:.3f})"
        f"{''.join(f', {tail}' for tail in tails)}: {where}, {samples} samples in {len(row.samples_ms or [])} repeats."
    )
