"""How well a model tells classes apart, where accuracy by itself would flatter it: classes of unlike size (R21)."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """Figures of scikit-learn, 0 to 1. Of two classes the second, such as `anomalous`, is the one looked for."""

    balanced_accuracy: float
    """Mean over the classes of the share of their images that are recognised."""
    auroc: float | None
    """Area under the ROC curve; of more than two classes the mean over them, each against all others. None: the logits
    are not all finite, or the images are all of one class."""
    precision_score: float
    """Share of the answers `second class` that are right; of more than two classes the mean over them."""
    recall_score: float
    """Share of the second class's images that are found; of more than two classes the mean over them."""


def quality(logits: np.ndarray, labels: np.ndarray) -> Quality:
    """What logits, float (N, classes), say of images whose classes are `labels`, int (N,)."""
    metrics = _metrics()
    predicted, two = logits.argmax(1), logits.shape[1] == 2
    # a class that is never answered has no precision: 0, as its recall
    how = {"average": "binary" if two else "macro", "zero_division": 0.0}
    return Quality(
        balanced_accuracy=float(np.mean([np.mean(predicted[labels == c] == c) for c in np.unique(labels)])),
        auroc=_auroc(logits, labels),
        precision_score=float(metrics.precision_score(labels, predicted, **how)),
        recall_score=float(metrics.recall_score(labels, predicted, **how)),
    )


def _auroc(logits: np.ndarray, labels: np.ndarray) -> float | None:
    from scipy.special import softmax

    metrics = _metrics()
    if not np.isfinite(logits).all() or len(np.unique(labels)) < logits.shape[1]:
        return None
    if logits.shape[1] == 2:
        return float(metrics.roc_auc_score(labels, logits[:, 1] - logits[:, 0]))
    return float(metrics.roc_auc_score(labels, softmax(logits.astype(np.float64), axis=1), multi_class="ovr"))


def _metrics() -> Any:
    """scikit-learn's: slow to import, so only evaluations do, and slow for a type checker to read."""
    return importlib.import_module("sklearn.metrics")
