"""A frozen teacher's logits for the views of an epoch: computed once, shared by every trial.

All trials of a study see the same view of image i in epoch e, so the teacher need answer only once. The answers
lie in files, in chunks of a few thousand images. Trials that reach an epoch together compute different chunks of
it, so no core waits; a lock per chunk, which the system releases when its holder dies, keeps two trials from
computing the same one; a chunk appears whole or not at all, and one that was damaged since is computed anew. Where
the folder cannot be written, each trial asks the teacher itself: slower, and the same result.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cifar_tune.config import TrainPrecision, ViewConfig
from cifar_tune.data.augment import Batcher, Views
from cifar_tune.data.datasets import ImageData
from cifar_tune.models.registry import build_model, frozen, place
from cifar_tune.models.weights import load_weights
from cifar_tune.runs import locks
from cifar_tune.store import replace_file
from cifar_tune.training.loop import EVALUATION_BATCH, to_device
from cifar_tune.training.precision import answering_precision, autocast

CHUNK_IMAGES = 2048
DIGEST_BYTES = 32
"""SHA-256 of the logits, before them in each file."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """A file of weights."""

    checkpoint: str
    """Absolute path of its safetensors."""
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TeacherRef(Weights):
    """Which teacher: enough to load it anywhere."""

    model: str
    precision: TrainPrecision = "auto"
    """Arithmetic of its answers: the same for all who ask."""
    seeds: tuple[Weights, ...] = ()
    """Further trainings of the model, whose probabilities are averaged with its own."""
    over_looks: bool = False
    """Whether it answers for the mirrored and shifted image, too, and the mean counts."""


def load_model(name: str, classes: int, checkpoint: str | Path, sha256: str | None = None) -> nn.Module:
    """A trained model in eval mode. ValueError says what does not fit; `sha256`: what the file must hash to."""
    model = build_model(name, classes)
    load_weights(model, Path(checkpoint), sha256)
    return model.eval()


LOOKS_AN_IMAGE = 6
"""Most that `looks` gives."""


def looks(images: Tensor, *, mirrored: bool) -> list[Tensor]:
    """The images, and the same moved by a pixel up and left, and down and right; each mirrored, too, if asked for.

    Args:
        images: (N, C, H, W). What moves in at a border is its mirror image.
    """
    height, width = images.shape[2:]
    padded = functional.pad(images, (1, 1, 1, 1), mode="reflect")
    moved = [images, *(padded[:, :, i : i + height, i : i + width] for i in (0, 2))]
    return [*moved, *(look.flip(3) for look in moved)] if mirrored else moved


class OnlineTeacher:
    """The teacher itself, asked anew each time: what the cache must equal, and what fills it."""

    def __init__(self, ref: TeacherRef, data: ImageData, views: ViewConfig, device: str = "cpu") -> None:
        self.device = torch.device(device)
        loaded = (load_model(ref.model, len(data.classes), w.checkpoint, w.sha256) for w in (ref, *ref.seeds))
        self.models: list[nn.Module] = [place(model.requires_grad_(False), self.device) for model in loaded]
        self._looks = functools.partial(looks, mirrored=views.flip) if ref.over_looks else lambda images: [images]
        self.batcher = Batcher(
            data.train_images, data.mean, data.std, device, views.cutout, trivial=views.trivial_augment
        )
        size = data.train_images.shape[1]
        self.precision = answering_precision(ref.model, device, size) if ref.precision == "auto" else ref.precision
        if (device, self.precision) == ("cpu", "fp32"):
            with torch.no_grad():
                self.models = [frozen(model, torch.zeros(2, 3, size, size)) for model in self.models]

    @torch.no_grad()
    def answer(self, views: Views, start: int, stop: int) -> Tensor:
        """Logits for the views of images start to stop: float32 (stop - start, classes).

        Of several answers for an image, the logarithm of their mean probability.
        """
        views = to_device(views, self.device)
        indices = torch.arange(start, stop, device=self.device)
        size = EVALUATION_BATCH[self.device.type]
        with autocast(self.precision, self.device.type):
            return torch.cat([self._mean(self.batcher.views(i, views)) for i in indices.split(size)])

    def _mean(self, images: Tensor) -> Tensor:
        answers = [model(look).float() for model in self.models for look in self._looks(images)]
        if len(answers) == 1:
            return answers[0]
        logs = torch.stack([functional.log_softmax(answer, dim=1) for answer in answers])
        return torch.logsumexp(logs, dim=0) - math.log(len(answers))

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
        self.trouble: str | None = None
        """Why logits could not be kept; None while all is well."""
        self._teacher: OnlineTeacher | None = None

    def __call__(self, epoch: int, views: Views) -> Tensor:
        """Logits for the views of all training images: float16 (N, classes)."""
        images = len(self.data.train_images)
        chunks = {start: min(start + CHUNK_IMAGES, images) for start in range(0, images, CHUNK_IMAGES)}
        found: dict[int, np.ndarray] = {}
        for wait in (False, True):  # first what nobody computes, then what others were computing
            for start in [start for start in chunks if start not in found]:
                logits = self._logits(epoch, views, start, chunks[start], wait=wait)
                if logits is not None:
                    found[start] = logits
        return torch.from_numpy(np.concatenate([found[start] for start in chunks])).to(self.device)

    def _logits(self, epoch: int, views: Views, start: int, stop: int, *, wait: bool) -> np.ndarray | None:
        """One chunk, read or computed; None where another trial is computing it and we do not wait."""
        path = self.folder / f"epoch{epoch:04d}-image{start:06d}.logits"
        shape = (stop - start, len(self.data.classes))
        if (kept := read_logits(path, shape)) is not None:
            return kept
        lock = self._lock_file(path)
        if lock is None:
            return self._answer(views, start, stop)
        with lock:  # closing it frees the lock
            if not locks.lock(lock, wait=wait):
                return None
            if (kept := read_logits(path, shape)) is not None:
                return kept
            logits = self._answer(views, start, stop)
            self._keep(path, logits)
            return logits

    def _answer(self, views: Views, start: int, stop: int) -> np.ndarray:
        self._teacher = self._teacher or OnlineTeacher(self.ref, self.data, self.view_config, self.device)
        return self._teacher.answer(views, start, stop).cpu().numpy().astype(np.float16)

    def _keep(self, path: Path, logits: np.ndarray) -> None:
        try:
            replace_file(path, lambda temporary: Path(temporary).write_bytes(_digest(logits) + logits.tobytes()))
        except OSError as error:
            self._note(error)

    def _lock_file(self, path: Path) -> TextIO | None:
        """Opened; None where the folder cannot be written, now or before."""
        if self.trouble is None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                return path.with_suffix(".lock").open("w")
            except OSError as error:
                self._note(error)
        return None

    def _note(self, error: OSError) -> None:
        self.trouble = f"teacher logits cannot be kept in {self.folder.parent} ({error.strerror}): trials ask it"


def read_logits(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """A chunk's float16 logits (images, classes); None where its file is missing, or is not what was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if len(content) != DIGEST_BYTES + 2 * shape[0] * shape[1]:
        return None
    logits = np.frombuffer(content, np.float16, offset=DIGEST_BYTES).reshape(shape)
    return logits if content[:DIGEST_BYTES] == _digest(logits) else None


def _digest(logits: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(logits).data).digest()


def cache_key(ref: TeacherRef, data: ImageData, views: ViewConfig) -> str:
    """What the logits depend on, as a folder name."""
    content = {
        "teacher": ref.sha256,
        "seeds": [weights.sha256 for weights in ref.seeds],
        "over_looks": ref.over_looks,
        "precision": ref.precision,
        "data": data.fingerprint,
        "views": dataclasses.asdict(views),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
