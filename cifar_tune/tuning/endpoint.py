"""The candidate behind HTTP, with Ray Serve (R25).

POST / takes the bytes of an image file and answers with its class; GET / says what the model is. Uploads that are no
fit image get a 4xx with a sentence. Requests that wait are bounded: more of them are answered with 503 at once, and one
that waits too long with 408. What is run is this package's own code: ONNX and OpenVINO files of the candidate's folder
are opened, and every other form is built anew from its weights, since a file of it may hold code.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray import serve
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from cifar_tune.config import Variant, check
from cifar_tune.data.uploads import check_size, check_type, decode_upload
from cifar_tune.device import usable_cpus
from cifar_tune.errors import RefusedError
from cifar_tune.models.registry import architecture
from cifar_tune.runtimes import RUNTIMES, Source
from cifar_tune.shipping.candidate import CARD
from cifar_tune.training.teacher import load_model

NAME = "cifar_tune"
METHOD_NOT_ALLOWED = 405
TAKEN_TOGETHER = "X-Taken-Together"
"""Header of an answer: how many images the replica took from those that waited, this one among them."""
DATA_FORMS = ("onnxruntime", "openvino")
"""Runtimes whose file is data, and no code: it is opened as it lies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How much an endpoint takes on."""

    replicas: int = 1
    """Processes that answer."""
    batch: int = 8
    """Images taken from those that wait at a time. The program answers them one by one, as it was measured: what is
    saved is the server's own work between them."""
    queue: int = 128
    """Requests that wait, at most, beside those that the replicas have taken: each twice `batch`."""
    timeout: float = 10.0
    """Seconds after which a request is given up."""


class Endpoint:
    """A replica: reads uploads, and answers them.

    Args:
        folder: of a candidate; None: a server that does everything but classify, to see what the serving costs.
        batch: see Limits.
        side: of the images that a server which classifies nothing decodes, in pixels.
    """

    def __init__(self, folder: str | None, batch: int, side: int = 32) -> None:
        self._card: dict[str, Any] = {"image_size": side} if folder is None else read_card(Path(folder))
        self._classify = _constant if folder is None else open_candidate(Path(folder), self._card)
        self._answers.set_max_batch_size(batch)  # pyright: ignore[reportAttributeAccessIssue] - of the decorator
        self._check()  # the first call may compile

    async def check_health(self) -> None:
        """Serve asks this again and again, and replaces a replica that raises.

        A coroutine, so that it runs where the requests do: programs that reuse their buffers take one call at a time.
        """
        self._check()

    def _check(self) -> None:
        side = self._card["image_size"]
        if not np.isfinite(self._probabilities(np.zeros((side, side, 3), np.uint8))).all():
            raise RuntimeError("the model answers with numbers that are not finite")

    async def __call__(self, request: Request) -> JSONResponse:
        """One request."""
        if request.method == "GET":
            return JSONResponse({name: self._card[name] for name in ABOUT if name in self._card})
        if request.method != "POST":
            return JSONResponse({"error": "POST an image file"}, METHOD_NOT_ALLOWED)
        try:
            body = await _body(request)
            pixels = await asyncio.to_thread(decode_upload, body, self._card["image_size"])
        except RefusedError as error:
            return JSONResponse({"error": str(error)}, error.status)
        probabilities, together = await self._answers(pixels)
        best = int(probabilities.argmax())
        classes = self._card.get("classes")
        named = str(best) if classes is None else classes[best]
        answer = {"class": named, "probability": round(float(probabilities[best]), 6)}
        return JSONResponse(answer, headers={TAKEN_TOGETHER: str(together)})

    @serve.batch(batch_wait_timeout_s=0.0)
    async def _answers(self, images: list[np.ndarray]) -> list[tuple[np.ndarray, int]]:
        return [(self._probabilities(pixels), len(images)) for pixels in images]

    def _probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Image uint8 (side, side, 3) -> float64 (classes,)."""
        logits = self._classify(pixels).astype(np.float64)
        shares = np.exp(logits - logits.max())
        return shares / shares.sum()


ABOUT = ("model", "variant", "classes", "image_size", "test_accuracy", "p50_ms")
"""Of the card, what GET answers with."""


def _constant(_: np.ndarray) -> np.ndarray:
    return np.zeros(10, np.float32)


async def _body(request: Request) -> bytes:
    """The upload, read no further than is allowed."""
    check_type(request.headers.get("content-type", ""))
    declared = request.headers.get("content-length", "")
    check_size(int(declared) if declared.isdecimal() else 0)
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            check_size(size)
            parts.append(part)
    except ClientDisconnect as error:
        raise RefusedError(400, "the upload broke off") from error
    return b"".join(parts)


def read_card(folder: Path) -> dict[str, Any]:
    """A candidate's card; ValueError where there is none, or the folder was not verified."""
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
        verified, runtime = card["verification"]["ok"], card["variant"]["runtime"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds no candidate: {error}") from error
    if not verified:
        raise ValueError(f"the candidate in {folder} was not verified: {card['verification']['problem']}")
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime of {folder} is {runtime!r}; allowed are {', '.join(RUNTIMES)}")
    return card


def check_servable(card: dict[str, Any], limits: Limits) -> None:
    """ValueError where a candidate cannot be served here, or not by so many replicas."""
    variant = Variant(**card["variant"])
    if card["device"] == "cuda":  # Ray would wait for them without end
        check(limits.replicas <= torch.cuda.device_count(), "replicas", limits.replicas, "at most a GPU each")
    if variant.runtime not in DATA_FORMS:
        architecture(card["model"])
        built = variant.precision != "int8"
        check(built, "variant of the candidate", variant.name, "what can be built from weights, without calibration")


def open_candidate(folder: Path, card: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Image uint8 (side, side, 3) -> logits float (classes,), with what a candidate's folder holds."""
    runtime = card["variant"]["runtime"]
    if runtime in DATA_FORMS:
        classify = importlib.import_module(f"cifar_tune.deployed.{runtime}").load(card, folder)
    else:
        classify = _built(folder, card)
    mean, std = (np.asarray(card[name], dtype=np.float32) for name in ("mean", "std"))

    def answer(pixels: np.ndarray) -> np.ndarray:
        images = ((pixels[None] / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
        return classify(np.ascontiguousarray(images))[0]

    return answer


def _built(folder: Path, card: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Images float32 (1, 3, H, W) -> logits (1, classes), by the card's runtime from the folder's weights."""
    torch.set_num_threads(card["threads"])
    variant, device, side = Variant(**card["variant"]), card["device"], card["image_size"]
    runtime = RUNTIMES[variant.runtime]
    with tempfile.TemporaryDirectory() as artifact:
        source = Source(
            model=load_model(card["model"], len(card["classes"]), folder / "model.safetensors").to(device),
            variant=variant,
            device=device,
            example=torch.zeros(1, 3, side, side, device=device),
            threads=card["threads"],
            folder=Path(artifact),
        )
        if runtime.export is not None:
            runtime.export(source)
        runnable = runtime.load(source)

    def classify(images: np.ndarray) -> np.ndarray:
        with runnable.scope():
            logits = runnable.call(runnable.prepare_input(torch.from_numpy(images).to(device)))
            runnable.synchronize()
        return logits.float().cpu().numpy()

    return classify


@contextlib.contextmanager
def serving(
    folder: Path | None, limits: Limits, host: str = "127.0.0.1", port: int = 0, side: int = 32
) -> Iterator[str]:
    """Ray and an endpoint on this machine, up while the context is; gives its address.

    Args:
        folder, side: see Endpoint.
        host: where to listen; there is no access control, so another one than loopback is for who may use it.

    Raises:
        ValueError: there is no candidate, or it cannot be served here.
    """
    card = {"device": "cpu"} if folder is None else read_card(folder)
    if folder is not None:
        check_servable(card, limits)
    deployment = serve.deployment(
        name=NAME,
        num_replicas=limits.replicas,
        max_ongoing_requests=2 * limits.batch,  # the next batch is read while one is answered
        max_queued_requests=limits.queue,
        ray_actor_options={"num_cpus": 0, "num_gpus": 1 if card["device"] == "cuda" else 0},
    )(Endpoint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            address="local",
            num_cpus=usable_cpus(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        options = {"host": host, "port": port, "request_timeout_s": limits.timeout}
        serve.start(http_options=options, logging_config={"log_level": "ERROR", "enable_access_log": False})
        serve.run(
            deployment.bind(None if folder is None else str(folder.absolute()), limits.batch, side),
            name=NAME,
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        yield f"http://{host}:{port}/"
    finally:
        with contextlib.suppress(Exception):
            serve.shutdown()
        ray.shutdown()
