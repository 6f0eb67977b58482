"""The classes of many images:  python predict.py IMAGES.npy CLASSES.npy

IMAGES.npy: uint8 (N, H, W, 3), of the model's size. CLASSES.npy: int64 (N,), indices into the card's classes. This is
how the candidate was checked after it had been written.
"""

from __future__ import annotations

import sys

import numpy as np
from example import CARD, FOLDER, prepare  # pyright: ignore[reportAttributeAccessIssue, reportMissingImports]
from model import load  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

if __name__ == "__main__":
    images = np.load(sys.argv[1], mmap_mode="r")
    classify = load(CARD, FOLDER)
    classes = [int(classify(prepare(images[i : i + 1]))[0].argmax()) for i in range(len(images))]
    np.save(sys.argv[2], np.array(classes, dtype=np.int64))
