"""The race: who enters it, when it is over, what it chooses, whether that is confirmed, and what is stated of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import analysis_data as data
import numpy as np
import pandas as pd
import pytest
from analysis_data import around, turns

from analysis.choose import Choice, choose
from analysis.cost import cost, offers
from analysis.field import Field, contenders, needs_second_choice, race_is_over
from analysis.frames import load_run
from analysis.race import frame_of, race_of
from analysis.report import analyse, markdown_report, sections_of
from analysis.rivals import rivals_of
from analysis.screen import tied_with_lowest
from analysis.sections import answer
from analysis.sections.front import front_table
from cifar_tune.blocks import summarised
from cifar_tune.config import Variant
from cifar_tune.records import LatencyRecord

LIMIT = 0.85
ONNX = Variant(runtime="onnxruntime")
OPENVINO = Variant(runtime="openvino")
COMPILED = Variant(compile="default")
TEACHER = data.latency(p50=9.0, right=950, model=data.TEACHER, arm="teacher", trial_id="t0", speedup=1.0)
EAGER = data.latency(p50=3.0, right=900)
FRESH = '{"fresh_processes": true}'


def student(variant: Variant, p50: float, right: int = 900, **changes: Any) -> LatencyRecord:
    return data.latency(variant, p50=p50, right=right, speedup=3.0 / p50, **changes)


A, B, C = student(ONNX, 1.0), student(OPENVINO, 1.05), student(COMPILED, 2.0)
GRID = [TEACHER, EAGER, A, B, C]
"""The screen: A is the fastest by 5 %."""


def race(*ratios: Sequence[float], rows: Sequence[LatencyRecord] = (A, B, C), **changes: Any) -> list[LatencyRecord]:
    return turns([TEACHER, *rows], [[1.0] * len(ratios[0]), *ratios], **changes)


def confirm(row: LatencyRecord, ratio: float, first: int = 1) -> list[LatencyRecord]:
    return race(around(ratio), rows=(row,), first=first, stage="confirm")


def chosen(records: Sequence[LatencyRecord], limit: float = LIMIT) -> Choice:
    return choose(rivals_of(frame_of(records), data.IMAGES), limit)


def variant_chosen(records: Sequence[LatencyRecord], limit: float = LIMIT) -> str | None:
    index = chosen(records, limit).index
    return None if index is None else records[index].variant


def field(records: Sequence[LatencyRecord], most: int = 8) -> Field:
    return contenders(frame_of(records), data.IMAGES, LIMIT, None, most)


def names(records: Sequence[LatencyRecord], found: Sequence[int]) -> list[str]:
    return [f"{records[index].trial_id} {records[index].variant}" for index in found]


# --- who races ----------------------------------------------------------------------------------------------------


def test_baseline_comes_first_then_what_is_near_the_lowest_then_the_front() -> None:
    assert names(GRID, field(GRID).rows) == ["t0 torch-fp32", "t1 onnxruntime-fp32", "t1 openvino-fp32"]


def test_row_that_one_process_measured_races_within_the_prior() -> None:
    """15 % between processes: 35 % is near, twice is not."""
    grid = [TEACHER, EAGER, A, student(OPENVINO, 1.35), C]
    assert "t1 openvino-fp32" in names(grid, field(grid).rows)
    assert "t1 torch-fp32-compile" not in names(grid, field(grid).rows)


def test_rows_of_fresh_processes_are_told_apart_by_what_processes_differ() -> None:
    def several(row: LatencyRecord) -> LatencyRecord:
        processes = [[(row.p50_ms or 0.0) * factor] * 4 for factor in (0.99, 1.0, 1.01)]
        return dataclasses.replace(row, protocol=FRESH, samples_ms=processes)

    grid = [several(row) for row in (TEACHER, EAGER, A, student(OPENVINO, 1.08), student(COMPILED, 1.01))]
    assert names(grid, field(grid).rows) == ["t0 torch-fp32", "t1 onnxruntime-fp32", "t1 torch-fp32-compile"]


def test_lowest_row_is_put_out_in_one_of_twenty_screens_at_most() -> None:
    rng, error = np.random.default_rng(0), np.full(6, 0.05)
    kept = [tied_with_lowest(np.exp(rng.normal(0, 0.05, 6)).tolist(), error)[0] for _ in range(1000)]
    assert np.mean(kept) >= 0.95


def test_row_on_the_front_races_though_it_misses_the_constraint() -> None:
    wrong = Variant(zeroed=0.5)
    grid = [*GRID, student(wrong, 0.2, right=700)]
    assert names(grid, field(grid).rows)[-1] == f"t1 {wrong.name}"


def test_what_is_cut_is_named_slowest_first() -> None:
    found = field(GRID, most=2)
    assert names(GRID, found.rows) == ["t0 torch-fp32", "t1 onnxruntime-fp32"]
    assert names(GRID, found.cut) == ["t1 openvino-fp32"]
    assert "There was no place for mobilenet_v3_small (plain), openvino-fp32 (1.050 ms)." in found.text


def test_disturbed_row_keeps_no_other_out_of_the_race() -> None:
    lucky = student(COMPILED, 0.01, contended=True)
    grid = [TEACHER, EAGER, A, B, lucky]
    assert names(grid, field(grid).rows)[:3] == ["t0 torch-fp32", "t1 onnxruntime-fp32", "t1 openvino-fp32"]


def test_nobody_races_where_nothing_can_be_chosen() -> None:
    hopeless = [dataclasses.replace(row, test_accuracy=0.5, correct=data.bits(500)) for row in GRID]
    assert field(hopeless).rows == []


# --- when it is over ----------------------------------------------------------------------------------------------


def over(*ratios: Sequence[float]) -> bool:
    return race_is_over(frame_of([*GRID, *race(*ratios)]), data.IMAGES, LIMIT)


@pytest.mark.parametrize(("second", "is_over"), [(0.2, True), (0.101, False)])
def test_race_is_over_when_one_is_left(second: float, is_over: bool) -> None:
    assert over(around(0.1), around(second, spread=0.03), around(0.5)) is is_over


def test_other_weights_of_the_fastest_do_not_prolong_the_race() -> None:
    twin = student(ONNX, 1.0, arm="distill", trial_id="t2")
    records = [TEACHER, EAGER, A, twin, C, *race(around(0.1), around(0.1, spread=0.03), around(0.5), rows=(A, twin, C))]
    assert race_is_over(frame_of(records), data.IMAGES, LIMIT)


def test_race_ends_at_a_look_only() -> None:
    assert not over(around(0.1, 6), around(0.2, 6), around(0.5, 6))


def test_race_is_over_after_the_last_look() -> None:
    assert over(around(0.1, 20), around(0.1, 20, 0.03), around(0.5, 20))


def test_who_cannot_be_chosen_does_not_prolong_the_race() -> None:
    wrong = student(OPENVINO, 1.0, right=700)
    records = [TEACHER, EAGER, A, wrong, C, *race(around(0.1), around(0.1, spread=0.03), around(0.5))]
    assert race_is_over(frame_of(records), data.IMAGES, LIMIT)


def confirmed(calm: int, disturbed: int) -> list[LatencyRecord]:
    """A confirmation whose disturbed blocks found twice the race's ratio."""
    bad = [dataclasses.replace(row, contended=True) for row in race(around(0.2, disturbed), rows=(A,), stage="confirm")]
    good = race(around(0.1, calm), rows=(A,), first=disturbed + 1, stage="confirm")
    return [*GRID, *race(*map(around, (0.1, 0.2, 0.3))), *bad, *good]


def test_disturbed_blocks_do_not_count_beside_five_undisturbed_ones() -> None:
    found = rivals_of(frame_of(confirmed(5, 3)), data.IMAGES).race.confirmation((A.trial_id, A.variant))
    assert found is not None
    assert (found.agrees, found.disturbed) == (True, (0, 5))


def test_verdict_that_rests_on_disturbed_blocks_says_so() -> None:
    assert "others used the machine in 3 of these 7 blocks" in chosen(confirmed(4, 3)).text


# --- the choice ---------------------------------------------------------------------------------------------------


def test_race_chooses_where_it_differs_from_the_screen() -> None:
    assert variant_chosen([*GRID, *race(around(0.12), around(0.10), around(0.3))]) == OPENVINO.name


def test_of_those_that_the_race_ties_the_more_accurate_is_chosen() -> None:
    better = student(OPENVINO, 1.05, right=940)
    grid = [TEACHER, EAGER, A, better, C]
    records = [*grid, *race(around(0.10), around(0.1005, spread=0.03), around(0.3), rows=(A, better, C))]
    choice = chosen(records)
    assert records[choice.index or 0].variant == OPENVINO.name
    assert "The race cannot tell it from mobilenet_v3_small (plain), onnxruntime-fp32" in choice.text


def test_row_that_did_not_race_is_not_chosen_though_its_screen_is_faster() -> None:
    grid = [*GRID, student(Variant(runtime="torchscript"), 0.5)]
    assert variant_chosen([*grid, *race(around(0.12), around(0.10), around(0.3))]) == OPENVINO.name


def test_screen_decides_where_no_row_that_raced_can_be_chosen() -> None:
    weak = [student(ONNX, 1.0, right=700), student(OPENVINO, 1.05, right=700)]
    records = [TEACHER, EAGER, *weak, C, *race(around(0.1), around(0.1), rows=weak)[2:]]
    choice = chosen([r for r in records if not (r.stage == "race" and r.arm == "teacher")])
    assert records[choice.index or 0].variant == COMPILED.name
    assert "these figures rest on the screen" in choice.text


def test_disturbed_contender_does_not_win_while_an_undisturbed_one_is_feasible() -> None:
    blocks = race(around(0.10), around(0.12), around(0.3))
    disturbed = [dataclasses.replace(row, contended=row.variant == ONNX.name) for row in blocks]
    choice = chosen([*GRID, *disturbed])
    assert GRID[choice.index or 0].variant == OPENVINO.name
    assert "other processes used the machine while it was measured" in choice.text


def test_disturbed_row_of_the_screen_does_not_win_while_an_undisturbed_one_is_feasible() -> None:
    assert variant_chosen([TEACHER, EAGER, student(ONNX, 0.1, contended=True), B]) == OPENVINO.name


def test_where_all_were_disturbed_the_fastest_wins() -> None:
    records = [dataclasses.replace(row, contended=True) for row in [*GRID, *race(*map(around, (0.1, 0.2, 0.3)))]]
    assert variant_chosen(records) == ONNX.name


def test_contender_that_died_cannot_be_chosen() -> None:
    blocks = race(around(0.10), around(0.12), around(0.3))
    died = [
        dataclasses.replace(row, status="failed", error="killed", p50_ms=None, samples_ms=None, reference_ms=None)
        if (row.variant, row.block) == (ONNX.name, 3)
        else row
        for row in blocks
    ]
    choice = chosen([*GRID, *died])
    assert GRID[choice.index or 0].variant == OPENVINO.name
    assert "it did not finish the race (block 3 failed: killed)" in choice.text


def test_race_that_was_stopped_in_its_first_block_chooses_nothing() -> None:
    begun = race([0.2], [0.1], [0.3])[:2]
    assert variant_chosen([*GRID, *begun, dataclasses.replace(race([0.3], [0.1], [0.3])[2], block=2)]) == ONNX.name


def test_blocks_that_not_all_have_finished_do_not_count() -> None:
    begun = race([9.0], [9.0], [9.0], first=6)[:2]
    found = race_of(frame_of([*GRID, *race(*map(around, (0.1, 0.2, 0.3))), *begun]))
    assert found.level((A.trial_id, A.variant)) == pytest.approx(0.1)


# --- the confirmation ---------------------------------------------------------------------------------------------

RACED = [*GRID, *race(around(0.10, spread=0.08), around(0.13), around(0.3))]


@pytest.mark.parametrize(("again", "agrees"), [(0.108, True), (0.112, False), (0.092, True), (0.088, False)])
def test_ratio_is_confirmed_within_ten_percent(again: float, agrees: bool) -> None:
    found = race_of(frame_of([*RACED, *confirm(A, again)])).confirmation((A.trial_id, A.variant))
    assert found is not None
    assert found.agrees is agrees


def test_ratio_that_the_race_did_not_foretell_is_not_confirmed() -> None:
    steady = [*GRID, *race(around(0.10, spread=0.001), around(0.13), around(0.3))]
    found = race_of(frame_of([*steady, *confirm(A, 0.1095)])).confirmation((A.trial_id, A.variant))
    assert found is not None
    assert not found.agrees


def test_first_sentence_says_that_it_is_not_confirmed_with_the_new_figure() -> None:
    text = chosen([*RACED, *confirm(A, 0.12)]).text
    assert text.startswith("The candidate mobilenet_v3_small (plain), onnxruntime-fp32 is not confirmed: the race gave")
    assert "new processes give 0.120 times." in text
    assert "That is 0.120 times" in text


def test_confirmation_of_which_a_block_failed_confirms_nothing() -> None:
    *fresh, last = confirm(A, 0.10)
    dead = dataclasses.replace(last, status="failed", error="killed", p50_ms=None, samples_ms=None, reference_ms=None)
    assert "its new processes did not finish (block 5 failed: killed)" in chosen([*RACED, *fresh, dead]).text


def second(records: Sequence[LatencyRecord]) -> bool:
    return needs_second_choice(frame_of(records), data.IMAGES, LIMIT)


@pytest.mark.parametrize(("again", "needed"), [(0.10, False), (0.12, False), (0.15, True)])
def test_choice_is_made_again_where_another_contender_is_faster(again: float, needed: bool) -> None:
    assert second([*RACED, *confirm(A, again)]) is needed


def test_choice_is_made_again_once() -> None:
    records = [*RACED, *confirm(A, 0.15), *confirm(B, 0.20, first=6)]
    choice = chosen(records)
    assert not second(records)
    assert records[choice.index or 0].variant == OPENVINO.name
    assert "The choice was made again. First it fell on mobilenet_v3_small (plain), onnxruntime-fp32" in choice.text


# --- one figure ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def refuted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose candidate is not confirmed."""
    records = [*RACED, *confirm(A, 0.12)]
    return data.write_run(tmp_path_factory.mktemp("raced") / "run", summarised(records))


@pytest.fixture(scope="module")
def report(refuted: Path) -> str:
    found = analyse(load_run(refuted))
    return markdown_report(found, sections_of(found))


def test_headline_states_the_new_figure_and_the_verdict(refuted: Path) -> None:
    found = analyse(load_run(refuted))
    said = answer.headline(found.rivals, found.run, found.choice, None)
    assert said.candidate == "mobilenet_v3_small (plain), onnxruntime-fp32: not confirmed"
    assert [fact.value for fact in said.facts][::2] == ["1.12 ms", "8.3 x"]


def test_cost_states_the_new_figure_and_the_verdict(refuted: Path) -> None:
    text = cost(offers([load_run(refuted)], [1.0]))
    assert "candidate, not confirmed" in text
    assert "| confirm | 8.33 |" in text
    assert ", not confirmed, against" in text


def front(records: Sequence[LatencyRecord]) -> pd.DataFrame:
    rivals = rivals_of(frame_of(records), data.IMAGES)
    return front_table(rivals, LIMIT, choose(rivals, LIMIT)).sort_index()


def test_front_says_whose_figures_a_row_has() -> None:
    found = front([*RACED, *confirm(A, 0.105)])
    assert found["figure"].tolist() == ["confirm", "screen", "confirm", "race", "race"]
    assert found["ratio"].to_numpy(float)[[2, 3]] == pytest.approx([0.105, 0.13])
    assert np.isnan(found["ratio"].to_numpy(float)[1])


def test_front_is_of_the_race_alone() -> None:
    screened = student(Variant(runtime="torchscript"), 0.01)
    found = front([*GRID, screened, *race(*map(around, (0.12, 0.1, 0.3)))])
    assert found.index[found["on_front"]].tolist() == [0, 3]
    assert found.loc[5, "figure"] == "screen"
    assert np.isnan(found.loc[5, "front_probability"])


def test_front_of_the_race_has_probabilities() -> None:
    found = front([*GRID, *race(around(0.10, spread=0.2), around(0.101, spread=0.1), around(0.3))])
    assert 0.05 < found.loc[3, "front_probability"] < 0.95
    assert found.loc[4, "front_probability"] == 0.0


def test_report_tells_race_and_confirmation(report: str) -> None:
    assert "## Race" in report
    assert "| not confirmed |" in report
    assert "That is the machine's own range during the run." in report


def test_comparison_marks_what_was_only_screened(report: str) -> None:
    lines = [line for line in report.splitlines() if line.startswith(("| B1 |", "| B2 |", "| C |"))]
    assert [next(kind for kind in ("screen", "race", "confirm") if f"| {kind} |" in line) for line in lines] == [
        "screen", "confirm", "confirm",
    ]  # fmt: skip


def test_contender_of_two_speeds_is_named_with_both(tmp_path: Path) -> None:
    slow_and_fast = [0.1, 0.1, 0.2, 0.1, 0.2, 0.2]
    records = [*GRID, *race(slow_and_fast, around(0.13, 6), around(0.3, 6))]
    text = data.markdown(data.write_run(tmp_path / "run", summarised(records)))
    assert "onnxruntime-fp32 runs at two speeds" in text


def test_run_of_the_older_protocol_says_so(tmp_path: Path) -> None:
    assert "This run is of the older protocol" in data.markdown(data.write_run(tmp_path / "run", data.full_latency()))
