"""Fronts, paired intervals and probabilities against oracles and known cases."""

from __future__ import annotations

import analysis_data as data
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis.paired import paired_difference, standard_error, unpack_correct
from analysis.pareto import hypervolume_2d, on_front, pareto_mask, resampled_accuracy, resampled_medians

# Few distinct values, so that duplicates and ties are common.
POINTS = st.integers(1, 4).flatmap(
    lambda d: st.integers(0, 30).flatmap(
        lambda n: arrays(np.float64, (n, d), elements=st.sampled_from([-1.0, -0.0, 0.0, 2.0]))
    )
)


def brute_force_mask(points: np.ndarray) -> list[bool]:
    return [not any((q <= p).all() and (q < p).any() for q in points) for p in points]


@given(POINTS)
def test_pareto_mask_equals_brute_force(points: np.ndarray) -> None:
    assert pareto_mask(points).tolist() == brute_force_mask(points)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_pareto_mask_of_distinct_points_equals_brute_force(count: int, seed: int) -> None:
    points = np.random.default_rng(seed).random((count, 2))
    assert pareto_mask(points).tolist() == brute_force_mask(points)


def test_copies_of_a_front_point_are_all_on_the_front() -> None:
    assert pareto_mask([[1, 2], [1, 2], [2, 2]]).tolist() == [True, True, False]


@pytest.mark.parametrize("points", [[[1.0, np.nan]], [1.0, 2.0]])
def test_pareto_mask_refuses_nan_and_wrong_shapes(points: list) -> None:
    with pytest.raises(ValueError, match="allowed"):
        pareto_mask(points)


def test_hypervolume_is_the_area_of_the_union() -> None:
    assert hypervolume_2d([[1, 2], [2, 1], [2, 2], [9, 0]], (3, 3)) == pytest.approx(3.0)


def test_hypervolume_without_points_inside_is_zero() -> None:
    assert hypervolume_2d(np.zeros((0, 2)), (1, 1)) == 0.0


def _front_probability(correct: np.ndarray, samples: list) -> np.ndarray:
    rng = np.random.default_rng(0)
    accuracy = resampled_accuracy(correct, rng, 500)
    latency = np.stack([resampled_medians(repeats, rng, 500) for repeats in samples], axis=1)
    return on_front(np.stack([latency, -accuracy], axis=2))


def _probability(right: list[int], p50: list[float]) -> np.ndarray:
    correct = np.stack([unpack_correct(data.bits(n), data.IMAGES) for n in right])
    return _front_probability(correct, [[[p * 0.99, p, p * 1.01]] * 3 for p in p50])


def test_a_row_that_wins_both_ways_is_surely_on_the_front_alone() -> None:
    assert _probability([950, 800], [1.0, 2.0]).tolist() == [1.0, 0.0]


def test_a_slower_row_that_is_right_on_more_images_is_on_the_front() -> None:
    assert _probability([900, 990], [1.0, 2.0]).tolist() == [1.0, 1.0]


def test_an_uncertain_row_has_a_probability_in_between() -> None:
    assert 0.2 < _probability([900, 901], [1.0, 2.0])[1] < 0.9


def test_equal_answers_cannot_make_a_slower_row_part_of_the_front() -> None:
    assert _probability([900, 900], [1.0, 2.0])[1] == 0.0


def test_repeats_that_differ_make_the_latency_uncertain() -> None:
    correct = np.ones((2, 50), dtype=bool)
    probability = _front_probability(correct, [[[1.0] * 9, [1.0] * 9, [3.0] * 9], [[1.5] * 9] * 3])
    assert 0 < probability[1] < 1


def test_packed_bits_come_back_in_order() -> None:
    assert unpack_correct(bytes([0b10100000]), 3).tolist() == [True, False, True]


def test_bits_for_another_number_of_images_are_refused() -> None:
    with pytest.raises(ValueError, match="allowed are 2"):
        unpack_correct(b"\x00", 9)


def test_paired_difference_counts_discordant_images() -> None:
    difference = paired_difference(data.bits(910), data.bits(900, first=20), 1000)
    # 20 images gained at the front, 10 lost at the end.
    assert difference.points == pytest.approx(1.0)
    # Wald: sqrt(20 + 10 - 100 / 1000) / 1000 = 0.547 points, times 1.96; Agresti and Min widen it a little.
    assert (difference.low, difference.high) == pytest.approx((-0.07, 2.07), abs=0.03)


def test_rows_that_never_disagree_are_not_certain() -> None:
    difference = paired_difference(data.bits(900), data.bits(900), 1000)
    assert difference.low < 0 < difference.high


@given(st.integers(0, 100), st.integers(0, 100))
def test_the_interval_contains_the_estimate(first: int, second: int) -> None:
    difference = paired_difference(data.bits(first, 100), data.bits(second, 100), 100)
    assert difference.low <= difference.points <= difference.high


def test_standard_error_of_85_percent_over_10000_images() -> None:
    assert 100 * standard_error(0.85, 10_000) == pytest.approx(0.357, abs=0.001)


def test_a_row_without_samples_is_said_to_have_none() -> None:
    with pytest.raises(ValueError, match="no raw samples"):
        resampled_medians([], np.random.default_rng(0), 10)
