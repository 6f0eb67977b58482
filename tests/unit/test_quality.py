"""What stands beside accuracy, and classes of unlike size (R21)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from small_data import config, small_data

from cifar_tune.measuring.quality import quality
from cifar_tune.training.losses import class_weights, distillation_loss

ONE_IN_FOUR = np.array([0, 0, 0, 1] * 10)


def logits_of(second: np.ndarray) -> np.ndarray:
    """Logits of two classes from a score for the second."""
    return np.stack([np.zeros(len(second)), second], axis=1).astype(np.float32)


def test_r21_who_always_answers_the_larger_class_is_found_out() -> None:
    found = quality(logits_of(np.full(40, -1.0)), ONE_IN_FOUR)
    assert (found.balanced_accuracy, found.precision_score, found.recall_score) == (0.5, 0.0, 0.0)
    assert found.auroc == 0.5


def test_precision_and_recall_are_of_the_second_class() -> None:
    answers = np.where(ONE_IN_FOUR == 1, 1.0, -1.0)
    answers[:5] = 1.0  # four normal images are called anomalous, and one anomalous one is already
    found = quality(logits_of(answers), ONE_IN_FOUR)
    assert found.recall_score == 1.0
    assert found.precision_score == pytest.approx(10 / 14)


def test_area_under_the_curve_needs_no_threshold() -> None:
    found = quality(logits_of(np.where(ONE_IN_FOUR == 1, -1.0, -2.0)), ONE_IN_FOUR)
    assert (found.auroc, found.balanced_accuracy) == (1.0, 0.5)


def test_more_than_two_classes_are_averaged() -> None:
    labels = np.repeat(np.arange(3), 10)
    found = quality(np.eye(3, dtype=np.float32)[labels] * 5, labels)
    assert dataclasses.astuple(found) == (1.0, 1.0, 1.0, 1.0)


def test_numbers_that_are_not_finite_have_no_curve() -> None:
    answers = logits_of(np.linspace(-1, 1, 40))
    answers[3, 1] = np.nan
    assert quality(answers, ONE_IN_FOUR).auroc is None


@pytest.mark.parametrize(("rule", "weighs"), [("auto", True), ("never", False), ("always", True)])
def test_rare_classes_weigh_more(rule: str, weighs: bool) -> None:
    found = class_weights(config(class_weights=rule), ONE_IN_FOUR)
    assert (found is not None) == weighs
    if found is not None:
        assert torch.allclose(found, torch.tensor([40 / 60, 2.0]))


def test_classes_of_about_one_size_weigh_alike() -> None:
    labels = np.repeat([0, 1], [10, 14])
    assert class_weights(config(class_weights="auto"), labels) is None
    assert class_weights(config(class_weights="always"), labels) is not None


def test_weights_change_the_loss_as_cross_entropy_has_it() -> None:
    logits, labels = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] * 4)
    weights = torch.tensor([0.5, 2.0])
    expected = torch.nn.functional.cross_entropy(logits, labels, weights)
    assert torch.equal(distillation_loss(logits, None, labels, 4.0, 0.0, class_weights=weights), expected)


def test_fixture_has_classes_of_one_size() -> None:
    """Else the tests of training would be of a weighted loss."""
    assert class_weights(config(), small_data().train_labels) is None
