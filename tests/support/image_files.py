"""Small data sets on disk, and what tests ask of them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cifar_tune.config import DataConfig
from cifar_tune.data.datasets import ImageData, load

SIZE = 8
PARTS = ("train", "validation", "test")


def picture(seed: int, size: int = SIZE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def write_classes(folder: Path, counts: dict[str, int], seed: int = 0) -> None:
    """`counts["train/cat"]` images in folder/train/cat; every image differs from every other."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for at in range(count):
            picture(seed := seed + 1).save(folder / name / f"{at:03}.png")


def write_parquet(
    file: Path, labels: Sequence[int | None], *, images: Sequence[bytes | None] | None = None, column: str = "img",
    names: tuple[str, ...] | None = None,
) -> None:  # fmt: skip
    images = images or [encoded(picture(seed_of(file.name) + at)) for at in range(len(labels))]
    cells = [{"bytes": image, "path": None} for image in images]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({column: pa.array(cells, struct), "label": pa.array(labels, pa.int64())})
    if names:
        features = {column: {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(exist_ok=True)
    pq.write_table(table, file)


def seed_of(text: str) -> int:
    return sum(1000 * ord(letter) for letter in text)


def load_folder(folder: Path, seed: int = 0, **settings: object) -> ImageData:
    return load(DataConfig(source=str(folder), **settings), seed)  # pyright: ignore[reportArgumentType] - by name


def message_of(folder: Path, **settings: object) -> str:
    """The message of the ValueError that loading raises; it must be one line."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the tests look at the message
        load_folder(folder, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def images_of(data: ImageData, *parts: str) -> list[bytes]:
    return [image.tobytes() for part in parts or PARTS for image in getattr(data, f"{part}_images")]
