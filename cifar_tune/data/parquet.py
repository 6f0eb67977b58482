"""Parquet folders: `train*.parquet`, `test*.parquet` in the Hugging Face image layout.

`img` or `image`: struct<bytes, path>; `label`: integer.
"""

from __future__ import annotations

import contextlib
import json
from bisect import bisect_right
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cifar_tune.config import check
from cifar_tune.data.images import FOLDER_SIZE, Images, Source, to_pixels

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


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
