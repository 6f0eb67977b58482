"""One kernel of paired rounds, beside the formulas that it took the place of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_tune.rounds import round_medians, round_ratios

ROUNDS = st.tuples(st.integers(1, 30), st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**32 - 1))
"""Rounds, calls of the variant and of the reference in each, and a seed."""


def drawn(rounds: int, calls: int, reference_calls: int, seed: int) -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(seed)
    return rng.lognormal(size=rounds * calls).tolist(), rng.lognormal(size=rounds * reference_calls).tolist()


def medians(values: list[float], rounds: int) -> np.ndarray:
    return np.median(np.asarray(values, dtype=float).reshape(rounds, -1), axis=1)


@given(ROUNDS)
def test_ratios_equal_those_of_medians_round_by_round_to_the_bit(given_: tuple[int, int, int, int]) -> None:
    rounds, calls, _, _ = given_
    samples, reference = drawn(*given_)
    wanted = medians(samples, rounds) / medians(reference, rounds)
    assert round_ratios(samples, reference, calls).tolist() == wanted.tolist()


@given(ROUNDS)
def test_speedups_equal_those_of_medians_round_by_round_to_the_bit(given_: tuple[int, int, int, int]) -> None:
    rounds, calls, _, _ = given_
    samples, reference = drawn(*given_)
    variant, beside = round_medians(samples, reference, calls)
    assert (beside / variant).tolist() == (medians(reference, rounds) / medians(samples, rounds)).tolist()


@given(ROUNDS)
def test_median_of_the_logarithms_equals_that_of_the_old_formula(given_: tuple[int, int, int, int]) -> None:
    rounds, calls, _, _ = given_
    samples, reference = drawn(*given_)
    wanted = np.median(np.log(medians(samples, rounds) / medians(reference, rounds)))
    assert np.median(np.log(round_ratios(samples, reference, calls))) == pytest.approx(float(wanted), rel=1e-12)


def test_calls_that_fill_no_round_are_left_out() -> None:
    assert round_ratios([2.0, 2.0, 4.0, 4.0, 9.0], [1.0, 2.0, 99.0], 2).tolist() == [2.0, 2.0]


def test_fewer_calls_than_a_round_are_one_round() -> None:
    assert round_ratios([3.0, 3.0], [1.0], 10).tolist() == [3.0]
