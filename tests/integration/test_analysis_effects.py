"""Factor effects against latencies whose factors are known."""

import dataclasses
import functools
import math

import analysis_data as data
import numpy as np
import pandas as pd
import pytest

from analysis.decide import grid_rows
from analysis.effects import Effect, factor_effects
from cifar_tune.between import PRIOR
from cifar_tune.config import grid_variants
from cifar_tune.records import LatencyRecord


def effects_of(records: list[LatencyRecord]) -> list[Effect]:
    return factor_effects(grid_rows(data.frame(*records)))


FACTORS = {"fp16": 0.6, "compile": 0.8, "channels_last": 0.97, "fp16 x compile": 1.1}


@functools.cache
def noiseless() -> pd.DataFrame:
    """The grid as a table, which takes longer to make than to analyse."""
    return data.frame(*measured(0.0))


def noisy(noise: float, seed: int) -> pd.DataFrame:
    """The same table with the noise of a seed."""
    rng = np.random.default_rng(seed)
    still = noiseless()
    samples = [[[r[0] * math.exp(noise * rng.normal())] * 4 for r in repeats] for repeats in still.samples_ms]
    return still.assign(samples_ms=samples)


def measured(noise: float, drift: float = 0.0) -> list[LatencyRecord]:
    """A grid whose latencies are the product of FACTORS, a machine's drift and noise, in rounds of two calls."""
    rng = np.random.default_rng(0)
    rows: list[LatencyRecord] = []
    for number, variant in enumerate(grid_variants()):
        on = {
            "fp16": variant.precision == "fp16",
            "compile": variant.compile != "none",
            "channels_last": variant.channels_last,
        }
        factor = math.prod(value for term, value in FACTORS.items() if all(on[name] for name in term.split(" x ")))
        speed = 1 + drift * number
        samples = [[3.0 * factor * speed * math.exp(noise * rng.normal())] * 4 for _ in range(3)]
        row = data.latency(variant, p50=3.0 * factor)
        rows.append(dataclasses.replace(row, samples_ms=samples, reference_ms=[[3.0 * speed] * 4] * 3, round_calls=2))
    return rows


def test_effect_of_each_factor_is_found_where_nothing_is_noise() -> None:
    effects = {e.term: e.change for e in effects_of(measured(0.0))}
    assert effects["fp16"] == pytest.approx(0.6 * math.sqrt(1.1) - 1)
    assert effects["channels_last"] == pytest.approx(0.97 - 1)
    assert effects["fp16 x compile"] == pytest.approx(1.1 - 1)
    assert effects["compile x channels_last"] == pytest.approx(0, abs=1e-9)


def test_drift_of_the_machine_changes_nothing() -> None:
    still, drifting = (effects_of(measured(0.01, drift=d)) for d in (0.0, 0.3))
    assert [e.change for e in still] == pytest.approx([e.change for e in drifting])


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    truth = 0.97 - 1
    held = [
        effect.low <= truth <= effect.high
        for seed in range(100)
        for effect in factor_effects(grid_rows(noisy(0.05, seed)))
        if effect.term == "channels_last"
    ]
    assert 0.9 < np.mean(held) < 0.99


def test_model_without_a_whole_grid_has_no_effects() -> None:
    assert effects_of(measured(0.01)[:-1]) == []


def test_grid_whose_raw_samples_a_published_table_lacks_has_no_effects() -> None:
    bare = [dataclasses.replace(row, samples_ms=None, reference_ms=None) for row in measured(0.01)]
    assert effects_of(bare) == []


def test_repeats_of_one_process_leave_the_prior_in_the_interval() -> None:
    one = [dataclasses.replace(row, protocol='{"fresh_processes": false}') for row in measured(0.01)]
    apart, together = ({e.term: e for e in effects_of(rows)}["fp16"] for rows in (measured(0.01), one))
    assert together.change == pytest.approx(apart.change)
    width = math.log((1 + together.high) / (1 + together.low))
    assert width == pytest.approx(2 * 1.96 * PRIOR * 2 / math.sqrt(8), rel=0.001)
    assert math.log((1 + apart.high) / (1 + apart.low)) < width / 5
