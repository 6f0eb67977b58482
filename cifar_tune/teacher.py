"""A frozen teacher's logits for the views of an epoch: computed once, shared by every trial.

All trials of a study see the same view of image i in epoch e, so the teacher need answer only once. The answers
lie in files, in chunks of a few thousand images. Trials that reach an epoch together compute different chunks of
it, so no core waits; a lock per chunk, which the system releases when its holder dies, keeps two trials from
computing the same one; a chunk appears whole or not at all.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cifar_tune.config import ViewConfig
from cifar_tune.data import ImageData
from cifar_tune.models import architecture, build_model, load_weights, place
from cifar_tune.store import replace_file
from cifar_tune.training import autocast, cpu_precision, to_device
from cifar_tune.views import Batcher, Views

CHUNK_IMAGES = 2048
BATCH_IMAGES = 512


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TeacherRef:
    """Which teacher: enough to load it anywhere."""

    model: str
    checkpoint: str
    """Absolute path of its safetensors."""
    sha256: str


def load_model(name: str, classes: int, checkpoint: str | Path) -> nn.Module:
    """A trained model in eval mode. ValueError says what does not fit."""
    model = build_model(name, classes)
    load_weights(model, Path(checkpoint))
    return model.eval()


class OnlineTeacher:
    """The teacher itself, asked anew each time: what the cache must equal, and what fills it."""

    def __init__(self, ref: TeacherRef, data: ImageData, views: ViewConfig, device: str = "cpu") -> None:
        self.device = torch.device(device)
        model = load_model(ref.model, len(data.classes), ref.checkpoint).requires_grad_(False)
        self.model = place(model, self.device)
        self.batcher = Batcher(data.train_images, data.mean, data.std, device, views.cutout)
        size = data.train_images.shape[1]
        dense = architecture(ref.model).dense
        self.precision = "fp16" if device == "cuda" else cpu_precision(dense=dense, image_size=size)

    @torch.no_grad()
    def answer(self, views: Views, start: int, stop: int) -> Tensor:
        """Logits for the views of images start to stop: float32 (stop - start, classes)."""
        views = to_device(views, self.device)
        indices = torch.arange(start, stop, device=self.device)
        with autocast(self.precision, self.device.type):
            return torch.cat([self.model(self.batcher.views(i, views)).float() for i in indices.split(BATCH_IMAGES)])

    def __call__(self, epoch: int, views: Views) -> Tensor:  # noqa: ARG002 - the views say all
        """Logits for the views of all training images: float32 (N, classes)."""
        return self.answer(views, 0, len(self.batcher.images))


class CachedTeacher:
    """Logits from `folder`, computed where they are missing; float16 on disk and in memory.

    The file names carry what the logits depend on (teacher weights, data, views), so one folder serves any number
    of teachers. The teacher is loaded only when something is missing.
    """

    def __init__(self, folder: Path, ref: TeacherRef, data: ImageData, views: ViewConfig, device: str = "cpu") -> None:
        self.ref, self.data, self.view_config, self.device = ref, data, views, device
        self.folder = folder / cache_key(ref, data, views)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._teacher: OnlineTeacher | None = None

    def __call__(self, epoch: int, views: Views) -> Tensor:
        """Logits for the views of all training images: float16 (N, classes)."""
        images = len(self.data.train_images)
        chunks = [(start, min(start + CHUNK_IMAGES, images)) for start in range(0, images, CHUNK_IMAGES)]
        for wait in (False, True):  # first what nobody computes, then what others were computing
            for start, stop in chunks:
                self._ensure(epoch, views, start, stop, wait=wait)
        parts = [np.load(self._path(epoch, start), allow_pickle=False) for start, _ in chunks]
        return torch.from_numpy(np.concatenate(parts)).to(self.device)

    def _path(self, epoch: int, start: int) -> Path:
        return self.folder / f"epoch{epoch:04d}-image{start:06d}.npy"

    def _ensure(self, epoch: int, views: Views, start: int, stop: int, *, wait: bool) -> None:
        path = self._path(epoch, start)
        if path.exists():
            return
        with _locked(path.with_suffix(".lock"), wait=wait) as mine:
            if not mine or path.exists():
                return
            self._teacher = self._teacher or OnlineTeacher(self.ref, self.data, self.view_config, self.device)
            logits = self._teacher.answer(views, start, stop).cpu().numpy().astype(np.float16)
            replace_file(path, lambda temporary: _save(temporary, logits))


def cache_key(ref: TeacherRef, data: ImageData, views: ViewConfig) -> str:
    """What the logits depend on, as a folder name."""
    content = {"teacher": ref.sha256, "data": data.fingerprint, "views": dataclasses.asdict(views)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _save(path: str, array: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, array)


@contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock file exclusively; yields False at once when it is held elsewhere and `wait` is off."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
