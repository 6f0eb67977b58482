"""Data sets that are folders: one property a test, on small real files."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import (
    PARTS,
    encoded,
    images_of,
    load_folder,
    message_of,
    picture,
    seed_of,
    write_classes,
    write_parquet,
)

from cifar_tune.data.datasets import describe, with_unlabelled
from cifar_tune.data.images import UNLABELLED

# Image folders


def test_suffixes_count_in_any_case_and_other_files_do_not(folder: Path) -> None:
    cats = folder / "train" / "cat"
    (cats / "000.png").rename(cats / "000.PNG")
    (cats / "notes.txt").write_text("not an image")
    (cats / ".hidden.png").write_bytes(b"not an image")
    (folder / "train" / ".cache").mkdir()
    assert describe(load_folder(folder))["train_images"] == 27


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_folder_needs_train_and_test(folder: Path, part: str) -> None:
    (folder / part).rename(folder / "other")
    assert message_of(folder).startswith(f"{folder} has no folder {part!r}; a data folder has train/<class>/")


def test_one_class_is_not_enough(tmp_path: Path) -> None:
    write_classes(tmp_path, {"train/cat": 3, "test/cat": 3})
    assert message_of(tmp_path) == f"number of class folders in {tmp_path / 'train'} is 1; allowed is 2 or more"


def test_an_empty_class_is_named(folder: Path) -> None:
    (folder / "test" / "ant").mkdir()
    assert message_of(folder).startswith(f"{folder / 'test' / 'ant'} holds no image")


def test_train_and_test_must_have_the_same_classes(folder: Path) -> None:
    (folder / "test" / "dog").rename(folder / "test" / "fox")
    assert message_of(folder) == f"classes of {folder} differ; only in train: dog; only in test: fox"


def test_a_class_needs_two_training_images(tmp_path: Path) -> None:
    write_classes(tmp_path / "pets", {"train/cat": 3, "train/dog": 1, "test/cat": 1, "test/dog": 1})
    assert message_of(tmp_path / "pets").startswith("class 'dog' of pets has 1 training images; two or more are needed")


def test_an_unreadable_image_is_named(folder: Path) -> None:
    file = folder / "test" / "cat" / "002.png"
    file.write_bytes(file.read_bytes()[:60])
    message = message_of(folder)
    assert message.startswith(f"{file} is not a readable image (")
    assert "--skip-unreadable" in message


def test_unreadable_images_are_counted_when_skipped(folder: Path) -> None:
    for name in ("train/cat/001.png", "test/cat/002.png"):
        (folder / name).write_text(f"damaged {name}")
    data = load_folder(folder, skip_unreadable=True)
    assert data.skipped == 2
    assert sum(len(images_of(data, part)) for part in PARTS) == 34


def test_a_class_emptied_by_skipping_is_refused(folder: Path) -> None:
    for file in (folder / "test" / "dog").iterdir():
        file.write_bytes(b"damaged")
    assert message_of(folder, skip_unreadable=True).startswith("class 'dog' of pets has 0 readable test images")


# MVTec layout


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    counts = {"train/good": 30, "test/good": 10, "test/bent": 6, "test/cut": 4}
    write_classes(tmp_path / "screw", counts)
    return tmp_path / "screw"


def test_r20_mvtec_is_pooled_into_two_classes_and_split_sixty_to_forty(mvtec: Path) -> None:
    data = load_folder(mvtec)
    assert data.classes == ("normal", "anomalous")
    assert np.bincount(np.concatenate([data.train_labels, data.validation_labels])).tolist() == [24, 6]
    assert np.bincount(data.test_labels).tolist() == [16, 4]


def test_mvtec_has_no_image_in_two_parts(mvtec: Path) -> None:
    images = images_of(load_folder(mvtec))
    assert len(set(images)) == len(images) == 50


def test_the_test_set_of_mvtec_does_not_depend_on_the_seed(mvtec: Path) -> None:
    assert images_of(load_folder(mvtec, seed=1), "test") == images_of(load_folder(mvtec, seed=2), "test")


def test_mvtec_needs_anomalies(tmp_path: Path) -> None:
    write_classes(tmp_path, {"train/good": 5, "test/good": 5})
    assert message_of(tmp_path) == f"number of anomalous images in {tmp_path} (MVTec layout) is 0; allowed is 3 or more"


# Parquet folders


def test_parquet_gives_back_what_was_written(parquet: Path) -> None:
    data = load_folder(parquet)
    expected = [np.asarray(picture(seed_of("test-0.parquet") + at)) for at in range(6)]
    np.testing.assert_array_equal(data.test_images, np.stack(expected))
    assert (data.test_labels.tolist(), data.classes) == ([0, 1] * 3, ("cat", "dog"))
    assert (data.name, data.label) == ("shards", "shards")


def test_all_shards_are_read(parquet: Path) -> None:
    data = load_folder(parquet)
    assert np.bincount(np.concatenate([data.train_labels, data.validation_labels])).tolist() == [12, 12]


def test_without_metadata_classes_are_numbers(tmp_path: Path) -> None:
    for part in ("train", "test"):
        write_parquet(tmp_path / f"{part}.parquet", [0, 1, 2] * 2, column="image")
    assert load_folder(tmp_path).classes == ("0", "1", "2")


def test_the_label_says_jpeg(tmp_path: Path) -> None:
    for part, first in (("train", 0), ("test", 20)):
        images = [encoded(picture(first + at, 16), "JPEG") for at in range(20)]
        write_parquet(tmp_path / "cifar10" / f"{part}.parquet", list(range(10)) * 2, images=images)
    data = load_folder(tmp_path / "cifar10")
    assert (data.name, data.label, data.train_images.shape[1]) == ("cifar10", "CIFAR-10 (JPEG)", 16)


@pytest.mark.parametrize(("label", "classes"), [(-1, ("a", "b")), (2, ("a", "b")), (7, None)])
def test_a_label_out_of_range_is_named(parquet: Path, label: int, classes: tuple[str, ...] | None) -> None:
    for file in parquet.glob("train*"):
        write_parquet(file, [0, 1] * 6, names=classes)
    write_parquet(parquet / "train-1.parquet", [0, 1, 1, label, 0], names=classes)
    top = 1 if classes else 2  # without names, three different labels mean 0, 1 and 2
    expected = f"{parquet / 'train-1.parquet'}, row 3 (from 0): label {label}; allowed is 0 to {top}"
    assert message_of(parquet) == expected


def test_a_missing_label_is_named(parquet: Path) -> None:
    write_parquet(parquet / "test-0.parquet", [0, 1, None])
    assert message_of(parquet) == f"{parquet / 'test-0.parquet'}, row 2 (from 0): the label is null"


@pytest.mark.parametrize("content", [b"damaged", None])
def test_an_unreadable_image_is_named_by_its_row(parquet: Path, content: bytes | None) -> None:
    images = [encoded(picture(0)), encoded(picture(1)), content, encoded(picture(2))]
    write_parquet(parquet / "test-0.parquet", [0, 1, 0, 1], images=images)
    assert message_of(parquet).startswith(f"{parquet / 'test-0.parquet'}, row 2 (from 0) is not a readable image (")


def test_parquet_needs_train_and_test(parquet: Path) -> None:
    (parquet / "test-0.parquet").unlink()
    assert message_of(parquet) == f"{parquet} has Parquet files, but no test*.parquet"


def test_missing_columns_are_refused_with_those_found(parquet: Path) -> None:
    pq.write_table(pa.table({"picture": ["x"], "label": [0]}), parquet / "train-1.parquet")
    assert message_of(parquet).endswith("needs the columns 'img' or 'image', and 'label'; it has picture, label")


def test_columns_of_another_type_are_refused(parquet: Path) -> None:
    pq.write_table(pa.table({"img": ["x"], "label": [0]}), parquet / "train-1.parquet")
    assert message_of(parquet).endswith("is string; allowed is struct<bytes, path>")


def test_labels_of_another_type_are_refused(parquet: Path) -> None:
    pq.write_table(pa.table({"img": [{"bytes": b"x"}], "label": ["cat"]}), parquet / "train-1.parquet")
    assert message_of(parquet).endswith("is string; allowed are integers")


def test_a_file_that_is_not_parquet_is_named(parquet: Path) -> None:
    (parquet / "train-1.parquet").write_bytes(b"damaged")
    assert message_of(parquet).startswith(f"{parquet / 'train-1.parquet'} cannot be read as Parquet (")


def test_a_parquet_folder_without_rows_is_refused(parquet: Path) -> None:
    for file in parquet.glob("*.parquet"):
        write_parquet(file, [], names=("cat", "dog"))
    assert message_of(parquet).startswith("class 'cat' of shards has 0 training images")


def test_a_parquet_folder_of_one_class_is_refused(parquet: Path) -> None:
    for file in parquet.glob("*.parquet"):
        write_parquet(file, [0, 0, 0])
    assert message_of(parquet) == f"number of classes in {parquet} is 1; allowed is 2 or more"


def test_the_result_cannot_be_changed(parquet: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_folder(parquet).name = "other"  # pyright: ignore[reportAttributeAccessIssue] - the test: it is frozen


def test_image_that_is_there_twice_does_not_validate_what_it_trained(folder: Path) -> None:
    for at in range(0, 20, 2):
        shutil.copy(folder / "train" / "cat" / f"{at:03}.png", folder / "train" / "cat" / f"twin{at:03}.png")
    for seed in range(5):
        data = load_folder(folder, seed=seed, validation_fraction=0.4)
        trained = set(images_of(data, "train"))
        assert not trained & set(images_of(data, "validation"))


def test_image_in_both_splits_is_refused(folder: Path) -> None:
    shutil.copy(folder / "train" / "cat" / "003.png", folder / "test" / "dog" / "again.png")
    said = "the same image is in both splits: {train}/cat/003.png and {test}/dog/again.png"
    assert message_of(folder) == said.format(train=folder / "train", test=folder / "test")


# Images without labels


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """Three images without labels, one of them deeper."""
    for at, name in enumerate(("a.png", "b.png", "deep/er/c.png")):
        file = tmp_path / "more" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(900 + at).save(file)
    return tmp_path / "more"


def test_images_without_labels_follow_the_training_images(folder: Path, more: Path) -> None:
    data = load_folder(folder, unlabelled=str(more), image_size=8)
    both = with_unlabelled(data)
    assert both.train_labels[-4:].tolist()[1:] == [UNLABELLED] * 3
    assert images_of(both, "train") == images_of(data, "train") + [
        np.asarray(picture(n)).tobytes() for n in (900, 901, 902)
    ]


def test_images_without_labels_are_in_the_fingerprint(folder: Path, more: Path) -> None:
    marks = {load_folder(folder).fingerprint, load_folder(folder, unlabelled=str(more)).fingerprint}
    assert len(marks) == 2


def test_a_test_image_without_its_label_is_refused_by_its_content(folder: Path, more: Path) -> None:
    shutil.copy(folder / "test" / "cat" / "000.png", more / "z.png")
    assert message_of(folder, unlabelled=str(more)).startswith(f"{more / 'z.png'} is an image of the test set")


def test_a_folder_without_images_is_no_unlabelled_one(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert "allowed is a folder with images" in message_of(folder, unlabelled=str(tmp_path / "none"))
