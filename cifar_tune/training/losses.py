"""Losses of a training, pure functions of logits and labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cifar_tune.config import DistillLoss, TrainConfig
from cifar_tune.data.images import UNLABELLED


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    labels: Tensor,
    temperature: float,
    alpha: float,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    kind: DistillLoss = "kl",
) -> Tensor:
    """alpha * T^2 * distance(teacher, student) + (1 - alpha) * cross-entropy, both means over the batch.

    The factor T^2 keeps the gradient's scale independent of T to first order (Hinton, Vinyals, Dean, "Distilling
    the knowledge in a neural network", 2015). Computed in float32 whatever the logits' type.

    Args:
        student_logits: (N, classes), any float type; gradients flow only through these.
        teacher_logits: (N, classes), any float type; None is allowed where alpha is 0.
        labels: (N,) int64 class indices; UNLABELLED where only the teacher says something.
        temperature: T > 0.
        alpha: weight of the distillation term, 0 to 1. At 0 the result is exactly the cross-entropy.
        label_smoothing: of the cross-entropy.
        class_weights: (classes,) float32, of the labels in the cross-entropy, whose mean is over their weights; None:
            all alike. The distillation term is over all classes at once and has none.
        kind: the distance, one of DISTANCES.

    Returns: a float32 scalar.
    """
    student = student_logits.float()
    if alpha == 0:
        return F.cross_entropy(student, labels, class_weights, label_smoothing=label_smoothing)
    assert teacher_logits is not None, "alpha > 0 needs the teacher's logits"
    teacher = teacher_logits.detach().float()
    distilled = alpha * temperature**2 * DISTANCES[kind](student, teacher, labels, temperature)
    if alpha == 1:
        return distilled
    return distilled + (1 - alpha) * labelled_cross_entropy(student, labels, class_weights, label_smoothing)


def labelled_cross_entropy(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None, label_smoothing: float
) -> Tensor:
    """Mean cross-entropy of the images that have a label; 0 where none has. Nothing is read back from the device."""
    losses = F.cross_entropy(
        logits, labels, class_weights, reduction="none", label_smoothing=label_smoothing, ignore_index=UNLABELLED
    )
    known = (labels != UNLABELLED).float()
    weights = known if class_weights is None else known * class_weights[labels.clamp(min=0)]
    return losses.sum() / weights.sum().clamp(min=1e-9)


def kl(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:  # noqa: ARG001 - as the others
    """KL(teacher/T || student/T) of the softmax distributions, mean over the batch (R6)."""
    return F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def standardised_kl(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """`kl` of logits with mean 0 and standard deviation 1 over the classes.

    So the student need not reach the size of the teacher's logits (Sun et al., "Logit standardization in knowledge
    distillation", CVPR 2024).
    """
    return kl(_standardised(student), _standardised(teacher), labels, temperature)


def _standardised(logits: Tensor) -> Tensor:
    return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + 1e-7)


OTHERS_WEIGHT = 8.0
"""Weight of the other classes' part in DKD, against 1 of the target's: its authors' for CIFAR-100."""


def decoupled_kl(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """KL of target against all others, plus OTHERS_WEIGHT times KL among the others, mean over the batch.

    `kl` weighs the second part by 1 minus the teacher's probability of the target, so a sure teacher's answers about
    the other classes count for little (Zhao et al., "Decoupled knowledge distillation", CVPR 2022).
    """
    labels = torch.where(labels == UNLABELLED, teacher.argmax(1), labels)
    is_target = F.one_hot(labels, student.shape[1]).bool()
    own, theirs = student / temperature, teacher / temperature
    target = F.kl_div(_target_and_rest(own, is_target), _target_and_rest(theirs, is_target), reduction="batchmean",
                      log_target=True)  # fmt: skip
    own_others, their_others = (logits[~is_target].view(len(labels), -1) for logits in (own, theirs))
    others = kl(own_others, their_others, labels, 1.0)
    return target + OTHERS_WEIGHT * others


def _target_and_rest(logits: Tensor, is_target: Tensor) -> Tensor:
    """Log-probabilities of the target and of all others together: (N, 2)."""
    logs = F.log_softmax(logits, dim=1)
    rest = torch.logsumexp(logs[~is_target].view(len(logits), -1), dim=1)
    return torch.stack([logs[is_target], rest], dim=1)


DISTANCES: dict[DistillLoss, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "kl": kl,
    "standardised": standardised_kl,
    "dkd": decoupled_kl,
}


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
    counts = np.bincount(labels[labels != UNLABELLED])
    if config.class_weights == "never" or (config.class_weights == "auto" and counts.max() < UNBALANCED * counts.min()):
        return None
    weights = counts.sum() / (len(counts) * counts)
    return torch.from_numpy(weights).float().to(config.device)
