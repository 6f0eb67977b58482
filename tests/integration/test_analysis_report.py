"""The report of synthetic runs, the command line, and what the analysis must not import."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import analysis_data as data
import pandas as pd
import pytest
from analysis_data import markdown

from analysis.__main__ import main
from analysis.frames import load_run
from analysis.markdown import table
from analysis.report import Candidate, write_report
from cifar_tune.config import Variant, grid_variants
from cifar_tune.records import ImportanceRecord, LatencyRecord
from cifar_tune.store import note_checksums, write_records
from cifar_tune.study import STUDY_FORMAT

ROOT = Path(__file__).resolve().parents[2]
CHOSEN = Candidate(trial_id="t2", variant="torch-fp16-compile")
"""Of the rows of `full_latency`."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = data.write_run(tmp_path_factory.mktemp("runs") / "full", data.full_latency())
    write_report(folder)
    return folder


def test_the_report_names_the_chosen_row(run: Path) -> None:
    report = write_report(run)
    assert report.candidate == CHOSEN
    assert report.path == run / "report.html"
    assert report.text in (run / "report.md").read_text(encoding="utf-8")


def test_the_report_has_its_sections_answer_first(run: Path) -> None:
    lines = (run / "report.md").read_text(encoding="utf-8").splitlines()
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == [
        *("Answer", "Warnings", "Comparison", "Optimizations, one at a time", "Factor effects"),
        "What worked and what did not",
        *("Distillation", "Confirmation", "Pareto front", "All variants", "Trials", "Machine and versions"),
        "Load the data",
    ]


def test_what_the_parameters_mattered_is_a_section_where_there_was_a_search(tmp_path: Path) -> None:
    folder = data.write_run(tmp_path / "searched", data.full_latency())
    share = ImportanceRecord(
        run="r", arm="plain", model=data.STUDENT, parameter="lr", importance=0.82, trials=12, chance=0.025
    )
    noise = dataclasses.replace(share, parameter="schedule", importance=0.18, chance=0.4)
    write_records(folder / "importance.parquet", ImportanceRecord, [share, noise])
    text = markdown(folder)
    assert f"| {data.STUDENT} | plain | lr | 82 | 12 |" in text
    assert "| schedule | 18 |" not in text
    assert f"do not tell these from noise: schedule of {data.STUDENT} (plain) in 12 trials" in text


def zeroed(share: float, right: int) -> LatencyRecord:
    return data.latency(Variant(zeroed=share), p50=2.0, right=right, compressed_mb=5 * (1 - share), artifact_mb=6.0)


def test_r30_magnitude_pruning_is_a_section_from_no_zeros_on(tmp_path: Path) -> None:
    latency = [*data.full_latency(), zeroed(0.9, 500), zeroed(0.5, 890)]
    text = markdown(data.write_run(tmp_path / "zeroed", latency))
    section = text[text.index("## Magnitude pruning") :].split("\n\n")[1].splitlines()[2:]
    assert [line.split(" | ")[3:5] for line in section][-2:] == [["50", "89.00"], ["90", "50.00"]]
    assert section[0].split(" | ")[2:4] == ["-", "0"]


def test_r30_magnitude_pruning_has_a_picture_and_three_figures(tmp_path: Path) -> None:
    folder = data.write_run(tmp_path / "zeroed", [*data.full_latency(), zeroed(0.9, 500), zeroed(0.5, 890)])
    write_report(folder)
    assert "](magnitude.png)" in (folder / "report.md").read_text(encoding="utf-8")
    assert (folder / "magnitude.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert all(f"Magnitude pruning: {what} over zeros" in page for what in ("accuracy", "size", "latency"))


def test_a_run_without_zeros_has_no_picture_of_them(run: Path) -> None:
    assert not (run / "magnitude.png").exists()


@pytest.mark.parametrize(("alpha", "said"), [(0.7, "with the teacher's answers"), (0.0, "on labels only")])
def test_r33_narrowed_models_stand_beside_those_they_were_cut_from(tmp_path: Path, alpha: float, said: str) -> None:
    onnx = Variant(runtime="onnxruntime")
    whole = {"model": data.TEACHER, "arm": "teacher", "trial_id": "t0", "parameters": 11_000_000, "artifact_mb": 44.0}
    narrow = {"model": "resnet18@0.5", "arm": "distill", "trial_id": "t9", "parameters": 5_500_000, "artifact_mb": 22.0}
    latency = [
        *data.full_latency(),
        data.latency(onnx, p50=4.0, right=930, speedup=2.25, checkpoint_sha256="whole", **whole),
        data.latency(p50=5.0, right=920, speedup=1.0, checkpoint_sha256="narrow", **narrow),
        data.latency(onnx, p50=2.0, right=920, speedup=2.5, checkpoint_sha256="narrow", **narrow),
    ]
    trials = [data.trial(), data.trial(trial_id="t9", stage="final", start_sha256="whole", alpha=alpha)]
    text = markdown(data.write_run(tmp_path / "pruned", latency, trials))
    section = text[text.index("## Structured pruning") :]
    assert (
        "| resnet18@0.5 (distill) | resnet18 (teacher), onnxruntime-fp32 | 0.50 | 22.00 | 44.00 | 92.00 | 93.00 |"
        in section
    )
    assert "| 0.50 |\n" in section  # of the latency
    assert f"then the model is trained further, {said}." in section


def test_sizes_of_what_is_deployed_stand_beside_the_variants(tmp_path: Path) -> None:
    small = data.latency(Variant(runtime="onnxruntime", precision="int8"), p50=1.0, right=890, artifact_mb=1.56)
    text = markdown(data.write_run(tmp_path / "int8", [*data.full_latency(), small]))
    (line,) = [line for line in text[text.index("## All variants") :].splitlines() if "onnxruntime-int8" in line]
    assert "| 1.56 |" in line


def test_r21_balanced_figures_stand_beside_accuracy(tmp_path: Path) -> None:
    figures = {"balanced_accuracy": 0.75, "auroc": 0.8125, "precision_score": 0.5, "recall_score": 0.625}
    latency = [dataclasses.replace(row, **figures) for row in data.full_latency() if row.status == "ok"]
    text = markdown(data.write_run(tmp_path / "quality", latency))
    section = text[text.index("## Beside accuracy") : text.index("## Optimizations")]
    assert section.count("| 75.00 | 81.25 | 50.00 | 62.50 |") == 4  # three references, and the candidate
    assert "A model that always answers `3` has an accuracy of 11.00 %." in section


def found_under(text: str, heading: str) -> str:
    """The lines below an entry of what worked and what did not."""
    below = text[text.index(f"- {heading}:\n") :].splitlines()[1:]
    return "\n".join(itertools.takewhile(lambda line: line.startswith("  - "), below))


def test_magnitude_pruning_is_no_optimisation(tmp_path: Path) -> None:
    text = markdown(data.write_run(tmp_path / "zeroed", [*data.full_latency(), zeroed(0.5, 890)]))
    kept = text[text.index("## Optimizations") : text.index("## Factor effects")]
    assert "zeroed" not in kept


def test_what_lost_accuracy_did_not_work_for_that_reason(tmp_path: Path) -> None:
    rows = [
        data.latency(Variant(runtime="onnxruntime", precision=precision), p50=p50, right=right)
        for precision, p50, right in (("fp32", 2.0, 890), ("int8", 1.0, 500))
    ]
    text = markdown(data.write_run(tmp_path / "int8", [*data.full_latency(), *rows]))
    assert "int8 on mobilenet_v3_small (plain): accuracy falls by 1 point or more" in found_under(text, "Did not work")


def test_what_has_one_cause_is_told_together(tmp_path: Path) -> None:
    disturbed = [dataclasses.replace(row, contended=True) for row in data.full_latency() if row.status == "ok"]
    text = markdown(data.write_run(tmp_path / "disturbed", disturbed))
    assert found_under(text, "Open").count("other processes used the machine") == 1


def test_r12_what_fell_back_is_open_for_its_whole_reason(tmp_path: Path) -> None:
    fallen = data.latency(Variant(compile="default"), status="fallback", error="no compiler; TorchScript was measured")
    whole = [row for row in data.full_latency() if (row.variant, row.arm) != (fallen.variant, fallen.arm)]
    text = markdown(data.write_run(tmp_path / "fallen", [*whole, fallen]))
    assert "fallback: no compiler" in found_under(text, "Open")


def test_notes_of_trials_are_warnings(tmp_path: Path) -> None:
    trials = [data.trial(trial_id=f"t{n}", note="teacher logits cannot be kept") for n in range(2)]
    folder = data.write_run(tmp_path / "noted", data.full_latency(), trials)
    assert "- 2 trials: teacher logits cannot be kept." in markdown(folder)


def test_the_front_file_loads_with_pandas(run: Path) -> None:
    front = pd.read_parquet(run / "front.parquet")
    assert front["candidate"].sum() == 1
    assert front["front_probability"].between(0, 1).all()


def test_the_comparison_file_has_the_required_rows(run: Path) -> None:
    assert {"B1", "B2", "O1", "O2", "O3", "D1", "C"} <= set(pd.read_csv(run / "comparison.csv")["id"])


def test_the_picture_is_a_png(run: Path) -> None:
    assert (run / "front.png").read_bytes().startswith(b"\x89PNG")


def test_pipes_in_errors_do_not_break_a_table(run: Path) -> None:
    assert "failed: a \\| b" in (run / "report.md").read_text(encoding="utf-8")


def test_a_cell_keeps_its_table_whole() -> None:
    assert table(["a", "b"], [["x|y\nz", None]]) == "| a | b |\n| --- | --- |\n| x\\|y z | - |"


def test_a_run_without_teacher_trial_distillation_and_confirmation_is_reported(tmp_path: Path) -> None:
    records = data.grid(data.STUDENT, "plain", "t1", 3.0, 700)
    report = write_report(data.write_run(tmp_path / "r", records, distill="never"))
    assert report.candidate is None
    text = report.path.with_suffix(".md").read_text(encoding="utf-8")
    assert "no variant reaches an accuracy of 85.00 %" in text
    assert "Rule `never`" in text
    assert "## Confirmation" not in text


def test_a_run_whose_rows_all_failed_is_reported_without_picture(tmp_path: Path) -> None:
    folder = data.write_run(tmp_path / "r", [data.failed(v) for v in grid_variants()])
    (folder / "front.png").write_bytes(b"stale")
    report = write_report(folder)
    assert "no variant of the grid was measured" in report.text
    assert not (folder / "front.png").exists()
    assert pd.read_parquet(folder / "front.parquet").empty


def test_rule_auto_says_what_it_decided_on(tmp_path: Path) -> None:
    text = markdown(data.write_run(tmp_path / "r", [data.latency()], distill="auto"))
    assert "the best plain trial validates at 90.00 %; distillation did not run" in text


def with_a_teacher_at(accuracy: float, **config: Any) -> dict[str, Any]:
    """A run's trials: a teacher, a plain student at 90 % and a distilled one, on validation data."""
    teacher = data.trial(trial_id="t0", stage="teacher", arm="teacher", model=data.TEACHER, val_accuracy=accuracy)
    return {
        "trials": [teacher, data.trial(), data.trial(trial_id="t2", stage="distill", arm="distill")],
        "teacher": data.TEACHER, **config,
    }  # fmt: skip


def test_rule_ahead_says_what_it_decided_on(tmp_path: Path) -> None:
    given = with_a_teacher_at(0.95, distill="ahead")
    text = markdown(data.write_run(tmp_path / "r", [data.latency()], **given))
    assert "the best teacher trial validates at 95.00 %, the best plain trial validates at 90.00 %" in text


@pytest.mark.parametrize(("accuracy", "is_weaker"), [(0.89, True), (0.91, False)])
def test_a_teacher_that_is_weaker_than_a_student_is_in_the_answer(
    tmp_path: Path, accuracy: float, is_weaker: bool
) -> None:
    text = markdown(data.write_run(tmp_path / "r", [data.latency()], **with_a_teacher_at(accuracy)))
    answer = text[: text.index("## ", text.index("## Answer") + 3)]
    assert ("is weaker than a student on labels only: 89.00 % against 90.00 %" in answer) is is_weaker


def test_disturbed_unstable_and_unlike_rows_are_warned_of(tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(data.ENVIRONMENT, host="other")
    rows = [data.latency(spread=0.3), data.latency(Variant(precision="fp16"), contended=True, environment=elsewhere)]
    text = markdown(data.write_run(tmp_path / "r", rows))
    for warning in ("Other processes used the machine", "Unstable", "unlike environments (env_host: box, other)"):
        assert warning in text


def test_an_unknown_run_is_refused_with_the_runs_there_are(run: Path) -> None:
    with pytest.raises(ValueError, match=r"'nope'.*full"):
        load_run("nope", run.parent)


def test_a_run_is_found_by_name(run: Path) -> None:
    assert load_run("full", run.parent).path == run


def test_a_table_of_another_version_is_refused(tmp_path: Path) -> None:
    run = data.write_run(tmp_path / "run", data.full_latency())
    (run / "checksums.json").unlink()
    pd.read_parquet(run / "latency.parquet").drop(columns="protocol").to_parquet(run / "latency.parquet")
    with pytest.raises(ValueError, match=r"latency.parquet is of another version, without protocol"):
        load_run(run)


def test_a_table_that_lacks_a_nullable_column_is_reported(tmp_path: Path) -> None:
    run = data.write_run(tmp_path / "run", data.full_latency())
    (run / "checksums.json").unlink()
    latency = pd.read_parquet(run / "latency.parquet")
    latency.drop(columns=["auroc", "note", "artifact_mb", "settled"]).to_parquet(run / "latency.parquet")
    assert load_run(run).latency["auroc"].isna().all()
    assert "## Pareto front" in markdown(run)


@pytest.mark.parametrize("name", ["trials.parquet", "latency.parquet", "epochs.parquet"])
def test_a_missing_table_is_named(tmp_path: Path, name: str) -> None:
    folder = data.write_run(tmp_path / "r", [data.latency()])
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        load_run(folder)


def test_an_empty_latency_table_is_refused(tmp_path: Path) -> None:
    folder = data.write_run(tmp_path / "r", [data.latency()])
    write_records(folder / "latency.parquet", LatencyRecord, [])
    note_checksums(folder, ["latency.parquet"])
    with pytest.raises(ValueError, match="has no rows"):
        load_run(folder)


def test_the_report_command_ends_with_the_path(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(run / "report.html")


def test_the_front_command_marks_the_candidate(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["front", str(run)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.endswith("*")]
    assert "torch-fp16-compile" in line


def test_the_front_command_answers_for_another_accuracy(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["front", str(run), "--min-accuracy", "0.999"]) == 0
    assert "no variant reaches an accuracy of 99.90 %" in capsys.readouterr().out


def test_the_front_command_answers_for_another_latency(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["front", str(run), "--latency-budget-ms", "0.001"]) == 0
    assert "above the budget of 0.001 ms" in capsys.readouterr().out


@pytest.mark.parametrize("question", [("--min-accuracy", "90"), ("--latency-budget-ms", "0")])
def test_no_question_is_one_line_and_exit_code_2(
    run: Path, capsys: pytest.CaptureFixture[str], question: tuple[str, str]
) -> None:
    assert main(["front", str(run), *question]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("content", [None, b"not Parquet"])
def test_errors_are_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    folder = data.write_run(tmp_path / "r", [data.latency()])
    if content:
        (folder / "latency.parquet").write_bytes(content)
    assert main(["report", str(folder if content else tmp_path / "nope")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def with_format(run: Path, value: object) -> Path:
    study = json.loads((run / "study.json").read_text())
    study["format"] = value
    (run / "study.json").write_text(json.dumps(study))
    note_checksums(run, ["study.json"])
    return run


def test_a_run_of_a_newer_format_says_to_update(tmp_path: Path) -> None:
    run = with_format(data.write_run(tmp_path / "run", data.full_latency()), STUDY_FORMAT + 1)
    with pytest.raises(ValueError, match=f"format {STUDY_FORMAT + 1}.*update cifar_tune"):
        write_report(run)


@pytest.mark.parametrize("value", [None, "1", 0])
def test_a_run_of_no_known_format_is_refused(tmp_path: Path, value: object) -> None:
    run = with_format(data.write_run(tmp_path / "run", data.full_latency()), value)
    with pytest.raises(ValueError, match=f"reads {STUDY_FORMAT}"):
        write_report(run)


def test_rows_of_two_devices_share_no_front(tmp_path: Path) -> None:
    records = data.full_latency()
    other = dataclasses.replace(records[0].environment, device_name="Another CPU")
    records[0] = dataclasses.replace(records[0], environment=other)
    with pytest.raises(ValueError, match="Another CPU, Test CPU"):
        write_report(data.write_run(tmp_path / "run", records))


def test_a_run_that_was_cut_off_while_it_measured_is_reported(tmp_path: Path) -> None:
    run = data.write_run(tmp_path / "run", data.full_latency()[:3])
    assert write_report(run).candidate is not None


def test_a_run_without_finished_trials_is_reported(tmp_path: Path) -> None:
    run = data.write_run(tmp_path / "run", data.full_latency(), [data.trial(status="failed", val_accuracy=None)])
    assert "failed" in markdown(run)


VERIFIED = {"ok": True, "images": 359, "accuracy": 0.9, "agreement": 1.0, "problem": None}


def card(trial_id: str = CHOSEN.trial_id, **verification: object) -> str:
    """The card of a candidate with the variant that is chosen."""
    (chosen,) = [v for v in grid_variants() if v.name == CHOSEN.variant]
    content = {"trial_id": trial_id, "variant": dataclasses.asdict(chosen)}
    return json.dumps({**content, "verification": {**VERIFIED, **verification}})


def with_card(tmp_path: Path, text: str) -> str:
    """The text of a report whose candidate's folder has this card."""
    run = data.write_run(tmp_path / "run", data.full_latency())
    (run / "candidate").mkdir()
    (run / "candidate" / "candidate.json").write_text(text)
    return markdown(run)


def test_a_verified_candidate_is_offered(tmp_path: Path) -> None:
    text = with_card(tmp_path, card())
    assert "## Take it" in text
    assert "Verified: " in text


def test_the_folder_of_another_candidate_is_not_offered(tmp_path: Path) -> None:
    assert "## Take it" not in with_card(tmp_path, card("another"))


def test_a_candidate_that_does_not_do_what_it_promises_is_the_first_warning(tmp_path: Path) -> None:
    text = with_card(tmp_path, card(ok=False, problem="9 % of the answers differ"))
    first = text[text.index("## Warnings") :].splitlines()[2]
    assert "does not do what its row promises" in first
    assert "9 % of the answers differ" in first


WITHOUT_ANSWERS = {"trial_id": "t", "variant": {}, "verification": {"ok": True}}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"verification": 1}', json.dumps(WITHOUT_ANSWERS)])
def test_a_card_that_is_cut_off_is_no_card(tmp_path: Path, text: str) -> None:
    assert "## Take it" not in with_card(tmp_path, text)


def test_more_objectives_can_count_on_the_front(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["front", str(run), "--beside", "build"]) == 0
    assert "build" in capsys.readouterr().out


def test_an_unknown_objective_is_one_line_and_exit_code_2(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["front", str(run), "--beside", "weight"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
