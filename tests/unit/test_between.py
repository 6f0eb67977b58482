"""Intervals over processes: they hold as often as they say, also where rows borrow from each other."""

import math

import numpy as np
import pytest

from cifar_tune.between import LEAST_SPREAD, PRIOR, Level, level, moderated, t_quantile, two_sided


def covered(spreads: np.ndarray, processes: int = 3, runs: int = 60) -> float:
    """How often the 95 % interval of a row holds its true level, 0, where rows borrow from each other."""
    rng = np.random.default_rng(0)
    held: list[bool] = []
    for _ in range(runs):
        logs = rng.normal(0, 1, (len(spreads), processes)) * spreads[:, None]
        for found in moderated([level(row, fresh=True) for row in logs]):
            low, high = found.interval()
            held.append(low <= 1 <= high)
    return float(np.mean(held))


def test_three_processes_hold_the_truth_as_often_as_they_say() -> None:
    logs = np.random.default_rng(0).normal(0, 0.05, (2000, 3))
    held = [low <= 1 <= high for low, high in (level(row, fresh=True).interval() for row in logs)]
    assert 0.92 < np.mean(held) < 0.98


@pytest.mark.parametrize("spreads", [np.full(50, 0.05), np.geomspace(0.016, 0.10, 50)], ids=["alike", "unlike"])
def test_rows_that_borrow_from_each_other_hold_the_truth_as_often_as_they_say(spreads: np.ndarray) -> None:
    assert 0.92 < covered(spreads) < 0.98


def test_rows_that_borrow_from_each_other_know_more() -> None:
    rng = np.random.default_rng(0)
    rows = [level(rng.normal(0, 0.05, 3), fresh=True) for _ in range(50)]
    widths = [
        [math.log(high / low) for low, high in (found.interval() for found in of)] for of in (rows, moderated(rows))
    ]
    assert np.median(widths[1]) < 0.6 * np.median(widths[0])


def test_a_single_process_takes_the_prior() -> None:
    assert level([0.0], fresh=True) == Level(mean=0.0, error=PRIOR, degrees=math.inf, processes=1)


def test_repeats_in_one_process_take_the_prior_beside_their_own_error() -> None:
    found = level([0.0, 0.1, 0.2], fresh=False, within=0.03)
    assert (found.mean, found.error, found.processes) == (pytest.approx(0.1), math.hypot(PRIOR, 0.03), 1)


def test_no_row_is_known_beyond_the_least_spread() -> None:
    assert level([0.0] * 4, fresh=True).error == LEAST_SPREAD / 2


def test_a_row_of_one_process_keeps_the_prior_among_others() -> None:
    rng = np.random.default_rng(0)
    rows = [*(level(rng.normal(0, 0.05, 3), fresh=True) for _ in range(9)), level([0.0], fresh=True)]
    assert moderated(rows)[-1] == rows[-1]


def test_few_rows_borrow_nothing() -> None:
    rows = [level([0.0, 0.1], fresh=True)] * 4
    assert moderated(rows) == rows


def test_quantile_and_chance_are_each_other_s_inverse() -> None:
    for degrees in (2, 30, math.inf):
        assert two_sided(t_quantile(0.975, degrees), degrees) == pytest.approx(0.05)
