"""What users of an endpoint do: send an image, wait for its class, send the next. Run by locust in its own process.

Locust's own percentiles are whole milliseconds; here every request is kept.
"""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from locust import FastHttpUser, constant, events, task
from PIL import Image

SIDE, OUT = int(os.environ["CIFAR_TUNE_SIDE"]), Path(os.environ["CIFAR_TUNE_REQUESTS"])
TOGETHER = os.environ["CIFAR_TUNE_TOGETHER"]
"""Header of an answer that says how many images were taken together."""
IMAGES = 16
"""Made-up ones, in turns: what an image shows changes no time."""
OK, DIGITS = 200, 3

requests: list[tuple[float, float, bool, int]] = []
"""End as Unix time, milliseconds, whether it was answered as it should, and how many images were taken together."""


def encoded() -> list[bytes]:
    """PNG files of noise."""
    drawn = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), np.uint8)
    files = [io.BytesIO() for _ in drawn]
    for pixels, file in zip(drawn, files, strict=True):
        Image.fromarray(pixels).save(file, "PNG")
    return [file.getvalue() for file in files]


class Sender(FastHttpUser):
    """One user."""

    wait_time = constant(0)
    files = encoded()
    first: ClassVar[dict[int, tuple[str, float]]] = {}
    """Image -> what the endpoint answered first, whoever asked."""
    sent = 0

    @task
    def classify(self) -> None:
        """One image; an answer that is not what that image was given before is a failure: images were mixed up."""
        self.sent += 1
        image = self.sent % len(self.files)
        how: dict[str, Any] = {"data": self.files[image], "headers": {"Content-Type": "image/png"}}
        with self.client.post("/", **how, catch_response=True) as response:
            if response.status_code != OK:
                return  # a failure already
            answer = response.json()
            same = self.first.setdefault(image, (answer["class"], answer["probability"]))
            if (answer["class"], round(answer["probability"], DIGITS)) != (same[0], round(same[1], DIGITS)):
                response.failure(f"{answer} for an image that was given {same}")


@events.request.add_listener
def keep(response_time: float, response: Any, exception: Exception | None, **_: Any) -> None:
    """Called by locust at the end of each request."""
    together = (getattr(response, "headers", None) or {}).get(TOGETHER, 0)
    requests.append((time.time(), response_time, exception is None, int(together)))


@events.quitting.add_listener
def write(**_: Any) -> None:
    """Called by locust at its end."""
    OUT.write_text(json.dumps(requests))
