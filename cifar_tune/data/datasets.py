"""Data sets as arrays: a registered name, an image folder or a Parquet folder -> train, validation and test images.

A reader only lists its images (`Source`). Subsets and the validation split are drawn only from the labels, so that
no image is decoded that is not used. The result is plain NumPy: Ray's object store holds it once a node, uncopied.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import socket
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from cifar_tune.config import DataConfig, check
from cifar_tune.data.folders import image_folder, unlabelled_folder
from cifar_tune.data.images import (
    BLOCK,
    SEARCH,
    TEST,
    TRAIN,
    UNLABELLED,
    VALIDATION,
    Images,
    Source,
    decode,
    fixed_split,
    stratified,
    stream_of,
)
from cifar_tune.data.parquet import CIFAR10_CLASSES, is_parquet_folder, parquet_folder

_BATCHES = "cifar-10-batches-py"  # torchvision's folder
_DOWNLOAD_TIMEOUT = 20.0  # seconds without an answer
RANDOM_IMAGES = 256
"""Images that are made up where no data are given: enough for the check at batch 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageData:
    """Images uint8 (N, side, side, 3) and labels int64 (N,), C-contiguous; read-only when they come from Ray."""

    name: str
    label: str
    """Name for reports; says so where JPEG stands between the original images and these."""
    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    mean: tuple[float, ...]
    """Of each channel of the training images, scaled to 0..1."""
    std: tuple[float, ...]
    """Of each channel of the training images, scaled to 0..1; at least 1/255, so that it can be divided by."""
    fingerprint: str
    """SHA-256 of class names, images and labels in their order and split."""
    skipped: int
    """Unreadable images left out."""
    flip: bool
    """Whether a mirrored image still belongs to its class."""
    unlabelled_images: np.ndarray | None = None
    """As the training images, without labels; None: there are none."""


def load(config: DataConfig, seed: int = 0) -> ImageData:
    """Read, select, split and decode what `config` asks for.

    The same configuration and seed give the same arrays. Raises ValueError, in one line, for whatever the data lacks.

    Args:
        seed: of the subsets and of the validation split.
    """
    source = _find(config.source, Path(config.data_dir).expanduser())
    _check_classes(source, source.train.labels, 2, "training images; two or more are needed, one of them to validate")
    _check_classes(source, source.test.labels, 1, "test images; one or more are needed")
    train = _subset(source.train, config.train_images, 2, stream_of(seed, TRAIN), "train images")
    test = _subset(source.test, config.test_images, 1, stream_of(seed, TEST), "test images")
    total = round(config.validation_fraction * len(train.labels))
    held_out = stratified(train.labels, total, stream_of(seed, VALIDATION), least=1, leave=1)
    if config.source not in DATASETS:  # in those no image is there twice
        digests = [_digest(train, row) for row in range(len(train.labels))]
        _check_apart(train, digests, test)
        held_out &= ~_also_trains(digests, held_out)
    parts = {
        "train": train.take(np.flatnonzero(~held_out)),
        "validation": train.take(np.flatnonzero(held_out)),
        "test": test,
    }
    arrays: dict[str, np.ndarray] = {}
    for part, images in parts.items():
        pixels, labels = decode(images, config.image_size or source.size, skip_unreadable=config.skip_unreadable)
        _check_classes(source, labels, 1, f"readable {part} images; one or more are needed")
        arrays |= {f"{part}_images": pixels, f"{part}_labels": labels}
    mean, std = channel_statistics(arrays["train_images"])
    skipped = sum(len(images.labels) - len(arrays[f"{part}_labels"]) for part, images in parts.items())
    about = {"name": source.name, "label": source.label, "classes": source.classes, "flip": source.flip}
    mark = fingerprint(source.classes, arrays.values())
    more = None
    if config.unlabelled is not None:
        more, left_out = _unlabelled(config, config.image_size or source.size, arrays["test_images"])
        mark, skipped = fingerprint([mark], [more]), skipped + left_out
    # the fields come by name from two dicts, whose value types the checker merges
    return ImageData(
        **about,  # pyright: ignore[reportArgumentType]
        **arrays,  # pyright: ignore[reportArgumentType]
        mean=mean,
        std=std,
        fingerprint=mark,
        skipped=skipped,
        unlabelled_images=more,
    )


def _unlabelled(config: DataConfig, size: int, tests: np.ndarray) -> tuple[np.ndarray, int]:
    """The images without labels, and how many could not be read. ValueError names one that is a test image, too."""
    assert config.unlabelled is not None
    listed = unlabelled_folder(Path(config.unlabelled).expanduser())
    pixels, _ = decode(listed, size, skip_unreadable=config.skip_unreadable)
    tested = {image.tobytes() for image in tests}
    for row, image in enumerate(pixels):
        if image.tobytes() in tested:
            where = listed.where(row) if len(pixels) == len(listed.labels) else f"image {row} of {config.unlabelled}"
            raise ValueError(f"{where} is an image of the test set; allowed are others: its answer would be known")
    return pixels, len(listed.labels) - len(pixels)


def with_unlabelled(data: ImageData) -> ImageData:
    """The data whose training images are followed by those without labels, if there are any."""
    more = data.unlabelled_images
    if more is None:
        return data
    return replace(
        data,
        train_images=np.concatenate([data.train_images, more]),
        train_labels=np.concatenate([data.train_labels, np.full(len(more), UNLABELLED)]),
        fingerprint=fingerprint([data.fingerprint, "with those without labels"], ()),
        unlabelled_images=None,
    )


def subset(data: ImageData, train_images: int, seed: int) -> ImageData:
    """The same data with a stratified subset of the training images; validation and test images are shared.

    Raises ValueError where there are not as many.
    """
    classes = len(data.classes)
    labels = data.train_labels
    check(classes <= train_images <= len(labels), "search images", train_images, f"{classes} to {len(labels)}")
    rows = np.flatnonzero(stratified(labels, train_images, stream_of(seed, SEARCH), least=1))
    images, labels = data.train_images[rows], labels[rows]
    mark = fingerprint([data.fingerprint], (images, labels))
    return replace(data, train_images=images, train_labels=labels, fingerprint=mark)


def normalised(data: ImageData, mean: Sequence[float], std: Sequence[float]) -> ImageData:
    """The same images, to be normalised as a model of the user's own was trained: by channel, of values 0..1."""
    mark = fingerprint([data.fingerprint, f"{mean}", f"{std}"], ())
    return replace(data, mean=tuple(mean), std=tuple(std), fingerprint=mark)


def describe(data: ImageData) -> dict[str, object]:
    """What `study.json` says of the data."""
    parts = {f"{part}_images": len(getattr(data, f"{part}_labels")) for part in ("train", "validation", "test")}
    about = {name: getattr(data, name) for name in ("name", "label", "fingerprint", "skipped")}
    counts = np.bincount(data.test_labels, minlength=len(data.classes))
    always = {
        "largest_class": data.classes[counts.argmax()] if data.classes else None,
        "largest_share": float(counts.max() / counts.sum()),
    }
    if data.unlabelled_images is not None:
        parts["unlabelled_images"] = len(data.unlabelled_images)
    return {**about, "classes": list(data.classes), **parts, **always, "image_size": data.train_images.shape[1]}


def random_images(shape: tuple[int, int, int]) -> ImageData:
    """Made-up images without labels, to measure only latency: `shape` is channels, height, width."""
    channels, height, width = shape
    images = np.random.default_rng(0).integers(0, 256, (RANDOM_IMAGES, height, width, channels), dtype=np.uint8)
    none, labels = images[:0], np.zeros(0, np.int64)
    return ImageData(
        name="random",
        label="made-up images",
        classes=(),
        train_images=none,
        train_labels=labels,
        validation_images=none,
        validation_labels=labels,
        test_images=images,
        test_labels=np.zeros(RANDOM_IMAGES, np.int64),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        fingerprint="random",
        skipped=0,
        flip=False,
    )


def _find(name: str, data_dir: Path) -> Source:
    if name in DATASETS:
        return DATASETS[name](data_dir)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ValueError(f"data set {name!r} is neither one of {', '.join(sorted(DATASETS))} nor a folder")
    return parquet_folder(folder) if is_parquet_folder(folder) else image_folder(folder)


def _check_classes(source: Source, labels: np.ndarray, least: int, what: str) -> None:
    for name, count in zip(source.classes, np.bincount(labels, minlength=len(source.classes)), strict=True):
        if count < least:
            raise ValueError(f"class {name!r} of {source.name} has {count} {what}")


def _check_apart(train: Images, digests: Sequence[bytes | None], test: Images) -> None:
    """ValueError names an image whose bytes are in the training and in the test set: its answer would be known."""

    tested = {_digest(test, row): row for row in range(len(test.labels))}
    tested.pop(None, None)
    for row, digest in enumerate(digests):
        twin = tested.get(digest)
        if twin is not None:
            raise ValueError(f"the same image is in both splits: {train.where(row)} and {test.where(twin)}")


def _also_trains(digests: Sequence[bytes | None], held_out: np.ndarray) -> np.ndarray:
    """Which images that are held out have a twin that trains: bool (images,). Such an image validates nothing."""
    trains = {digest for digest, held in zip(digests, held_out, strict=True) if not held} - {None}
    return np.array([bool(held) and digest in trains for digest, held in zip(digests, held_out, strict=True)])


def _digest(images: Images, row: int) -> bytes | None:
    """Of an image's file; None where it cannot be read, which is said when it is decoded."""
    try:
        content = images.read(row)
    except OSError:
        return None
    return hashlib.sha256(content).digest() if isinstance(content, bytes) and content else None


def _subset(images: Images, total: int | None, least: int, rng: np.random.Generator, name: str) -> Images:
    if total is None:
        return images
    low, high = least * (int(images.labels.max()) + 1), len(images.labels)
    check(low <= total <= high, name, total, f"{low} ({least} of each class) to {high} (all there are)")
    return images.take(np.flatnonzero(stratified(images.labels, total, rng, least=least)))


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 (N, H, W, 3), scaled to 0..1; exact, from histograms."""
    counts = np.zeros((3, 256), dtype=np.int64)
    for start in range(0, len(images), BLOCK):
        for channel in range(3):
            counts[channel] += np.bincount(images[start : start + BLOCK, ..., channel].ravel(), minlength=256)
    weights, levels = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = weights @ levels
    variance = (weights * (levels - mean[:, None]) ** 2).sum(axis=1)
    return tuple(mean.tolist()), tuple(np.sqrt(variance).clip(min=1 / 255).tolist())


def fingerprint(classes: Sequence[str], arrays: Iterable[np.ndarray]) -> str:
    """SHA-256, in hex, of the class names and of each array's type, shape and content."""
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _from_array(name: str, pixels: np.ndarray, labels: np.ndarray) -> Images:
    where = "image {} of " + name
    return Images(labels=labels, read=pixels.__getitem__, where=where.format, parallel=False)


def digits(_: Path) -> Source:
    """Handwritten digits of scikit-learn, 8x8 grey with 17 levels; a fixed stratified fifth is the test set."""
    # slow to import, and every trial imports this module; untyped, so a type checker takes seconds to read it
    datasets: Any = importlib.import_module("sklearn.datasets")
    pixels, labels = datasets.load_digits(return_X_y=True)
    grey = np.rint(np.asarray(pixels).reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    train, test = fixed_split(_from_array("digits", grey, np.asarray(labels)), 0.2)
    names = tuple("0123456789")
    return Source(name="digits", label="digits", classes=names, train=train, test=test, size=8, flip=False)


def cifar10(data_dir: Path) -> Source:
    """CIFAR-10 from `data_dir/cifar10` or `data_dir`, as a Parquet folder or torchvision's, else downloaded."""
    places = (data_dir / "cifar10", data_dir)
    for folder in places:
        if is_parquet_folder(folder):
            source = parquet_folder(folder, "cifar10")
            check(source.classes == CIFAR10_CLASSES, f"class names in {folder}", source.classes, "those of CIFAR-10")
            return source
        if (folder / _BATCHES).is_dir():
            return _cifar10_batches(folder)
    try:
        _download_cifar10(places[0])
    except (OSError, RuntimeError, HTTPException) as error:
        looked = f"{places[0]} and {places[1]}"
        instead = "use --data digits or --data FOLDER"
        raise ValueError(f"CIFAR-10 is not in {looked} and its download failed ({error}); {instead}") from error
    return _cifar10_batches(places[0])


def _cifar10_batches(root: Path) -> Source:
    from cifar_tune.libraries import import_torchvision  # torch is slow to import

    dataset = import_torchvision().datasets.CIFAR10
    try:
        found = [dataset(str(root), train=train) for train in (True, False)]  # compares checksums, then unpickles
    except RuntimeError as error:
        raise ValueError(f"{root / _BATCHES} is not an intact copy of CIFAR-10 ({error})") from error
    train, test = (_from_array("cifar10", part.data, np.asarray(part.targets)) for part in found)
    return Source(name="cifar10", label="CIFAR-10", classes=CIFAR10_CLASSES, train=train, test=test)


def _download_cifar10(folder: Path) -> None:
    """Only a complete and checked copy appears in `folder`; a failure leaves neither files nor new folders."""
    from cifar_tune.libraries import import_torchvision  # torch is slow to import

    new = [place for place in (folder, *folder.parents) if not place.exists()]
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)  # torchvision sets none
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as staging:
            import_torchvision().datasets.CIFAR10(staging, download=True)
            (Path(staging) / _BATCHES).rename(folder / _BATCHES)
    finally:
        socket.setdefaulttimeout(timeout)
        for place in new:
            with contextlib.suppress(OSError):
                place.rmdir()  # goes only while it is empty


DATASETS: dict[str, Callable[[Path], Source]] = {"digits": digits, "cifar10": cifar10}
"""Name -> reader, which is given the folder of local copies."""
