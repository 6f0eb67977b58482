"""Statistics of a race, against closed formulas and simulated races."""

import dataclasses
from typing import Any

import analysis_data as data
import numpy as np
import pytest
from scipy import stats

from cifar_tune.blocks import Interval, blocks_of, is_above, modes, ratio, summarised, tied_with_fastest, typical
from cifar_tune.config import Variant
from cifar_tune.records import LatencyRecord

RACES = 400
FP16 = Variant(precision="fp16")


def race(rng: np.random.Generator, truth: list[float], blocks: int, spread: float = 0.04) -> np.ndarray:
    """Milliseconds (contenders, blocks): a machine that drifts by a tenth, and processes that differ."""
    drift = rng.normal(0, 0.1, blocks)
    return np.array(truth)[:, None] * np.exp(drift + rng.normal(0, spread, (len(truth), blocks)))


def test_ratio_is_that_of_paired_t_intervals() -> None:
    own, baseline = race(np.random.default_rng(0), [1.0, 2.0], 8)
    found = ratio(own, baseline, between=0)
    expected = stats.ttest_rel(np.log(own), np.log(baseline)).confidence_interval(0.95)
    assert (np.log(found.low), np.log(found.high)) == pytest.approx((expected.low, expected.high))


def test_drift_that_all_contenders_share_is_in_no_ratio() -> None:
    own, baseline = race(np.random.default_rng(0), [1.0, 2.0], 8)
    drift = np.linspace(1, 3, 8)
    assert ratio(own * drift, baseline * drift).middle == pytest.approx(ratio(own, baseline).middle)


@pytest.mark.parametrize("between", [0.0, 0.03])
def test_interval_holds_the_truth_and_the_rerun_as_often_as_it_says(between: float) -> None:
    rng = np.random.default_rng(1)
    pairs = [[ratio(*race(rng, [rng.lognormal(0, between), 2.0], 10), between) for _ in range(2)] for _ in range(RACES)]
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


def block_rows(ratios: list[float], stage: str = "race", **changes: Any) -> list[LatencyRecord]:
    """A baseline of 4 ms on a machine that slows down by a tenth each block, and a contender beside it."""
    found: list[LatencyRecord] = []
    for block, times in enumerate(ratios, start=1):
        beside = 4.0 * 1.1**block
        found += [
            data.blocked(beside, block, beside_ms=beside, stage=stage, arm="teacher", trial_id="t0"),
            data.blocked(times * beside, block, beside_ms=beside, stage=stage, variant=FP16, **changes),
        ]
    return found


def test_rows_of_a_contender_share_the_figures_of_its_blocks() -> None:
    baseline, *_, one, _, other = summarised(block_rows([0.5, 0.48, 0.52]))
    wanted = ratio([0.5, 0.48, 0.52], [1.0, 1.0, 1.0])
    assert (one.ratio_low, one.rerun_high) == pytest.approx((wanted.low, wanted.rerun_high))
    assert one.floor_ms == pytest.approx(0.5 * 4.4)
    assert (one.ratio, one.typical_ms) == (other.ratio, other.typical_ms)
    assert (baseline.ratio, baseline.ratio_low, baseline.ratio_high) == (1.0, 1.0, 1.0)


def test_stages_are_summed_up_by_themselves() -> None:
    found = summarised([*block_rows([0.5, 0.5]), *block_rows([0.6, 0.6], stage="confirm")])
    assert [found[1].ratio, found[5].ratio] == pytest.approx([0.5, 0.6])


def test_rows_of_the_screen_are_left_as_they_are() -> None:
    screened = [data.latency(), data.failed(FP16)]
    assert summarised(screened) == screened


def test_confirmation_of_three_repeats_is_of_the_older_protocol() -> None:
    older = [data.latency(stage="confirm", block=block) for block in (1, 2, 3)]
    assert summarised(older) == older


def test_block_that_a_contender_lost_is_in_no_figure_of_it() -> None:
    *before, last = block_rows([0.5, 0.5, 9.0])
    dead = dataclasses.replace(data.failed(FP16, "it hung"), stage="race", block=3)
    found = blocks_of(data.plain([*before, dead]), "race")[last.trial_id, last.variant]
    assert (found.numbers, found.lost) == ((1, 2), "block 3 failed: it hung")
    assert found.ratios == pytest.approx([0.5, 0.5])


def test_block_that_nobody_finished_is_no_block() -> None:
    asleep = [dataclasses.replace(row, status="skipped", p50_ms=None) for row in block_rows([0.5, 0.5, 0.5])[4:]]
    found = blocks_of(data.plain([*block_rows([0.5, 0.5]), *asleep]), "race")
    assert [blocks.lost for blocks in found.values()] == [None, None]


def test_table_without_samples_still_has_its_ratios() -> None:
    bare = [dataclasses.replace(row, samples_ms=None, reference_ms=None) for row in block_rows([0.5, 0.6])]
    assert list(blocks_of(data.plain(bare), "race").values())[1].ratios == pytest.approx([0.5, 0.6])


@pytest.mark.parametrize(("marked", "disturbed"), [(1, False), (2, True)])
def test_contender_is_disturbed_where_most_of_its_blocks_were(marked: int, disturbed: bool) -> None:
    rows = block_rows([0.5, 0.5, 0.5])
    rows = [dataclasses.replace(row, contended=row.block <= marked) for row in rows]
    assert list(blocks_of(data.plain(rows), "race").values())[1].disturbed is disturbed


def test_shorter_rerun_has_the_wider_interval() -> None:
    own, baseline = race(np.random.default_rng(0), [1.0, 2.0], 20)
    same, shorter = ratio(own, baseline), ratio(own, baseline, rerun_blocks=5)
    assert shorter.rerun_high > same.rerun_high
    assert (shorter.low, shorter.high) == (same.low, same.high)


def test_equal_contenders_are_told_apart_in_one_of_twenty_comparisons() -> None:
    rng = np.random.default_rng(3)
    levels = rng.normal(0, 0.03, (RACES, 2))
    found = [is_above(np.exp(rng.normal(a, 0.03, 5)), np.exp(rng.normal(b, 0.06, 20)), between=0.03) for a, b in levels]
    assert np.mean(found) == pytest.approx(0.05, abs=0.03)
