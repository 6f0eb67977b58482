"""The views: pure functions of seed, epoch and image, made in batches."""

import itertools

import numpy as np
import pytest
import torch

from cifar_tune.config import ViewConfig
from cifar_tune.data.augment import Batcher, draw_views

FIELDS = ("rows", "columns", "flipped", "cutout")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def images(count: int = 10, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def expected_view(image: np.ndarray, row: int, column: int, flipped: bool, padding: int) -> np.ndarray:
    """The same view by the plain way: pad one image, crop it, mirror it, normalise it."""
    size = image.shape[0]
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
    crop = padded[padding + row : padding + row + size, padding + column : padding + column + size]
    crop = crop[:, ::-1] if flipped else crop
    return ((crop / 255 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)


@pytest.mark.parametrize("field", FIELDS)
def test_view_of_an_image_does_not_depend_on_how_many_there_are(field: str) -> None:
    few, many = draw_views(ViewConfig(), 3, 10), draw_views(ViewConfig(), 3, 1000)
    assert torch.equal(getattr(few, field), getattr(many, field)[:10])


@pytest.mark.parametrize("change", [{"epoch": 4}, {"seed": 1}])
def test_views_differ_between_epochs_and_seeds(change: dict[str, int]) -> None:
    first = draw_views(ViewConfig(seed=0), 3, 100)
    other = draw_views(ViewConfig(seed=change.get("seed", 0)), change.get("epoch", 3), 100)
    assert not torch.equal(first.rows, other.rows)


def test_offsets_use_all_of_the_padding() -> None:
    views = draw_views(ViewConfig(crop_padding=2), 1, 1000)
    assert sorted(set(views.rows.tolist())) == [-2, -1, 0, 1, 2]


def test_half_of_the_images_are_flipped() -> None:
    assert 0.45 < draw_views(ViewConfig(), 1, 4000).flipped.float().mean() < 0.55


def test_the_next_epoch_shows_the_mirrored_image() -> None:
    first, second = (draw_views(ViewConfig(), epoch, 100).flipped for epoch in (1, 2))
    assert torch.equal(first, ~second)


@pytest.mark.parametrize("distinct", [None, 2, 4])
def test_views_that_come_again_take_turns_all_the_same(distinct: int | None) -> None:
    config = ViewConfig(distinct=distinct)
    turns = [bool(draw_views(config, config.drawn(epoch), 1).flipped) for epoch in range(1, 9)]
    assert all(now is not after for now, after in itertools.pairwise(turns))


def test_flip_can_be_switched_off() -> None:
    assert not draw_views(ViewConfig(flip=False), 1, 1000).flipped.any()


def test_batched_views_equal_the_plain_way_image_by_image() -> None:
    data, config = images(), ViewConfig(crop_padding=3)
    views = draw_views(config, 1, len(data))
    batch = Batcher(data, MEAN, STD).views(torch.arange(len(data)), views).numpy()
    for i, image in enumerate(data):
        row, column, flipped = int(views.rows[i]), int(views.columns[i]), bool(views.flipped[i])
        np.testing.assert_allclose(batch[i], expected_view(image, row, column, flipped, 3), atol=1e-5)


def test_view_does_not_depend_on_the_batch_it_is_in() -> None:
    data = images()
    batcher, views = Batcher(data, MEAN, STD), draw_views(ViewConfig(), 1, len(data))
    whole = batcher.views(torch.arange(len(data)), views)
    assert torch.equal(batcher.views(torch.tensor([7, 2]), views), whole[[7, 2]])


def test_cutout_sets_a_square_to_the_mean() -> None:
    data = np.full((1, 32, 32, 3), 255, dtype=np.uint8)
    views = draw_views(ViewConfig(cutout=8), 1, 1)
    centred = type(views)(rows=views.rows, columns=views.columns, flipped=views.flipped, cutout=torch.full((1, 2), 0.5))
    batch = Batcher(data, MEAN, STD, cutout=8).views(torch.tensor([0]), centred)
    assert (batch == 0).sum() == 3 * 8 * 8


def test_batches_are_channels_last_in_memory() -> None:
    data = images()
    batch = Batcher(data, MEAN, STD).views(torch.arange(4), draw_views(ViewConfig(), 1, len(data)))
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_images_are_not_copied() -> None:
    data = images()
    assert Batcher(data, MEAN, STD).images.data_ptr() == data.ctypes.data


def test_read_only_images_are_accepted_without_a_warning() -> None:
    data = images()
    data.flags.writeable = False
    Batcher(data, MEAN, STD).plain(0, 2)
