"""Statistics of a race, against closed formulas and simulated races."""

import numpy as np
import pytest
from scipy import stats

from cifar_tune.blocks import Interval, modes, ratio, tied_with_fastest, typical

RACES = 400


def race(rng: np.random.Generator, truth: list[float], blocks: int, spread: float = 0.04) -> np.ndarray:
    """Milliseconds (contenders, blocks): a machine that drifts by a tenth, and processes that differ."""
    drift = rng.normal(0, 0.1, blocks)
    return np.array(truth)[:, None] * np.exp(drift + rng.normal(0, spread, (len(truth), blocks)))


def test_ratio_is_that_of_paired_t_intervals() -> None:
    own, baseline = race(np.random.default_rng(0), [1.0, 2.0], 8)
    found = ratio(own, baseline)
    expected = stats.ttest_rel(np.log(own), np.log(baseline)).confidence_interval(0.95)
    assert (np.log(found.low), np.log(found.high)) == pytest.approx((expected.low, expected.high))


def test_drift_that_all_contenders_share_is_in_no_ratio() -> None:
    own, baseline = race(np.random.default_rng(0), [1.0, 2.0], 8)
    drift = np.linspace(1, 3, 8)
    assert ratio(own * drift, baseline * drift).middle == pytest.approx(ratio(own, baseline).middle)


def test_interval_holds_the_truth_and_the_rerun_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    pairs = [[ratio(*race(rng, [1.0, 2.0], 10)) for _ in range(2)] for _ in range(RACES)]
    truth = np.mean([one.low <= 0.5 <= one.high for one, _ in pairs])
    rerun = np.mean([one.rerun_low <= other.middle <= one.rerun_high for one, other in pairs])
    assert (truth, rerun) == (pytest.approx(0.95, abs=0.035), pytest.approx(0.95, abs=0.035))


def test_what_differs_from_race_to_race_widens_both_intervals() -> None:
    own, baseline = race(np.random.default_rng(0), [1.0, 2.0], 8)

    def widths(found: Interval) -> tuple[float, float]:
        return found.high / found.low, found.rerun_high / found.rerun_low

    assert all(a < b for a, b in zip(widths(ratio(own, baseline)), widths(ratio(own, baseline, 0.05)), strict=True))


def test_one_block_has_no_interval() -> None:
    with pytest.raises(ValueError, match="allowed is 2 or more"):
        ratio([1.0], [2.0])


@pytest.mark.parametrize("blocks", [6, 10, 15, 20])
def test_interval_of_the_typical_figure_holds_the_median(blocks: int) -> None:
    rng = np.random.default_rng(2)
    found = [typical(np.exp(rng.standard_t(3, blocks) * 0.05)) for _ in range(RACES)]
    assert np.mean([low <= 1.0 <= high for _, low, high in found]) == pytest.approx(0.955, abs=0.035)


def test_of_few_blocks_the_typical_figure_has_their_range() -> None:
    assert typical([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)


def test_fastest_is_out_in_no_more_races_than_it_says() -> None:
    rng = np.random.default_rng(3)
    lost = [not tied_with_fastest(race(rng, [1.0] * 8, 10))[0] for _ in range(RACES)]
    assert np.mean(lost) <= 0.05 + 0.03


def test_slower_contender_is_separated() -> None:
    rng = np.random.default_rng(4)
    separated = [not tied_with_fastest(race(rng, [1.0, 1.1], 10, 0.03))[1] for _ in range(RACES)]
    assert np.mean(separated) > 0.95


def test_more_looks_separate_later() -> None:
    times = race(np.random.default_rng(5), [1.0, 1.06], 5, 0.02)
    assert tied_with_fastest(times, looks=4).sum() >= tied_with_fastest(times).sum()


def test_two_speeds_are_named() -> None:
    rng = np.random.default_rng(6)
    blocks = np.exp(rng.normal(0, 0.02, 10)) * np.repeat([1.0, 1.5], [6, 4])
    assert modes(blocks) == (pytest.approx(1.0, rel=0.05), pytest.approx(1.5, rel=0.05))


def test_one_outlier_is_no_mode() -> None:
    assert modes([1.0, 1.01, 0.99, 1.02, 1.0, 3.0]) is None


@pytest.mark.parametrize("spread", [0.02, 0.05, 0.1, 0.2])
def test_one_speed_is_seldom_taken_for_two(spread: float) -> None:
    rng = np.random.default_rng(7)
    flagged = [modes(np.exp(rng.normal(0, spread, 10))) is not None for _ in range(RACES)]
    assert np.mean(flagged) <= 0.05
