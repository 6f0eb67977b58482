"""Property tests of the pure functions of training."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_tune.config import DistillLoss
from cifar_tune.data.images import UNLABELLED
from cifar_tune.training.losses import DISTANCES, OTHERS_WEIGHT, decoupled_kl, distillation_loss, kl
from cifar_tune.training.schedules import SCHEDULES, schedule

seeds = st.integers(0, 2**31 - 1)
temperatures = st.floats(0.5, 20)
few = settings(max_examples=25)  # smooth formulas: examples differ in their numbers only


def logits_and_labels(seed: int, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student = scale * torch.randn(6, 5, generator=generator)
    teacher = scale * torch.randn(6, 5, generator=generator)
    return student, teacher, torch.randint(0, 5, (6,), generator=generator)


@few
@given(seed=seeds, temperature=temperatures, smoothing=st.floats(0, 0.5))
def test_alpha_0_equals_cross_entropy(seed: int, temperature: float, smoothing: float) -> None:
    student, teacher, labels = logits_and_labels(seed)
    expected = F.cross_entropy(student, labels, label_smoothing=smoothing)
    assert torch.equal(distillation_loss(student, teacher, labels, temperature, 0.0, smoothing), expected)


@few
@given(seed=seeds, temperature=temperatures)
def test_alpha_1_with_identical_logits_is_0(seed: int, temperature: float) -> None:
    student, _, labels = logits_and_labels(seed)
    assert abs(distillation_loss(student, student, labels, temperature, 1.0).item()) < 1e-5 * temperature**2


@few
@given(seed=seeds, temperature=temperatures)
def test_distillation_term_is_never_negative(seed: int, temperature: float) -> None:
    student, teacher, labels = logits_and_labels(seed)
    assert distillation_loss(student, teacher, labels, temperature, 1.0).item() > -1e-5


@few
@given(seed=seeds)
def test_gradient_scale_does_not_depend_on_temperature_to_first_order(seed: int) -> None:
    def gradient(temperature: float) -> torch.Tensor:
        student, teacher, labels = (t.double() if t.is_floating_point() else t for t in logits_and_labels(seed, 0.1))
        student.requires_grad_()
        distillation_loss(student, teacher, labels, temperature, 1.0).backward()
        assert student.grad is not None
        return student.grad

    cold, hot = gradient(20.0).norm(), gradient(80.0).norm()
    assert math.isclose(cold.item(), hot.item(), rel_tol=0.02)


@few
@given(seed=seeds, temperature=temperatures, alpha=st.floats(0.01, 0.99))
def test_loss_is_linear_in_alpha(seed: int, temperature: float, alpha: float) -> None:
    student, teacher, labels = logits_and_labels(seed)
    soft, hard = (distillation_loss(student, teacher, labels, temperature, a).item() for a in (1.0, 0.0))
    mixed = distillation_loss(student, teacher, labels, temperature, alpha).item()
    assert math.isclose(mixed, alpha * soft + (1 - alpha) * hard, rel_tol=1e-4, abs_tol=1e-5)


def test_loss_equals_the_formula_of_r6() -> None:
    student, teacher, labels = logits_and_labels(1)
    log_p, q = F.log_softmax(student / 4, 1), F.softmax(teacher / 4, 1)
    expected = 0.7 * 16 * F.kl_div(log_p, q, reduction="batchmean") + 0.3 * F.cross_entropy(student, labels)
    torch.testing.assert_close(distillation_loss(student, teacher, labels, 4.0, 0.7), expected)


@pytest.mark.parametrize("kind", DISTANCES)
def test_student_that_answers_as_its_teacher_has_nothing_to_learn(kind: DistillLoss) -> None:
    student, _, labels = logits_and_labels(1)
    assert abs(distillation_loss(student, student, labels, 4.0, 1.0, kind=kind).item()) < 1e-4


def test_standardised_loss_does_not_see_the_size_of_logits() -> None:
    student, teacher, labels = logits_and_labels(1)
    plain = distillation_loss(student, teacher, labels, 2.0, 1.0, kind="standardised")
    torch.testing.assert_close(
        distillation_loss(3 * student + 1, teacher / 2, labels, 2.0, 1.0, kind="standardised"), plain
    )


def test_kl_is_the_target_s_part_and_the_others_part_by_what_the_teacher_leaves_them() -> None:
    """Zhao et al. 2022, equation 7: KL = TCKD + (1 - p) NCKD."""
    student, teacher, labels = logits_and_labels(1)
    both = zip(student.double(), teacher.double(), labels, strict=True)
    for own, theirs, label in ((s[None], t[None], y[None]) for s, t, y in both):
        found = decoupled_kl(own, theirs, label, 3.0)
        rest = torch.arange(5) != label
        others = kl(own[:, rest], theirs[:, rest], label, 3.0)
        left = 1 - F.softmax(theirs / 3, 1)[0, label]
        torch.testing.assert_close(found - (OTHERS_WEIGHT - left) * others, kl(own, theirs, label, 3.0).expand(1))


@pytest.mark.parametrize("kind", DISTANCES)
def test_images_without_labels_count_in_the_teacher_s_part_only(kind: DistillLoss) -> None:
    student, teacher, labels = logits_and_labels(1)
    half = torch.where(torch.arange(6) < 3, labels, UNLABELLED)
    hard = F.cross_entropy(student[:3], labels[:3], label_smoothing=0.1)
    as_taught = torch.where(half == UNLABELLED, teacher.argmax(1), labels)
    soft = distillation_loss(student, teacher, as_taught, 4.0, 1.0, kind=kind)
    found = distillation_loss(student, teacher, half, 4.0, 0.7, 0.1, kind=kind)
    torch.testing.assert_close(found, 0.7 * soft + 0.3 * hard)


def test_a_batch_without_labels_has_a_finite_loss() -> None:
    student, teacher, _ = logits_and_labels(1)
    none = torch.full((6,), UNLABELLED)
    assert distillation_loss(student, teacher, none, 4.0, 0.7).isfinite()


def test_teacher_gets_no_gradient() -> None:
    student, teacher, labels = logits_and_labels(1)
    student.requires_grad_()
    teacher.requires_grad_()
    distillation_loss(student, teacher, labels, 4.0, 0.7).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_stays_within_0_and_1(name: str) -> None:
    assert all(0 <= schedule(name)(i / 1000) <= 1 for i in range(1000))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_reaches_nearly_its_peak(name: str) -> None:
    assert max(schedule(name)(i / 1000) for i in range(1000)) > 0.94


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_ends_low(name: str) -> None:
    assert schedule(name)(0.999) <= 0.072


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_starts_below_half_of_its_peak(name: str) -> None:
    assert schedule(name)(0.0) < 0.5


def test_unknown_schedule_lists_those_allowed() -> None:
    with pytest.raises(ValueError, match=r"'cubic' is unknown; allowed are cosine, step, one_cycle, linear, triangle"):
        schedule("cubic")
