"""Data sets as arrays: a registered name, an image folder or a Parquet folder -> train, validation and test images.

A reader only lists its images (`Source`). Subsets and the validation split are drawn from the labels alone, so that
no image is decoded that is not used. The result is plain NumPy: Ray's object store holds it once a node, uncopied.

- Image folder: `train/<class>/*.png`, `test/<class>/*.png` (also jpg, jpeg, bmp, webp).
- MVTec layout, an image folder whose `train/` holds only `good`: classes normal (all `good`) and anomalous (all other
  folders of `test/`). Training needs anomalies too, so all images are pooled and split anew, 60 % train and 40 % test,
  stratified, always the same way; figures do not compare with those of detectors trained on `good` alone.
- Parquet folder: `train*.parquet`, `test*.parquet` in the Hugging Face image layout (`img` or `image`:
  struct<bytes, path>; `label`: integer).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import socket
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http.client import HTTPException
from itertools import accumulate, chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from cifar_tune.config import DataConfig, check

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
FOLDER_SIZE = 32  # side in pixels where neither the user nor the data says one
_BATCHES = "cifar-10-batches-py"  # torchvision's folder
_FIXED_SEED = 0  # of splits that belong to a data set: its test images must not depend on a run's seed
_POOL, _TRAIN, _TEST, _VALIDATION = range(4)  # independent random streams of one seed
_DOWNLOAD_TIMEOUT = 20.0  # seconds without an answer
_BLOCK = 256  # images that a decoding task handles: a task costs more than decoding one small image


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """Labelled images, not decoded. `read`: row -> file content or uint8 pixels; `where`: row -> its name in errors."""

    labels: np.ndarray
    read: Callable[[int], bytes | np.ndarray | None]
    where: Callable[[int], str]
    parallel: bool = True
    """Decode in threads. Small images are faster without: opening them is Python's work, under the GIL."""

    def take(self, rows: np.ndarray) -> Images:
        """The images of these rows alone, in their order."""
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


def load(config: DataConfig, data_dir: str = "data") -> ImageData:
    """Read, select, split and decode what `config` asks for; cifar10 is looked for in `data_dir`.

    The same configuration gives the same arrays. Raises ValueError, in one line, for whatever the data lacks.
    """
    source = _find(config.source, Path(data_dir).expanduser())
    _check_classes(source, source.train.labels, 2, "training images; two or more are needed, one of them to validate")
    _check_classes(source, source.test.labels, 1, "test images; one or more are needed")
    train = _subset(source.train, config.train_images, 2, _rng(config.seed, _TRAIN), "train images")
    test = _subset(source.test, config.test_images, 1, _rng(config.seed, _TEST), "test images")
    total = round(config.validation_fraction * len(train.labels))
    held_out = stratified(train.labels, total, _rng(config.seed, _VALIDATION), least=1, leave=1)
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
    # the fields come by name from two dicts, whose value types the checker merges
    return ImageData(**about, **arrays, mean=mean, std=std, fingerprint=mark, skipped=skipped)  # pyright: ignore[reportArgumentType]


def describe(data: ImageData) -> dict[str, object]:
    """What `study.json` says of the data."""
    parts = {f"{part}_images": len(getattr(data, f"{part}_labels")) for part in ("train", "validation", "test")}
    about = {name: getattr(data, name) for name in ("name", "label", "fingerprint", "skipped")}
    return {**about, "classes": list(data.classes), **parts, "image_size": data.train_images.shape[1]}


def random_images(shape: tuple[int, int, int]) -> ImageData:
    """Made-up images without labels, to measure latency alone: `shape` is channels, height, width."""
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


def _rng(seed: int, stream: int) -> np.random.Generator:
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


def _subset(images: Images, total: int | None, least: int, rng: np.random.Generator, name: str) -> Images:
    if total is None:
        return images
    low, high = least * (int(images.labels.max()) + 1), len(images.labels)
    check(low <= total <= high, name, total, f"{low} ({least} of each class) to {high} (all there are)")
    return images.take(np.flatnonzero(stratified(images.labels, total, rng, least=least)))


def _fixed_split(pool: Images, test_fraction: float) -> tuple[Images, Images]:
    """Train and test of images that come without such a split."""
    total = round(test_fraction * len(pool.labels))
    in_test = stratified(pool.labels, total, _rng(_FIXED_SEED, _POOL), least=1, leave=2)
    return pool.take(np.flatnonzero(~in_test)), pool.take(np.flatnonzero(in_test))


def to_pixels(item: bytes | np.ndarray | None, size: int | None = None) -> np.ndarray:
    """Decode to uint8 (height, width, 3); with `size`, resized to that square (bilinear, antialiased).

    Grey becomes three equal channels, 16-bit grey is scaled to 8 bits, transparency is dropped.
    """
    if item is None:
        raise ValueError("there are no bytes")
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
        for row in range(start, min(start + _BLOCK, total)):
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
        list(pool.map(decode_block, range(0, total, _BLOCK)))
    labels = images.labels.astype(np.int64)
    return (pixels, labels) if readable.all() else (pixels[readable], labels[readable])


def channel_statistics(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of uint8 (N, H, W, 3), scaled to 0..1; exact, from histograms."""
    counts = np.zeros((3, 256), dtype=np.int64)
    for start in range(0, len(images), _BLOCK):
        for channel in range(3):
            counts[channel] += np.bincount(images[start : start + _BLOCK, ..., channel].ravel(), minlength=256)
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
    from sklearn.datasets import load_digits  # slow to import, and every trial imports this module

    pixels, labels = load_digits(return_X_y=True)
    grey = np.rint(np.asarray(pixels).reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    train, test = _fixed_split(_from_array("digits", grey, np.asarray(labels)), 0.2)
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
    from cifar_tune.models import import_torchvision  # torch is slow to import

    dataset = import_torchvision().datasets.CIFAR10
    try:
        found = [dataset(str(root), train=train) for train in (True, False)]  # compares checksums, then unpickles
    except RuntimeError as error:
        raise ValueError(f"{root / _BATCHES} is not an intact copy of CIFAR-10 ({error})") from error
    train, test = (_from_array("cifar10", part.data, np.asarray(part.targets)) for part in found)
    return Source(name="cifar10", label="CIFAR-10", classes=CIFAR10_CLASSES, train=train, test=test)


def _download_cifar10(folder: Path) -> None:
    """Only a complete and checked copy appears in `folder`; a failure leaves neither files nor new folders."""
    from cifar_tune.models import import_torchvision  # torch is slow to import

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


def _class_files(folder: Path) -> dict[str, list[Path]]:
    """Class name -> image files, both sorted; hidden files and folders and other types are left out."""
    if not folder.is_dir():
        layout = "a data folder has train/<class>/ and test/<class>/ with images, or train*.parquet and test*.parquet"
        raise ValueError(f"{folder.parent} has no folder {folder.name!r}; {layout}")
    classes: dict[str, list[Path]] = {}
    for entry in filter(Path.is_dir, sorted(folder.glob("[!.]*"))):
        files = [file for file in sorted(entry.glob("[!.]*")) if file.suffix.lower() in IMAGE_SUFFIXES]
        if not files:
            raise ValueError(f"{entry} holds no image ({', '.join(IMAGE_SUFFIXES)})")
        classes[entry.name] = files
    return classes


def _from_files(classes: Iterable[Sequence[Path]]) -> Images:
    groups = list(classes)
    files = [file for group in groups for file in group]
    labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return Images(labels=labels, read=lambda row: files[row].read_bytes(), where=lambda row: str(files[row]))


def image_folder(folder: Path) -> Source:
    """`train/<class>/` and `test/<class>/` with the same two or more classes, or the MVTec layout."""
    train, test = _class_files(folder / "train"), _class_files(folder / "test")
    if list(train) == ["good"]:
        classes = {"normal": train["good"] + test.pop("good", []), "anomalous": list(chain(*test.values()))}
        for kind, files in classes.items():
            check(len(files) >= 3, f"number of {kind} images in {folder} (MVTec layout)", len(files), "3 or more")
        parts = _fixed_split(_from_files(classes.values()), 0.4)
    else:
        classes = train
        check(len(train) >= 2, f"number of class folders in {folder / 'train'}", len(train), "2 or more")
        if train.keys() != test.keys():
            alone = [", ".join(sorted(a.keys() - b.keys())) or "none" for a, b in ((train, test), (test, train))]
            raise ValueError(f"classes of {folder} differ; only in train: {alone[0]}; only in test: {alone[1]}")
        parts = _from_files(train.values()), _from_files(test.values())
    name = folder.resolve().name
    return Source(name=name, label=name, classes=tuple(classes), train=parts[0], test=parts[1])


def is_parquet_folder(folder: Path) -> bool:
    """Whether `folder` holds train*.parquet or test*.parquet."""
    return any(any(folder.glob(f"{part}*.parquet")) for part in ("train", "test"))


def parquet_folder(folder: Path, name: str | None = None) -> Source:
    """`train*.parquet` and `test*.parquet`; class names from the Hugging Face metadata, else the labels as text."""
    name = name or folder.resolve().name
    parts = [_read_tables(folder, part) for part in ("train", "test")]
    classes = _class_names(next(iter(parts[0].values())).schema)
    if classes is None:
        count = len(np.unique(np.concatenate([table["label"].to_numpy() for table in parts[0].values()])))
        classes = CIFAR10_CLASSES if (name, count) == ("cifar10", 10) else tuple(map(str, range(count)))
    check(len(classes) >= 2, f"number of classes in {folder}", len(classes), "2 or more")
    train, test = (_from_tables(tables, len(classes)) for tables in parts)
    title = "CIFAR-10" if name == "cifar10" and classes == CIFAR10_CLASSES else name
    size, jpeg, small = FOLDER_SIZE, False, False
    with contextlib.suppress(Exception):  # what is wrong with the first image is said when it is decoded
        first = train.read(0)
        height, width, _ = to_pixels(first).shape
        size = max(width, 8) if width == height else size
        jpeg = isinstance(first, bytes) and first.startswith(b"\xff\xd8\xff")
        small = height * width <= 64 * 64
    train, test = (replace(images, parallel=not small) for images in (train, test))
    label = f"{title} (JPEG)" if jpeg else title
    return Source(name=name, label=label, classes=classes, train=train, test=test, size=size)


def _read_tables(folder: Path, part: str) -> dict[Path, pa.Table]:
    files = sorted(folder.glob(f"{part}*.parquet"))
    if not files:
        raise ValueError(f"{folder} has Parquet files, but no {part}*.parquet")
    return {file: _read_table(file) for file in files}


def _read_table(file: Path) -> pa.Table:
    """Table with the columns `image` (encoded bytes, nullable) and `label` (int64); keeps the file's metadata."""
    try:
        with pq.ParquetFile(file) as parquet:
            types = {field.name: field.type for field in parquet.schema_arrow}
            image = next((name for name in ("img", "image") if name in types), "")
            if not image or "label" not in types:
                raise ValueError(f"{file} needs the columns 'img' or 'image', and 'label'; it has {', '.join(types)}")
            if not pa.types.is_struct(types[image]) or types[image].get_field_index("bytes") < 0:
                raise ValueError(f"column {image!r} of {file} is {types[image]}; allowed is struct<bytes, path>")
            if not pa.types.is_integer(types["label"]):
                raise ValueError(f"column 'label' of {file} is {types['label']}; allowed are integers")
            table = parquet.read(columns=[f"{image}.bytes", "label"]).flatten()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} cannot be read as Parquet ({str(error).splitlines()[0]})") from error
    if table["label"].null_count:
        raise ValueError(f"{file}, row {table['label'].is_null().to_numpy().argmax()} (from 0): the label is null")
    renamed = table.select([f"{image}.bytes", "label"]).rename_columns(["image", "label"])
    return renamed.replace_schema_metadata(table.schema.metadata)  # renaming drops it


def _class_names(schema: pa.Schema) -> tuple[str, ...] | None:
    try:
        return tuple(map(str, json.loads(schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"]))
    except (KeyError, TypeError, ValueError):  # other tools leave no such metadata
        return None


def _from_tables(tables: dict[Path, pa.Table], classes: int) -> Images:
    files, starts = list(tables), [0, *accumulate(map(len, tables.values()))]
    encoded = pa.chunked_array([chunk for table in tables.values() for chunk in table["image"].chunks])
    labels = np.concatenate([table["label"].to_numpy() for table in tables.values()]).astype(np.int64)

    def where(row: int) -> str:
        at = bisect_right(starts, row) - 1
        return f"{files[at]}, row {row - starts[at]} (from 0)"

    for row in np.flatnonzero((labels < 0) | (labels >= classes))[:1]:
        raise ValueError(f"{where(row)}: label {labels[row]}; allowed is 0 to {classes - 1}")
    return Images(labels=labels, read=lambda row: encoded[row].as_py(), where=where)
