"""The distillation loss, a pure function of logits and labels."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_tune.config import TrainConfig


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    labels: Tensor,
    temperature: float,
    alpha: float,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> Tensor:
    """alpha * T^2 * KL(teacher/T || student/T) + (1 - alpha) * cross-entropy, both means over the batch.

    The factor T^2 keeps the gradient's scale independent of T to first order (Hinton, Vinyals, Dean, "Distilling
    the knowledge in a neural network", 2015). Computed in float32 whatever the logits' type.

    Args:
        student_logits: (N, classes), any float type; gradients flow only through these.
        teacher_logits: (N, classes), any float type; None is allowed where alpha is 0.
        labels: (N,) int64 class indices.
        temperature: T > 0.
        alpha: weight of the distillation term, 0 to 1. At 0 the result is exactly the cross-entropy.
        label_smoothing: of the cross-entropy.
        class_weights: (classes,) float32, of the labels in the cross-entropy, whose mean is over their weights; None:
            all alike. The distillation term is over all classes at once and has none.

    Returns: a float32 scalar.
    """
    student = student_logits.float()
    if alpha == 0:
        return F.cross_entropy(student, labels, class_weights, label_smoothing=label_smoothing)
    assert teacher_logits is not None, "alpha > 0 needs the teacher's logits"
    teacher = teacher_logits.detach().float()
    soft = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    distilled = alpha * temperature**2 * soft
    if alpha == 1:
        return distilled
    return distilled + (1 - alpha) * F.cross_entropy(student, labels, class_weights, label_smoothing=label_smoothing)


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Number of rows whose largest logit is the label's, as a scalar tensor on the logits' device."""
    return (torch.argmax(logits, dim=1) == labels).sum()


UNBALANCED = 1.5
"""Images of the largest class, in those of the smallest, from which `auto` weighs classes."""


def class_weights(config: TrainConfig, labels: np.ndarray) -> Tensor | None:
    """What each class's labels weigh in the loss, float32 (classes,) on the training device, 1 on average over the
    images; None: all alike.

    A class weighs in inverse proportion to its images, so that each has the same part in the loss (King and Zeng,
    "Logistic regression in rare events data", 2001; scikit-learn's `balanced`).
    """
    counts = np.bincount(labels)
    if config.class_weights == "never" or (config.class_weights == "auto" and counts.max() < UNBALANCED * counts.min()):
        return None
    weights = len(labels) / (len(counts) * counts)
    return torch.from_numpy(weights).float().to(config.device)
