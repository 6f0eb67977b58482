"""What MLflow loads:  mlflow models serve --model-uri FOLDER --env-manager local

Images uint8 (N, H, W, 3), of the model's size; of each its class and that class's probability.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from example import CARD, FOLDER, prepare  # pyright: ignore[reportAttributeAccessIssue, reportMissingImports]
from model import load  # pyright: ignore[reportMissingImports, reportUnknownVariableType]  # the file beside this one


class Classifier:
    """The deployed form, as MLflow's pyfunc."""

    def __init__(self) -> None:
        self._classify = load(CARD, FOLDER)

    def predict(self, images: np.ndarray, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:  # noqa: ARG002 - MLflow passes it
        """Classify images one by one, as the model was measured."""
        answers: list[dict[str, Any]] = []
        for image in np.asarray(images, np.uint8):
            logits = self._classify(prepare(image[None]))[0].astype(np.float64)
            shares = np.exp(logits - logits.max())
            best = int(logits.argmax())
            answers.append({"class": CARD["classes"][best], "probability": float(shares[best] / shares.sum())})
        return answers


def _load_pyfunc(_: str) -> Classifier:  # pyright: ignore[reportUnusedFunction] - MLflow calls it by this name
    return Classifier()
