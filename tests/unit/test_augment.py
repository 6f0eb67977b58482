"""The views: pure functions of seed, epoch and image, made in batches."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from cifar_tune.config import ViewConfig
from cifar_tune.data.augment import Batcher, draw_views
from cifar_tune.data.trivial import OPERATIONS, augmented

FIELDS = ("rows", "columns", "flipped", "cutout", "operations", "strengths")
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
    few, many = (draw_views(ViewConfig(trivial_augment=True), 3, count) for count in (10, 1000))
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
    centred = dataclasses.replace(views, cutout=torch.full((1, 2), 0.5))
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


# --- TrivialAugment -----------------------------------------------------------------------------------------------

TRIVIAL = ViewConfig(trivial_augment=True)
AT_REST = [name for name in OPERATIONS if name not in ("autocontrast", "equalize")]


def operated(name: str, strength: float, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Images before and after an operation: float (n, H, W, 3)."""
    before = torch.from_numpy(images(6, size)) // 2 + 20  # some contrast is to be gained
    number = torch.full((6,), list(OPERATIONS).index(name))
    return before.float(), augmented(before, number, torch.full((6,), strength))


@pytest.mark.parametrize("name", AT_REST)
def test_operation_without_strength_leaves_the_image(name: str) -> None:
    before, after = operated(name, 0.0)
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("strength", [-1.0, 0.4, 1.0])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_keeps_values_within_a_byte(name: str, strength: float) -> None:
    _, after = operated(name, strength)
    assert after.isfinite().all()
    assert after.min() >= 0
    assert after.max() <= 255


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "identity"])
def test_operation_changes_the_image(name: str) -> None:
    before, after = operated(name, -0.9)
    assert not torch.equal(after, before)


def test_each_image_has_its_own_operation() -> None:
    before = torch.from_numpy(images(3))
    number = torch.tensor([list(OPERATIONS).index(name) for name in ("identity", "solarize", "identity")])
    after = augmented(before, number, torch.ones(3))
    assert [bool(torch.equal(a, b.float())) for a, b in zip(after, before, strict=True)] == [True, False, True]


def test_a_shift_by_half_a_side_moves_in_black() -> None:
    before, after = operated("translate_x", 0.5, size=8)
    torch.testing.assert_close(after[:, :, :4], before[:, :, 4:])
    assert after[:, :, 4:].abs().max() == 0


def test_crops_are_the_same_with_and_without_operations() -> None:
    with_them, without = draw_views(TRIVIAL, 3, 50), draw_views(ViewConfig(), 3, 50)
    assert torch.equal(with_them.rows, without.rows)
    assert without.operations.eq(0).all()


def test_operations_are_drawn_for_each_image() -> None:
    drawn = draw_views(TRIVIAL, 1, 2000).operations
    assert set(drawn.tolist()) == set(range(len(OPERATIONS)))
