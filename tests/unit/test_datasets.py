"""Data sets by name: selection, split and decoding; one property a test, on small real files."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import PARTS, SIZE, encoded, images_of, load_folder, message_of, picture, write_parquet
from PIL import Image

from cifar_tune.config import DataConfig
from cifar_tune.data.datasets import DATASETS, channel_statistics, describe, load, subset
from cifar_tune.data.images import stratified, to_pixels
from cifar_tune.data.parquet import CIFAR10_CLASSES

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


def test_a_search_subset_is_stratified_and_shares_the_rest() -> None:
    data = load(DataConfig(source="digits"))
    part = subset(data, 200, seed=1)
    assert np.ptp(np.bincount(part.train_labels)) <= 1
    assert part.validation_images is data.validation_images
    assert part.fingerprint != data.fingerprint


@pytest.mark.parametrize("images", [9, 1295])
def test_a_search_subset_must_be_possible(images: int) -> None:
    with pytest.raises(ValueError, match=f"search images is {images}; allowed is 10 to 1294"):
        subset(load(DataConfig(source="digits")), images, seed=0)


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
def test_the_fingerprint_follows_the_data(folder: Path, change: Callable[[Path], None]) -> None:
    before = load_folder(folder).fingerprint
    change(folder)
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
        "largest_class": "cat",
        "largest_share": 4 / 6,
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
    one, two = (load(DataConfig(source="digits"), seed) for seed in (0, 1))
    assert images_of(one, "test") == images_of(two, "test")
    assert images_of(one, "train") != images_of(two, "train")


@pytest.mark.parametrize("place", ["cifar10", "."])
def test_cifar10_is_found_as_parquet_in_the_data_folder(tmp_path: Path, place: str) -> None:
    for part in ("train", "test"):
        write_parquet(tmp_path / place / f"{part}.parquet", list(range(10)) * 2)
    data = load(DataConfig(source="cifar10", data_dir=str(tmp_path)))
    assert (data.name, data.label, data.classes) == ("cifar10", "CIFAR-10", CIFAR10_CLASSES)


def test_another_parquet_folder_does_not_pass_for_cifar10(parquet: Path) -> None:
    with pytest.raises(ValueError, match=r"class names in .* is \('cat', 'dog'\); allowed is those of CIFAR-10"):
        load(DataConfig(source="cifar10", data_dir=str(parquet)))


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
    monkeypatch.setitem(sys.modules, "cifar_tune.libraries", SimpleNamespace(import_torchvision=lambda: module))  # pyright: ignore[reportArgumentType]
    return fake


def test_cifar10_is_downloaded_once_and_then_found(tmp_path: Path, torchvision: type[FakeCifar10]) -> None:
    first = load(DataConfig(source="cifar10", data_dir=str(tmp_path / "data")))
    assert [path.name for path in (tmp_path / "data" / "cifar10").iterdir()] == ["cifar-10-batches-py"]
    torchvision.end = URLError("a second download")
    assert load(DataConfig(source="cifar10", data_dir=str(tmp_path / "data"))).fingerprint == first.fingerprint
    assert (first.label, first.flip, len(first.test_labels)) == ("CIFAR-10", True, 20)


@pytest.mark.parametrize("end", [URLError("no route"), OSError("no route"), RuntimeError("no route")])
def test_a_failed_download_says_where_it_looked_and_leaves_nothing(
    tmp_path: Path, torchvision: type[FakeCifar10], end: Exception
) -> None:
    torchvision.end = end
    data_dir = tmp_path / "deep" / "data"
    with pytest.raises(ValueError, match=r"no route.*--data digits or --data FOLDER") as caught:
        load(DataConfig(source="cifar10", data_dir=str(data_dir)))
    assert f"not in {data_dir / 'cifar10'} and {data_dir}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("torchvision")
def test_a_damaged_copy_of_cifar10_is_named(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(ValueError, match=r"cifar-10-batches-py is not an intact copy of CIFAR-10"):
        load(DataConfig(source="cifar10", data_dir=str(tmp_path)))


def test_every_registered_name_is_a_function_of_the_data_folder() -> None:
    assert sorted(DATASETS) == ["cifar10", "digits"]
    assert all(callable(reader) for reader in DATASETS.values())
