"""The folder that is shipped: the chosen weights, what is needed to run them, and an example that does."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from cifar_tune.records import LatencyRecord

EXAMPLE = '''"""Classify image files with this model:  python example.py IMAGE..."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cifar_tune.config import Variant
from cifar_tune.runtimes import RUNTIMES, Source
from cifar_tune.teacher import load_model

here = Path(__file__).parent
card = json.loads((here / "candidate.json").read_text())
size, device = card["image_size"], card["device"]
torch.set_num_threads(card["threads"])
source = Source(
    model=load_model(card["model"], len(card["classes"]), here / "model.safetensors"),
    variant=Variant(**card["variant"]),
    device=device,
    example=torch.zeros(1, 3, size, size, device=device),
    threads=card["threads"],
    folder=here,
)
runnable = RUNTIMES[card["variant"]["runtime"]].load(source)

for name in sys.argv[1:]:
    pixels = np.asarray(Image.open(name).convert("RGB").resize((size, size)), dtype=np.float32) / 255
    image = (pixels - np.array(card["mean"], np.float32)) / np.array(card["std"], np.float32)
    batch = runnable.prepare_input(torch.from_numpy(image).permute(2, 0, 1)[None].to(device))
    with runnable.scope():
        probabilities = runnable.call(batch).float().softmax(1)[0]
    best = int(probabilities.argmax())
    print(f"{name}: {card['classes'][best]} ({float(probabilities[best]):.1%})")
'''


def write_candidate(
    run: Path,
    row: LatencyRecord,
    checkpoint: Path,
    artifact: Path | None,
    classes: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    image_size: int,
) -> Path:
    """Write `<run>/candidate/` for the chosen latency row, its weights and its artifact; returns the folder.

    Args:
        artifact: the folder of what the row's runtime loads; None: it loads the weights.
    """
    folder = run / "candidate"
    folder.mkdir(exist_ok=True)
    shutil.copyfile(checkpoint, folder / "model.safetensors")
    if artifact is not None:
        shutil.copytree(artifact, folder, dirs_exist_ok=True)
    variant = asdict(row.measured_variant)
    card = {
        "model": row.model,
        "arm": row.arm,
        "trial_id": row.trial_id,
        "checkpoint_sha256": row.checkpoint_sha256,
        "variant": variant,
        "device": row.environment.device,
        "device_name": row.environment.device_name,
        "threads": row.threads,
        "image_size": image_size,
        "mean": list(mean),
        "std": list(std),
        "classes": list(classes),
        "test_accuracy": row.test_accuracy,
        "p50_ms": row.p50_ms,
        "p95_ms": row.p95_ms,
    }
    (folder / "candidate.json").write_text(json.dumps(card, indent=2) + "\n")
    (folder / "example.py").write_text(EXAMPLE)
    return folder


def is_shipped(run: Path, row: LatencyRecord) -> bool:
    """Whether `<run>/candidate/` holds this row already."""
    path = run / "candidate" / "candidate.json"
    if not path.is_file():
        return False
    card = json.loads(path.read_text())
    return (card["checkpoint_sha256"], card["variant"]) == (row.checkpoint_sha256, asdict(row.measured_variant))
