"""Data sets: one property a test, on small real files."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cifar_tune.config import DataConfig
from cifar_tune.data import (
    CIFAR10_CLASSES,
    DATASETS,
    ImageData,
    channel_statistics,
    describe,
    load,
    stratified,
    to_pixels,
)

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


def load_folder(folder: Path, **settings: object) -> ImageData:
    return load(DataConfig(source=str(folder), **settings))  # pyright: ignore[reportArgumentType]


def message_of(folder: Path, **settings: object) -> str:
    """The message of the ValueError that loading raises; it must be one line."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the tests look at the message
        load_folder(folder, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def images_of(data: ImageData, *parts: str) -> list[bytes]:
    return [image.tobytes() for part in parts or PARTS for image in getattr(data, f"{part}_images")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 and 10 training, 4 and 2 test images of cats and dogs."""
    write_classes(tmp_path / "pets", {"train/cat": 20, "train/dog": 10, "test/cat": 4, "test/dog": 2})
    return tmp_path / "pets"


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """Two training shards, 12 images of each of cat and dog, and 3 test images of each."""
    names = ("cat", "dog")
    write_parquet(tmp_path / "shards" / "train-0.parquet", [0, 1] * 6, names=names)
    write_parquet(tmp_path / "shards" / "train-1.parquet", [1, 0] * 6, names=names)
    write_parquet(tmp_path / "shards" / "test-0.parquet", [0, 1] * 3, names=names)
    return tmp_path / "shards"


# Selection


@given(
    counts=st.lists(st.integers(3, 40), min_size=2, max_size=6), fraction=st.floats(0, 1), seed=st.integers(-5, 2**64)
)
def test_stratified_takes_the_total_in_proportion_and_within_bounds(
    counts: list[int], fraction: float, seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    total = min(max(round(fraction * len(labels)), len(counts)), len(labels) - len(counts))
    mask = stratified(labels, total, np.random.default_rng(abs(seed)), least=1, leave=1)
    taken = np.bincount(labels[mask], minlength=len(counts))
    assert mask.sum() == total
    least, most, shares = 1, np.array(counts) - 1, np.array(counts) * total / len(labels)
    assert (np.clip(taken, least, most) == taken).all()
    if (np.clip(shares, least, most) == shares).all():
        assert (np.abs(taken - shares) < 1).all()


def test_the_validation_split_of_fifty_thousand_is_exact() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 5000))
    mask = stratified(labels, round(0.1 * len(labels)), np.random.default_rng(1), least=1, leave=1)
    assert np.bincount(labels[mask]).tolist() == [500] * 10


def test_the_split_keeps_the_proportion_of_classes(folder: Path) -> None:
    data = load_folder(folder, validation_fraction=0.2)
    assert np.bincount(data.validation_labels).tolist() == [4, 2]
    assert np.bincount(data.train_labels).tolist() == [16, 8]


def test_each_class_is_in_training_and_validation(folder: Path) -> None:
    data = load_folder(folder, train_images=4, validation_fraction=0.01)
    assert sorted(data.train_labels) == sorted(data.validation_labels) == [0, 1]


def test_no_image_is_in_two_parts(folder: Path) -> None:
    images = images_of(load_folder(folder))
    assert len(set(images)) == len(images) == 36


def test_subsets_have_the_size_asked_for(folder: Path) -> None:
    data = load_folder(folder, train_images=15, test_images=3)
    assert len(data.train_labels) + len(data.validation_labels) == 15
    assert len(data.test_labels) == 3


def test_a_subset_depends_on_the_seed_alone(folder: Path) -> None:
    drawn = [images_of(load_folder(folder, train_images=12, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"train_images": 31}, "train images is 31; allowed is 4 (2 of each class) to 30 (all there are)"),
        ({"train_images": 3}, "train images is 3; allowed is 4 (2 of each class) to 30 (all there are)"),
        ({"test_images": 7}, "test images is 7; allowed is 2 (1 of each class) to 6 (all there are)"),
    ],
)
def test_a_subset_must_be_possible(folder: Path, settings: dict[str, int], expected: str) -> None:
    assert message_of(folder, **settings) == expected


def test_images_outside_the_subset_are_not_decoded(folder: Path) -> None:
    used = set(images_of(load_folder(folder, train_images=10, image_size=SIZE)))
    for file in (folder / "train").rglob("*.png"):
        if to_pixels(file.read_bytes()).tobytes() not in used:
            file.write_bytes(b"damaged")
    assert load_folder(folder, train_images=10).skipped == 0


# What comes out


def test_arrays_have_the_promised_types_and_are_contiguous(folder: Path) -> None:
    data = load_folder(folder)
    for part in PARTS:
        images, labels = getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
        assert (images.dtype, images.shape) == (np.uint8, (len(labels), 32, 32, 3))
        assert (labels.dtype, labels.ndim) == (np.int64, 1)
        assert images.flags.c_contiguous
        assert labels.flags.c_contiguous


def test_loading_twice_gives_the_same(folder: Path) -> None:
    first, second = load_folder(folder), load_folder(folder)
    assert first.fingerprint == second.fingerprint
    assert images_of(first) == images_of(second)


def changed_pixel(folder: Path) -> None:
    image = Image.open(folder / "test" / "dog" / "000.png").convert("RGB")
    image.putpixel((0, 0), (1, 2, 3))
    image.save(folder / "test" / "dog" / "000.png")


def renamed_class(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / part / "dog").rename(folder / part / "fox")


@pytest.mark.parametrize("change", [changed_pixel, renamed_class])
def test_the_fingerprint_follows_the_data(folder: Path, change: object) -> None:
    before = load_folder(folder).fingerprint
    change(folder)  # pyright: ignore[reportCallIssue]
    assert load_folder(folder).fingerprint != before


@pytest.mark.parametrize("settings", [{"seed": 1}, {"image_size": 16}, {"validation_fraction": 0.2}])
def test_the_fingerprint_follows_split_and_size(folder: Path, settings: dict[str, float]) -> None:
    assert load_folder(folder, **settings).fingerprint != load_folder(folder).fingerprint


def test_channel_statistics_equal_numpys() -> None:
    images = np.random.default_rng(0).integers(0, 200, (300, 4, 4, 3), dtype=np.uint8)
    images[..., 1] //= 3
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)))


def test_std_of_a_constant_channel_can_be_divided_by() -> None:
    assert channel_statistics(np.full((2, 4, 4, 3), 9, dtype=np.uint8))[1] == (1 / 255,) * 3


def test_describe_is_json_with_the_counts(folder: Path) -> None:
    data = load_folder(folder)
    assert json.loads(json.dumps(describe(data))) == {
        "name": "pets",
        "label": "pets",
        "classes": ["cat", "dog"],
        "train_images": 27,
        "validation_images": 3,
        "test_images": 6,
        "image_size": 32,
        "fingerprint": data.fingerprint,
        "skipped": 0,
    }


# Pixels


def test_16_bit_grey_is_scaled_to_8_bits() -> None:
    image = Image.fromarray(np.array([[0, 257], [65535, 32896]], dtype=np.uint16))
    assert to_pixels(encoded(image))[..., 0].tolist() == [[0, 1], [255, 128]]


def test_grey_becomes_three_equal_channels() -> None:
    pixels = to_pixels(encoded(picture(0).convert("L")))
    assert pixels.shape == (SIZE, SIZE, 3)
    assert (pixels == pixels[..., :1]).all()


def test_transparency_is_dropped() -> None:
    opaque, transparent = picture(0), picture(0)
    transparent.putalpha(7)
    assert (to_pixels(encoded(transparent)) == np.asarray(opaque)).all()


def test_a_palette_with_transparency_is_read_without_warning() -> None:
    image = Image.new("P", (SIZE, SIZE), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.info["transparency"] = b"\x00\x80"
    assert to_pixels(encoded(image))[0, 0].tolist() == [10, 20, 30]


def test_oblong_images_are_resized_to_the_square(folder: Path) -> None:
    picture(0).resize((40, 20)).save(folder / "train" / "cat" / "000.png")
    assert load_folder(folder, image_size=24).train_images.shape[1:] == (24, 24, 3)


# Names


def test_an_unknown_name_is_refused() -> None:
    assert message_of(Path("foo")) == "data set 'foo' is neither one of cifar10, digits nor a folder"


def test_digits_are_real_and_complete() -> None:
    data = load(DataConfig(source="digits"))
    assert (data.classes, data.flip, data.train_images.shape[1:]) == (tuple("0123456789"), False, (8, 8, 3))
    assert (len(data.train_labels), len(data.validation_labels), len(data.test_labels)) == (1294, 144, 359)
    assert (data.train_images.min(), data.train_images.max()) == (0, 255)


def test_the_test_set_of_digits_does_not_depend_on_the_seed() -> None:
    one, two = (load(DataConfig(source="digits", seed=seed)) for seed in (0, 1))
    assert images_of(one, "test") == images_of(two, "test")
    assert images_of(one, "train") != images_of(two, "train")


@pytest.mark.parametrize("place", ["cifar10", "."])
def test_cifar10_is_found_as_parquet_in_the_data_folder(tmp_path: Path, place: str) -> None:
    for part in ("train", "test"):
        write_parquet(tmp_path / place / f"{part}.parquet", list(range(10)) * 2)
    data = load(DataConfig(source="cifar10"), str(tmp_path))
    assert (data.name, data.label, data.classes) == ("cifar10", "CIFAR-10", CIFAR10_CLASSES)


def test_another_parquet_folder_does_not_pass_for_cifar10(parquet: Path) -> None:
    with pytest.raises(ValueError, match=r"class names in .* is \('cat', 'dog'\); allowed is those of CIFAR-10"):
        load(DataConfig(source="cifar10"), str(parquet))


class FakeCifar10:
    """torchvision's reader, with 20 images; a download leaves half a folder and then does `end`."""

    end: Exception | None = None

    def __init__(self, root: str, *, train: bool = True, download: bool = False) -> None:
        batches = Path(root) / "cifar-10-batches-py"
        if download:
            batches.mkdir()
            (batches / "data_batch_1").write_bytes(b"")
            if self.end:
                raise self.end
        if not (batches / "data_batch_1").exists():
            raise RuntimeError("Dataset not found or corrupted.")
        self.data = np.random.default_rng(int(train)).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
        self.targets = list(range(10)) * 2


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> type[FakeCifar10]:
    fake = type("Fake", (FakeCifar10,), {})
    module = SimpleNamespace(datasets=SimpleNamespace(CIFAR10=fake))
    monkeypatch.setitem(sys.modules, "cifar_tune.models", SimpleNamespace(import_torchvision=lambda: module))  # pyright: ignore[reportArgumentType]
    return fake


def test_cifar10_is_downloaded_once_and_then_found(tmp_path: Path, torchvision: type[FakeCifar10]) -> None:
    first = load(DataConfig(source="cifar10"), str(tmp_path / "data"))
    assert [path.name for path in (tmp_path / "data" / "cifar10").iterdir()] == ["cifar-10-batches-py"]
    torchvision.end = URLError("a second download")
    assert load(DataConfig(source="cifar10"), str(tmp_path / "data")).fingerprint == first.fingerprint
    assert (first.label, first.flip, len(first.test_labels)) == ("CIFAR-10", True, 20)


@pytest.mark.parametrize("end", [URLError("no route"), OSError("no route"), RuntimeError("no route")])
def test_a_failed_download_says_where_it_looked_and_leaves_nothing(
    tmp_path: Path, torchvision: type[FakeCifar10], end: Exception
) -> None:
    torchvision.end = end
    data_dir = tmp_path / "deep" / "data"
    with pytest.raises(ValueError, match=r"no route.*--data digits or --data FOLDER") as caught:
        load(DataConfig(source="cifar10"), str(data_dir))
    assert f"not in {data_dir / 'cifar10'} and {data_dir}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("torchvision")
def test_a_damaged_copy_of_cifar10_is_named(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(ValueError, match=r"cifar-10-batches-py is not an intact copy of CIFAR-10"):
        load(DataConfig(source="cifar10"), str(tmp_path))


def test_every_registered_name_is_a_function_of_the_data_folder() -> None:
    assert sorted(DATASETS) == ["cifar10", "digits"]
    assert all(callable(reader) for reader in DATASETS.values())


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
        (folder / name).write_bytes(b"damaged")
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


def test_mvtec_is_pooled_into_two_classes_and_split_sixty_to_forty(mvtec: Path) -> None:
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
    images = [encoded(picture(at, 16), "JPEG") for at in range(20)]
    for part in ("train", "test"):
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
        load_folder(parquet).name = "other"  # pyright: ignore[reportAttributeAccessIssue]
