"""Labelled images that are listed, not decoded; how they are divided, and how they become pixels."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, UnidentifiedImageError

FOLDER_SIZE = 32  # side in pixels where neither the user nor the data says one
_FIXED_SEED = 0  # of splits that belong to a data set: its test images must not depend on a run's seed
POOL, TRAIN, TEST, VALIDATION, SEARCH = range(5)  # independent random streams of one seed
UNLABELLED = -1
"""Label of an image that has none."""
BLOCK = 256  # images that a task handles: a task costs more than decoding one small image


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """Labelled images, not decoded. `read`: row -> file content or uint8 pixels; `where`: row -> its name in errors."""

    labels: np.ndarray
    read: Callable[[int], bytes | np.ndarray | None]
    where: Callable[[int], str]
    parallel: bool = True
    """Decode in threads. Small images are faster without: opening them is Python's work, under the GIL."""

    def take(self, rows: np.ndarray) -> Images:
        """Only the images of these rows, in their order."""
        at = rows.tolist()
        return replace(
            self, labels=self.labels[rows], read=lambda row: self.read(at[row]), where=lambda row: self.where(at[row])
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What a reader finds; `size` is the data's own side in pixels."""

    name: str
    label: str
    classes: tuple[str, ...]
    train: Images
    test: Images
    size: int = FOLDER_SIZE
    flip: bool = True


def stream_of(seed: int, stream: int) -> np.random.Generator:
    """One of the independent random streams of a seed."""
    return np.random.default_rng([seed % 2**63, stream])


def stratified(labels: np.ndarray, total: int, rng: np.random.Generator, *, least: int, leave: int = 0) -> np.ndarray:
    """Mask of `total` random rows in proportion to the classes (largest remainder).

    Of each class at least `least` rows are taken and `leave` are not; `total` gives way to that.
    """
    counts = np.bincount(labels)
    low, high = np.full_like(counts, least), counts - leave
    assert (low <= high).all()
    total = int(np.clip(total, low.sum(), high.sum()))
    shares = counts * (total / counts.sum())
    taken = np.clip(np.floor(shares).astype(counts.dtype), low, high)
    while gap := total - int(taken.sum()):
        step = 1 if gap > 0 else -1
        movable = taken < high if gap > 0 else taken > low
        taken[np.argmax(np.where(movable, step * (shares - taken), -np.inf))] += step
    mask = np.zeros(len(labels), dtype=bool)
    for label, count in enumerate(taken):
        mask[rng.permutation(np.flatnonzero(labels == label))[:count]] = True
    return mask


def fixed_split(pool: Images, test_fraction: float) -> tuple[Images, Images]:
    """Train and test of images that come without such a split."""
    total = round(test_fraction * len(pool.labels))
    in_test = stratified(pool.labels, total, stream_of(_FIXED_SEED, POOL), least=1, leave=2)
    return pool.take(np.flatnonzero(~in_test)), pool.take(np.flatnonzero(in_test))


def to_pixels(item: bytes | np.ndarray | Image.Image | None, size: int | None = None) -> np.ndarray:
    """Decode to uint8 (height, width, 3); with `size`, resized to that square (bilinear, antialiased).

    Grey becomes three equal channels, 16-bit grey is scaled to 8 bits, transparency is dropped.
    """
    if item is None:
        raise ValueError("there are no bytes")
    if isinstance(item, Image.Image):
        image = item
    else:
        image = Image.fromarray(item) if isinstance(item, np.ndarray) else Image.open(io.BytesIO(item))
    if image.mode.startswith("I"):
        image = Image.fromarray(np.clip(np.asarray(image) // 257, 0, 255).astype(np.uint8))
    if image.mode == "P":  # Pillow warns about a palette with transparency unless it goes through RGBA
        image = image.convert("RGBA")
    if image.mode != "RGB":
        image = image.convert("RGB")
    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image)


def decode(images: Images, size: int, *, skip_unreadable: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (N, size, size, 3) and labels int64 (N,); ValueError names the first image that is unreadable."""
    total = len(images.labels)
    pixels = np.empty((total, size, size, 3), dtype=np.uint8)
    readable = np.ones(total, dtype=bool)

    def decode_block(start: int) -> None:
        for row in range(start, min(start + BLOCK, total)):
            try:
                pixels[row] = to_pixels(images.read(row), size)
            except Exception as error:  # Pillow has no common base for what damaged files raise
                if not skip_unreadable:
                    reason = "unknown format" if isinstance(error, UnidentifiedImageError) else error
                    raise ValueError(
                        f"{images.where(row)} is not a readable image ({reason}); --skip-unreadable leaves it out"
                    ) from error
                readable[row] = False

    with ThreadPoolExecutor(os.cpu_count() if images.parallel else 1) as pool:
        list(pool.map(decode_block, range(0, total, BLOCK)))
    labels = images.labels.astype(np.int64)
    return (pixels, labels) if readable.all() else (pixels[readable], labels[readable])
