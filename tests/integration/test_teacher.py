"""The teacher's logits: equal with and without the cache, computed once, and none the worse for a bad disk."""

import dataclasses
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mounts import mounted
from small_data import small_data

from cifar_tune.config import TrainConfig, ViewConfig
from cifar_tune.data.augment import draw_views
from cifar_tune.models.registry import MODELS, build_model
from cifar_tune.models.weights import save_weights
from cifar_tune.store import sha256_file
from cifar_tune.training.loop import train
from cifar_tune.training.teacher import CachedTeacher, OnlineTeacher, TeacherRef, Weights, cache_key, load_model, looks

DATA = small_data()
VIEWS = draw_views(ViewConfig(), 1, len(DATA.train_images))
CACHE_TOLERANCE = 4e-3
"""Largest relative rounding of float16 is 2^-11; logits of these teachers stay below 8."""
BF16_TOLERANCE = 0.02
"""Relative; what processors with matrix units answer in. Others stay within 1e-5."""


@pytest.fixture
def teacher(tmp_path: Path) -> TeacherRef:
    path = tmp_path / "teacher.safetensors"
    save_weights(build_model("resnet_tiny", 3, seed=5), path)
    return TeacherRef(model="resnet_tiny", checkpoint=str(path), sha256=sha256_file(path))


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first image of each chunk that a teacher computes, in their order."""
    starts: list[int] = []
    answer = OnlineTeacher.answer

    def counted(self: OnlineTeacher, views: Any, start: int, stop: int) -> torch.Tensor:
        starts.append(start)
        return answer(self, views, start, stop)

    monkeypatch.setattr(OnlineTeacher, "answer", counted)
    return starts


def cached(folder: Path, teacher: TeacherRef) -> CachedTeacher:
    return CachedTeacher(folder, teacher, DATA, ViewConfig())


def test_cached_logits_equal_online_logits_within_float16(teacher: TeacherRef, tmp_path: Path) -> None:
    online = OnlineTeacher(teacher, DATA, ViewConfig())(1, VIEWS)
    assert (cached(tmp_path, teacher)(1, VIEWS).float() - online).abs().max() < CACHE_TOLERANCE


@pytest.mark.parametrize("name", [name for name in MODELS if "224" not in name and "64" not in name])
def test_teacher_answers_as_its_eager_model(name: str, tmp_path: Path) -> None:
    data = small_data(size=32)
    path = tmp_path / "teacher.safetensors"
    save_weights(build_model(name, 3, seed=5), path)
    ref = TeacherRef(model=name, checkpoint=str(path), sha256=sha256_file(path))
    teacher = OnlineTeacher(ref, data, ViewConfig())
    views = draw_views(ViewConfig(), 1, len(data.train_images))
    indices = torch.arange(len(data.train_images))
    with torch.no_grad():
        expected = load_model(name, 3, path)(teacher.batcher.views(indices, views))
    assert (teacher(1, views) - expected).norm() <= BF16_TOLERANCE * expected.norm()


def test_training_with_the_cache_equals_training_with_the_online_teacher(teacher: TeacherRef, tmp_path: Path) -> None:
    data = small_data(size=32)  # at 8x8 batch norm sees one pixel an image, and amplifies any rounding
    settings = TrainConfig(
        model="mobilenet_v3_small", arm="distill", alpha=0.7, epochs=3, lr=0.01, batch_size=24,
        views=ViewConfig(crop_padding=1),
    )  # fmt: skip
    online = train(settings, data, OnlineTeacher(teacher, data, settings.views))
    cached = train(settings, data, CachedTeacher(tmp_path / "cache", teacher, data, settings.views))
    online, cached = list(online), list(cached)
    assert [e.train_loss for e in cached] == pytest.approx([e.train_loss for e in online], rel=0.01)
    assert [e.val_accuracy for e in cached] == [e.val_accuracy for e in online]


def test_logits_of_an_epoch_are_computed_once(
    teacher: TeacherRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: list[int]
) -> None:
    monkeypatch.setattr("cifar_tune.training.teacher.CHUNK_IMAGES", 8)
    threads = [threading.Thread(target=cached(tmp_path, teacher), args=(1, VIEWS)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answered) == list(range(0, len(DATA.train_images), 8))


def test_a_teacher_answers_once_for_views_that_come_again(teacher: TeacherRef, tmp_path: Path) -> None:
    settings = TrainConfig(
        model="resnet_tiny", arm="distill", alpha=0.7, epochs=5, lr=0.01, batch_size=24, views=ViewConfig(distinct=2)
    )
    list(train(settings, DATA, CachedTeacher(tmp_path / "cache", teacher, DATA, settings.views)))
    assert len(list(tmp_path.rglob("*.logits"))) == 2


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-2])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip_a_bit, empty])
def test_a_damaged_file_is_computed_anew(
    teacher: TeacherRef, tmp_path: Path, answered: list[int], damage: Callable[[Path], None]
) -> None:
    before = cached(tmp_path, teacher)(1, VIEWS)
    (file,) = tmp_path.rglob("*.logits")
    damage(file)
    assert torch.equal(cached(tmp_path, teacher)(1, VIEWS), before)
    cached(tmp_path, teacher)(1, VIEWS)
    assert answered == [0, 0]  # once before the damage, once after


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_teacher_itself(
    teacher: TeacherRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = cached(tmp_path / "good", teacher)(1, VIEWS)
    monkeypatch.setattr("cifar_tune.training.teacher.replace_file", no_space)
    full = cached(tmp_path / "full", teacher)
    assert torch.equal(full(1, VIEWS), expected)
    assert full.trouble is not None
    assert "No space left on device" in full.trouble


def test_a_read_only_folder_leaves_the_teacher_itself(teacher: TeacherRef, tmp_path: Path) -> None:
    with mounted(tmp_path / "read-only", "ro") as folder:
        without = cached(folder, teacher)
        assert torch.equal(without(1, VIEWS), cached(tmp_path / "good", teacher)(1, VIEWS))
        assert without.trouble == f"teacher logits cannot be kept in {folder} (Read-only file system): trials ask it"


def test_a_folder_that_cannot_be_made_leaves_the_teacher_itself(teacher: TeacherRef, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    without = cached(tmp_path / "file", teacher)
    assert torch.equal(without(1, VIEWS), cached(tmp_path / "good", teacher)(1, VIEWS))
    assert without.trouble == f"teacher logits cannot be kept in {tmp_path / 'file'} (Not a directory): trials ask it"


def test_several_seeds_answer_with_the_logarithm_of_their_mean_probability(teacher: TeacherRef, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_weights(build_model("resnet_tiny", 3, seed=6), path)
    other = TeacherRef(model="resnet_tiny", checkpoint=str(path), sha256=sha256_file(path))
    both = dataclasses.replace(teacher, seeds=(other,))
    found, *each = (OnlineTeacher(ref, DATA, ViewConfig())(1, VIEWS) for ref in (both, teacher, other))
    torch.testing.assert_close(found.exp(), torch.stack([answer.softmax(1) for answer in each]).mean(0))


def test_answers_over_looks_are_those_of_the_mirrored_image(teacher: TeacherRef) -> None:
    over = OnlineTeacher(dataclasses.replace(teacher, over_looks=True), DATA, ViewConfig())
    mirrored = dataclasses.replace(VIEWS, flipped=~VIEWS.flipped)
    torch.testing.assert_close(over(1, VIEWS), over(1, mirrored), rtol=BF16_TOLERANCE, atol=BF16_TOLERANCE)


def test_looks_of_images_that_are_not_mirrored_are_shifts() -> None:
    images = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).view(2, 3, 4, 4)
    same, up_left, down_right = looks(images, mirrored=False)
    assert torch.equal(same, images)
    assert torch.equal(up_left[:, :, 1:, 1:], images[:, :, :-1, :-1])
    assert torch.equal(down_right[:, :, :-1, :-1], images[:, :, 1:, 1:])


@pytest.mark.parametrize("changed", ["teacher", "precision", "seeds", "looks", "data", "views"])
def test_cache_key_depends_on(changed: str) -> None:
    ref, data, views = TeacherRef(model="resnet18", checkpoint="", sha256="1"), DATA, ViewConfig()
    before = cache_key(ref, data, views)
    if changed == "teacher":
        ref = dataclasses.replace(ref, sha256="2")
    elif changed == "precision":
        ref = dataclasses.replace(ref, precision="bf16")
    elif changed == "seeds":
        ref = dataclasses.replace(ref, seeds=(Weights(checkpoint="", sha256="2"),))
    elif changed == "looks":
        ref = dataclasses.replace(ref, over_looks=True)
    elif changed == "data":
        data = dataclasses.replace(data, fingerprint="other")
    else:
        views = dataclasses.replace(views, crop_padding=2)
    assert cache_key(ref, data, views) != before
