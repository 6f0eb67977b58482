"""Each rule at its boundary: R10, R11, R13, the choice, the comparison and the confirmation."""

from __future__ import annotations

import dataclasses

import analysis_data as data
import pandas as pd
import pytest
import scipy.stats

from analysis.choose import Choice, choose, rejections
from analysis.decide import Decision, decide_steps, grid_rows
from analysis.rivals import Rejection, Rivals, competing, rivals_of
from analysis.sections.comparison import comparison_table
from analysis.sections.confirmation import confirm_table
from analysis.sections.distillation import DistillationGain, SeedGain, distillation_gains
from analysis.sections.front import front_table, volume, wide_front
from cifar_tune.config import Variant
from cifar_tune.records import LatencyRecord, TrialRecord
from cifar_tune.store import schema, to_row

FP16 = Variant(precision="fp16")
COMPILED = Variant(compile="default")
CHANNELS_LAST = Variant(channels_last=True)
NO_TRIALS = pd.DataFrame(columns=schema(TrialRecord).names)
NO_CHOICE = Choice(index=None, text="")


def decide(row: LatencyRecord, base: LatencyRecord | None = None) -> Decision:
    (decision,) = decisions(base or data.latency(), row)
    return decision


def decisions(*records: LatencyRecord) -> list[Decision]:
    return decide_steps(grid_rows(data.frame(*records)), data.IMAGES)


def chosen(*records: LatencyRecord, min_accuracy: float = 0.85) -> Choice:
    return choose(rivals(*records), min_accuracy)


def rivals(*records: LatencyRecord) -> Rivals:
    return rivals_of(data.frame(*records), data.IMAGES)


def front(*records: LatencyRecord) -> pd.DataFrame:
    return front_table(rivals(*records), 0.85, Choice(index=0, text=""))


def test_only_measured_grid_rows_compete() -> None:
    confirm = data.latency(stage="confirm", block=1)
    fallback = data.latency(COMPILED, status="fallback")
    frame = data.frame(data.failed(FP16), confirm, data.latency(), fallback)
    assert competing(frame, data.IMAGES).index.tolist() == [2]


@pytest.mark.parametrize(("right", "verdict"), [(896, "keep"), (895, "drop")])
def test_r10_fp16_must_lose_less_than_half_a_point(right: int, verdict: str) -> None:
    assert decide(data.latency(FP16, p50=1.0, right=right)).verdict == verdict


INT8 = Variant(runtime="onnxruntime", precision="int8")
ONNX = Variant(runtime="onnxruntime")


@pytest.mark.parametrize(("right", "verdict"), [(891, "keep"), (890, "drop")])
def test_r23_int8_must_lose_less_than_a_point(right: int, verdict: str) -> None:
    rows = data.latency(), data.latency(ONNX, p50=1.0), data.latency(INT8, p50=0.5, right=right)
    assert decisions(*rows)[-1].verdict == verdict


@pytest.mark.parametrize(("speedup", "verdict"), [(2.1, "refine"), (2.6, "keep")])
def test_r31_a_gain_over_the_runtimes_own_fp32_that_is_noise_decides_nothing(speedup: float, verdict: str) -> None:
    """Intervals of a tenth each way: 5 % are within both, 30 % are not."""
    dynamic = Variant(runtime="onnxruntime", precision="int8_dynamic")
    fp32 = data.latency(ONNX, p50=1.0, speedup_low=1.8, speedup_high=2.2)
    quantised = data.latency(dynamic, p50=2 / speedup, speedup_low=0.9 * speedup, speedup_high=1.1 * speedup)
    assert decisions(data.latency(), fp32, quantised)[-1].verdict == verdict


def test_int8_that_loses_a_point_is_no_candidate() -> None:
    rows = data.latency(), data.latency(ONNX, p50=1.0), data.latency(INT8, p50=0.5, right=890)
    reason = "int8 costs 1.00 points of accuracy, and less than 1 point is allowed"
    assert Rejection(reason=reason, certain=True) in rejections(rivals(*rows), 0.8).values()


def test_r31_the_reason_says_what_the_row_notes() -> None:
    dynamic = Variant(runtime="onnxruntime", precision="int8_dynamic")
    noted = data.latency(dynamic, p50=0.9, note="99 % is in convolutions")
    decision = decisions(data.latency(), data.latency(ONNX, p50=1.0), noted)[-1]
    assert decision.reason.endswith("99 % is in convolutions")
    assert "convolutions" not in decision.cause


def test_r10_the_paired_drop_and_its_interval_are_reported() -> None:
    decision = decide(data.latency(FP16, p50=1.0, right=897))
    assert decision.interval is not None
    assert decision.accuracy_drop_points == pytest.approx(0.3)
    assert decision.interval[0] < 0.3
    assert decision.interval[1] > 0.5
    assert "interval includes the limit of 0.5" in decision.reason


def test_r10_fp16_that_is_slower_is_dropped_with_the_figure() -> None:
    decision = decide(data.latency(FP16, p50=7.0))
    assert decision.verdict == "drop"
    assert "250.0 % higher" in decision.reason


@pytest.mark.parametrize(("p50", "verdict"), [(1.9, "drop"), (1.899, "keep")])
def test_r13_channels_last_must_gain_more_than_five_percent(p50: float, verdict: str) -> None:
    assert decide(data.latency(CHANNELS_LAST, p50=p50)).verdict == verdict


def test_r11_compile_is_kept_where_faster_with_its_compile_time() -> None:
    decision = decide(data.latency(COMPILED, p50=1.6))
    assert (decision.verdict, decision.optimization, decision.expected) == ("keep", "compile", (0.10, 0.30))
    assert decision.gain == pytest.approx(0.2)
    assert "21.0 s (warm)" in decision.reason


def test_r12_a_fallback_is_to_be_refined() -> None:
    decision = decide(data.latency(COMPILED, status="fallback", error="no compiler"))
    assert (decision.verdict, decision.reason) == ("refine", "fallback: no compiler")


def test_a_disturbed_measurement_decides_nothing() -> None:
    assert decide(data.latency(FP16, p50=1.0, contended=True)).verdict == "refine"


def test_a_step_without_fp32_eager_decides_nothing() -> None:
    decision = decide(data.latency(FP16, p50=1.0), data.failed(Variant()))
    assert (decision.verdict, decision.gain) == ("refine", None)


def test_gain_is_free_of_drift_between_rows() -> None:
    drifted = data.latency(FP16, p50=3.0, reference_ms=[[6.0]], speedup=2.0)
    assert decide(drifted).gain == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        (data.latency(COMPILED, p50=1.6), "latency is 20.0 % lower"),
        (data.latency(FP16, p50=7.0), "latency is 250.0 % higher"),
        (data.latency(FP16, p50=1.0, right=890), "accuracy falls by 0.5 points or more"),
        (data.latency(CHANNELS_LAST, p50=1.96), "latency is 2.0 % lower, not more than the 5 % that the rule asks for"),
        (data.failed(FP16, "no: such; thing"), "failed: no: such; thing"),
    ],
)
def test_a_decision_says_in_a_phrase_what_decided(row: LatencyRecord, cause: str) -> None:
    assert decide(row).cause == cause


def test_combined_variants_are_no_single_step() -> None:
    both = data.latency(Variant(precision="fp16", channels_last=True))
    assert decisions(data.latency(), both) == []


def test_the_fastest_feasible_row_is_chosen() -> None:
    choice = chosen(data.latency(), data.latency(COMPILED, p50=1.5), data.latency(FP16, p50=1.0, right=800))
    assert choice.index == 1
    assert "These variants are faster, but rejected." in choice.text
    assert "80.00 % is below the constraint" in choice.text


def test_the_constraint_itself_is_enough_but_not_certain() -> None:
    choice = chosen(data.latency(right=850))
    assert choice.index == 0
    assert "That is not certain" in choice.text


@pytest.mark.parametrize(("p50", "index"), [(2.01, 1), (2.03, 0)])
def test_without_a_race_ties_within_the_error_of_the_rounds_go_to_the_more_accurate(p50: float, index: int) -> None:
    """Half of the rounds lie within a percent, so the median of twelve has an error of a quarter of one."""
    records = [data.latency(p50=2.0, right=880), data.latency(COMPILED, p50=p50, right=900)]
    assert chosen(*records).index == index


def test_candidates_that_cannot_be_told_apart_are_named() -> None:
    twin = data.latency(p50=2.01, arm="distill", trial_id="t2")
    assert "The measurements cannot tell it from mobilenet_v3_small (distill)" in chosen(data.latency(), twin).text


def test_without_raw_samples_nothing_is_said_of_ties() -> None:
    bare = {"samples_ms": None, "reference_ms": None}
    twin = data.latency(p50=2.01, arm="distill", trial_id="t2", **bare)
    text = chosen(data.latency(**bare), twin).text
    assert "cannot tell it from" not in text
    assert "holds no raw samples" in text


def test_without_raw_samples_drift_is_removed_by_the_speedup() -> None:
    # on a machine that was twice as slow: its own reference took 4 ms, not 2
    slow_minute = data.latency(COMPILED, p50=2.4, speedup=4.0 / 2.4, samples_ms=None, reference_ms=None)
    calm = [data.latency(p50=2.0, trial_id=f"t{n}", samples_ms=None, reference_ms=None) for n in range(3)]
    assert chosen(*calm, slow_minute).index == 3


def test_the_lower_bound_of_the_accuracy_must_hold_the_constraint() -> None:
    sure, doubtful = data.latency(p50=3.0, right=900), data.latency(COMPILED, p50=1.0, right=855)
    choice = chosen(sure, doubtful)
    assert choice.index == 0
    assert "but the lower 95 % bound is 83.18 %" in choice.text  # of one set of answers it would be 83.57


def test_bound_is_corrected_for_unlike_answers_only() -> None:
    same, unlike = data.latency(COMPILED, p50=1.0, right=900), data.latency(COMPILED, p50=1.0, right=899)
    assert rivals(data.latency(), same).level == pytest.approx(0.95)
    assert rivals(data.latency(), unlike).level == pytest.approx(0.975)


def test_a_row_measured_in_a_slow_minute_is_not_taken_for_a_slow_one() -> None:
    # on a machine that was twice as slow: its own reference took 4 ms, not 2
    slow_minute = data.latency(COMPILED, p50=2.4, speedup=4.0 / 2.4, reference_ms=[[4.0] * 4] * 3)
    calm = [data.latency(p50=2.0, trial_id=f"t{n}") for n in range(3)]
    assert chosen(*calm, slow_minute).index == 3


def test_fp16_that_loses_half_a_point_is_no_candidate() -> None:
    rows = [data.latency(), data.latency(FP16, p50=1.0, right=895)]
    assert chosen(*rows).index == 0
    assert "less than 0.5 points are allowed" in rejections(rivals(*rows), 0.85)[1].reason


def test_what_is_only_in_doubt_is_no_certain_rejection() -> None:
    rows = [data.latency(right=855), data.latency(COMPILED, right=800)]
    found = rejections(rivals(*rows), 0.85)
    assert {index: rejection.certain for index, rejection in found.items()} == {0: False, 1: True}


def test_fp16_is_held_against_fp32_eager_where_its_own_partner_failed() -> None:
    fast = data.latency(Variant(precision="fp16", compile="default"), p50=1.0, right=890)
    assert chosen(data.latency(), data.failed(COMPILED), fast).index == 0


@pytest.mark.parametrize(("p50", "index"), [(0.95, 0), (0.94, 1)])
def test_channels_last_is_held_against_the_same_variant_without_it(p50: float, index: int) -> None:
    both = data.latency(Variant(precision="fp16", channels_last=True), p50=p50)
    assert chosen(data.latency(FP16, p50=1.0), both, data.latency(p50=3.0)).index == index


def test_reduced_precision_that_no_fp32_row_stands_beside_is_not_chosen() -> None:
    assert "was not compared with that of FP32" in chosen(data.latency(FP16, p50=1.0)).text


def test_row_above_the_latency_budget_is_not_chosen() -> None:
    choice = choose(rivals(data.latency(p50=2.0)), 0.85, budget_ms=1.5)
    assert choice.index is None
    assert "p50 2.000 ms is above the budget of 1.5 ms" in choice.text


def test_the_justification_compares_with_the_teacher_and_its_own_fp32() -> None:
    teacher = data.latency(p50=8.0, model=data.TEACHER, arm="teacher", trial_id="t0", speedup=1.0)
    text = chosen(teacher, data.latency(), data.latency(FP16, p50=1.0)).text
    assert "8.00 times as fast as the FP32 teacher resnet18: 1.000 ms against 8.000 ms" in text
    assert "2.00 times as fast as FP32 eager of the same weights" in text
    assert "Its test accuracy is 90.00 ± 0.95 % (standard error, 1,000 images)." in text


def test_none_feasible_says_so_and_names_the_nearest() -> None:
    choice = chosen(data.latency(right=700), data.latency(FP16, p50=1.0, right=690))
    assert choice.index is None
    assert choice.text.startswith("There is no candidate: no variant reaches an accuracy of 85.00 %.")
    assert "The most accurate variant is mobilenet_v3_small (plain)" in choice.text
    assert "15.00 points short" in choice.text


def test_nothing_measured_says_so() -> None:
    assert "no variant of the grid was measured" in chosen(data.failed(Variant())).text


def test_the_comparison_has_the_rows_of_r14_for_each_student() -> None:
    students = (data.STUDENT, "shufflenet_v2_x1_0")
    table = comparison_table(rivals(data.latency()), data.TEACHER, students, 0.85, NO_CHOICE)
    assert table["id"].tolist() == ["B1", "B1.2", "B2", "O1", "O1.2", "O2", "O2.2", "O3", "O3.2", "D1", "D1.2"]
    assert table["status"].tolist() == ["ok"] + ["not measured"] * 10


def test_the_comparison_ends_with_candidate_and_other_failures() -> None:
    found = rivals(data.latency(), data.failed(FP16), data.failed(COMPILED))
    table = comparison_table(found, data.TEACHER, (data.STUDENT,), 0.85, Choice(index=0, text="")).set_index("id")
    assert table.loc["C", "parameters_mb"] == pytest.approx(6.0)
    assert table.loc["O1", "status"] == "failed"
    assert table.loc["F1", "variant"] == "torch-fp32-compile"


def test_the_front_marks_points_and_leaves_raw_samples_out() -> None:
    found = front(data.latency(), data.latency(FP16, p50=1.0, right=840), data.latency(COMPILED, p50=3.0, right=800))
    assert found["on_front"].to_dict() == {0: True, 1: True, 2: False}
    assert found["feasible"].to_dict() == {0: True, 1: False, 2: False}
    assert found["candidate"].to_dict() == {0: True, 1: False, 2: False}
    assert not {"correct", "samples_ms", "reference_ms"} & set(found.columns)


def test_the_front_of_a_table_without_raw_samples_has_no_probabilities() -> None:
    found = front(data.latency(samples_ms=None, reference_ms=None), data.latency(FP16, p50=1.0, right=840))
    assert found["on_front"].tolist() == [True, True]
    assert found[["front_probability", "paired_low_ms", "paired_high_ms"]].isna().all(axis=None)


def test_a_slower_variant_that_is_right_on_one_image_more_is_not_on_the_front() -> None:
    found = front(data.latency(p50=2.0), data.latency(CHANNELS_LAST, p50=3.0, right=901))
    assert found["on_front"].tolist() == [True, False]
    assert found["front_probability"].tolist() == [1.0, 0.0]


def test_the_front_has_an_interval_around_each_latency() -> None:
    (row,) = front(data.latency()).to_dict("records")
    assert row["paired_low_ms"] <= row["paired_ms"] <= row["paired_high_ms"]


def test_hypervolume_is_a_share_of_what_lies_below_the_baseline_and_above_the_constraint() -> None:
    teacher = data.latency(p50=4.0, right=900, model=data.TEACHER, arm="teacher", trial_id="t0", speedup=1.0)
    found = volume(rivals(teacher, data.latency(p50=1.0, right=900)), 0.8)
    assert found is not None
    assert found.baseline == "resnet18 (teacher), torch-fp32"
    # three quarters of the time, half of what accuracy is missing
    assert found.low < 0.375 < found.high
    assert found.share == pytest.approx(0.375, abs=0.02)


def test_without_fp32_eager_there_is_no_hypervolume() -> None:
    assert volume(rivals(data.latency(FP16)), 0.8) is None


def test_without_raw_samples_there_is_no_hypervolume() -> None:
    assert volume(rivals(data.latency(samples_ms=None, reference_ms=None)), 0.8) is None


def test_distillation_is_held_against_its_control_in_pairs() -> None:
    frame = data.frame(data.latency(right=850), data.latency(right=880, arm="distill", trial_id="t2"))
    (gain,) = distillation_gains(frame, NO_TRIALS, (data.STUDENT,), data.IMAGES)
    assert gain.seeds is None
    assert gain.difference.points == pytest.approx(3.0)
    assert gain.difference.low > 0


def test_no_distilled_arm_has_no_gain() -> None:
    assert distillation_gains(data.frame(data.latency()), NO_TRIALS, (data.STUDENT,), data.IMAGES) == []


def seeds(arm: str, *accuracies: float) -> list[TrialRecord]:
    return [
        data.trial(trial_id=f"final-{arm}-a1-seed{n}", stage="final", arm=arm, seed=n, test_accuracy=accuracy)
        for n, accuracy in enumerate(accuracies, start=1)
    ]


def seed_gain(plain: tuple[float, ...], distill: tuple[float, ...]) -> SeedGain | None:
    trials = pd.DataFrame([to_row(t) for t in seeds("plain", *plain) + seeds("distill", *distill)])
    trials.loc[len(trials)] = {**trials.iloc[0], "trial_id": "final-plain-b2-seed1", "test_accuracy": 0.1}
    rows = [data.latency(arm=arm, trial_id=f"final-{arm}-a1-seed1") for arm in ("plain", "distill")]
    (gain,) = distillation_gains(data.frame(*rows), trials, (data.STUDENT,), data.IMAGES)
    return gain.seeds


def controlled(*, same_recipe: bool) -> DistillationGain:
    """A distilled recipe with rate 0.05; its control is the plain winner or another recipe."""
    plain = [dataclasses.replace(trial, lr=0.05 if same_recipe else 0.01) for trial in seeds("plain", 0.80, 0.82)]
    others = [dataclasses.replace(trial, lr=0.05) for trial in seeds("plain", 0.71, 0.72)]
    control = [dataclasses.replace(trial, trial_id=f"final-plain-b2-seed{trial.seed}") for trial in others]
    distilled = [dataclasses.replace(trial, lr=0.05) for trial in seeds("distill", 0.85, 0.86)]
    trials = pd.DataFrame([to_row(t) for t in plain + distilled + ([] if same_recipe else control)])
    rows = [data.latency(arm=arm, trial_id=f"final-{arm}-a1-seed1") for arm in ("plain", "distill")]
    (gain,) = distillation_gains(data.frame(*rows), trials, (data.STUDENT,), data.IMAGES)
    return gain


def test_gain_over_the_same_recipe_on_labels_is_told_beside_that_over_the_plain_winner() -> None:
    gain = controlled(same_recipe=False)
    assert gain.seeds is not None
    assert gain.control is not None
    assert (gain.seeds.points, gain.control.points) == pytest.approx((4.5, 14.0))


def test_gain_over_the_same_recipe_is_not_told_twice() -> None:
    assert controlled(same_recipe=True).control is None


def test_gain_over_seeds_is_that_of_the_measured_recipes_with_welchs_interval() -> None:
    gain = seed_gain((0.80, 0.82, 0.84), (0.85, 0.86, 0.87))
    assert gain is not None
    expected = scipy.stats.ttest_ind((0.85, 0.86, 0.87), (0.80, 0.82, 0.84), equal_var=False).confidence_interval()
    assert (gain.points, gain.low, gain.high) == pytest.approx((4.0, 100 * expected.low, 100 * expected.high))


def test_seeds_that_all_reach_the_same_give_no_interval() -> None:
    assert seed_gain((0.8, 0.8), (0.9, 0.9)) is None


def test_one_arm_whose_seeds_all_reach_the_same_has_the_interval_of_the_other() -> None:
    gain = seed_gain((0.8, 0.8), (0.88, 0.92))
    assert gain is not None
    half = 100 * 0.02 * scipy.stats.t.ppf(0.975, 1)
    assert (gain.points, gain.low, gain.high) == pytest.approx((10.0, 10.0 - half, 10.0 + half))


def test_one_seed_gives_no_interval() -> None:
    assert seed_gain((0.8,), (0.9, 0.9)) is None


@pytest.mark.parametrize(("grid_p50", "agrees"), [(2.25, True), (2.26, False), (1.85, True), (1.84, False)])
def test_r16_the_grid_agrees_within_ten_percent_of_the_median_of_the_fresh_runs(grid_p50: float, agrees: bool) -> None:
    fresh = [data.latency(p50=p50, stage="confirm", block=n) for n, p50 in enumerate((2.0, 2.1, 2.05), start=1)]
    (row,) = confirm_table(data.frame(data.latency(p50=grid_p50), *fresh)).to_dict("records")
    assert row["agrees"] is agrees
    assert row["spread"] == pytest.approx(0.05)


def test_what_is_slower_but_smaller_is_on_the_front_where_size_counts() -> None:
    small = data.latency(CHANNELS_LAST, p50=3.0, artifact_mb=1.0)
    found = front(data.latency(artifact_mb=6.0), small, data.latency(COMPILED, p50=4.0, artifact_mb=6.0)).sort_index()
    assert found["on_front"].tolist() == [True, False, False]
    assert found["on_wide_front"].tolist() == [True, True, False]


def test_an_objective_that_some_rows_lack_does_not_count_by_itself() -> None:
    found = front(data.latency(artifact_mb=6.0), data.latency(CHANNELS_LAST, p50=3.0)).sort_index()
    assert found["on_wide_front"].tolist() == [True, False]
    with pytest.raises(ValueError, match="not known of every row"):
        wide_front(found, ["size"])


def test_an_unknown_objective_names_the_known() -> None:
    with pytest.raises(ValueError, match="size, build, energy"):
        wide_front(front(data.latency()), ["weight"])
