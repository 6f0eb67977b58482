"""Data sets that are folders.

- Image folder: `train/<class>/*.png`, `test/<class>/*.png` (also jpg, jpeg, bmp, webp).
- MVTec layout, an image folder whose `train/` holds only `good`: classes normal (all `good`) and anomalous (all other
  folders of `test/`). Training needs anomalies too, so all images are pooled and split anew, 60 % train and 40 % test,
  stratified, always the same way; figures do not compare with those of detectors trained only on `good`.
- Parquet folder: `train*.parquet`, `test*.parquet` in the Hugging Face image layout (`img` or `image`:
  struct<bytes, path>; `label`: integer).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from cifar_tune.config import check
from cifar_tune.data.images import UNLABELLED, Images, Source, fixed_split

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


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


def unlabelled_folder(folder: Path) -> Images:
    """All images below a folder, sorted by path, with the label UNLABELLED. ValueError where there are none."""
    check(folder.is_dir(), "unlabelled", str(folder), "an existing folder")
    files = [file for file in sorted(folder.rglob("[!.]*")) if file.suffix.lower() in IMAGE_SUFFIXES]
    check(bool(files), "unlabelled", str(folder), f"a folder with images ({', '.join(IMAGE_SUFFIXES)})")
    found = _from_files([files])
    return replace(found, labels=np.full(len(files), UNLABELLED))


def image_folder(folder: Path) -> Source:
    """`train/<class>/` and `test/<class>/` with the same two or more classes, or the MVTec layout."""
    train, test = _class_files(folder / "train"), _class_files(folder / "test")
    if list(train) == ["good"]:
        classes = {"normal": train["good"] + test.pop("good", []), "anomalous": list(chain(*test.values()))}
        for kind, files in classes.items():
            check(len(files) >= 3, f"number of {kind} images in {folder} (MVTec layout)", len(files), "3 or more")
        parts = fixed_split(_from_files(classes.values()), 0.4)
    else:
        classes = train
        check(len(train) >= 2, f"number of class folders in {folder / 'train'}", len(train), "2 or more")
        if train.keys() != test.keys():
            only = [", ".join(sorted(a.keys() - b.keys())) or "none" for a, b in ((train, test), (test, train))]
            raise ValueError(f"classes of {folder} differ; only in train: {only[0]}; only in test: {only[1]}")
        parts = _from_files(train.values()), _from_files(test.values())
    name = folder.resolve().name
    return Source(name=name, label=name, classes=tuple(classes), train=parts[0], test=parts[1])
