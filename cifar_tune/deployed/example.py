"""Classify image files with this model:  python example.py IMAGE..."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from model import load  # pyright: ignore[reportMissingImports, reportUnknownVariableType]  # the file beside this one
from PIL import Image

FOLDER = Path(__file__).parent
CARD: dict[str, Any] = json.loads((FOLDER / "candidate.json").read_text(encoding="utf-8"))


def read(path: str) -> np.ndarray:
    """An image file as uint8 (H, W, 3), of the size that the model was trained on."""
    side, image = CARD["image_size"], Image.open(path)
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would cut off at 255
        image = Image.fromarray(np.clip(np.asarray(image) // 257, 0, 255).astype(np.uint8))
    return np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))


def prepare(pixels: np.ndarray) -> np.ndarray:
    """Images uint8 (N, H, W, 3) -> what the model takes, float32 (N, 3, H, W)."""
    mean, std = (np.asarray(CARD[name], dtype=np.float32) for name in ("mean", "std"))
    return np.ascontiguousarray(((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2))


def main(paths: list[str]) -> None:
    """Print the class of each image and its probability."""
    classify = load(CARD, FOLDER)
    for path in paths:
        logits = classify(prepare(read(path)[None]))[0].astype(np.float64)
        shares = np.exp(logits - logits.max())
        best = int(logits.argmax())
        print(f"{path}: {CARD['classes'][best]} ({shares[best] / shares.sum():.1%})")


if __name__ == "__main__":
    main(sys.argv[1:])
