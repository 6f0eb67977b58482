"""The report of synthetic runs, the command line, and what the analysis must not import."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import analysis_data as data
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.frames import load_run
from analysis.markdown import table
from analysis.report import Candidate, write_report
from cifar_tune.config import Variant, grid_variants
from cifar_tune.records import ImportanceRecord, LatencyRecord
from cifar_tune.store import note_checksums, write_records

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = data.write_run(tmp_path_factory.mktemp("runs") / "full", data.full_latency())
    write_report(folder)
    return folder


def test_the_report_names_the_chosen_row(run: Path) -> None:
    report = write_report(run)
    assert report.candidate == Candidate(trial_id="t1", variant="torch-fp16-compile")
    assert report.path == run / "report.md"
    assert report.text in report.path.read_text(encoding="utf-8")


def test_the_report_has_its_sections_answer_first(run: Path) -> None:
    lines = (run / "report.md").read_text(encoding="utf-8").splitlines()
    assert [line.removeprefix("## ") for line in lines if line.startswith("## ")] == [
        *("Answer", "Warnings", "Comparison", "Optimizations, each alone", "Factor effects"),
        "What worked and what did not",
        *("Distillation", "Confirmation", "Pareto front", "All variants", "Trials", "Machine and versions"),
        "Load the data",
    ]


def test_what_the_parameters_mattered_is_a_section_where_there_was_a_search(tmp_path: Path) -> None:
    folder = data.write_run(tmp_path / "searched", data.full_latency())
    share = ImportanceRecord(run="r", arm="plain", model=data.STUDENT, parameter="lr", importance=0.82, trials=12)
    write_records(folder / "importance.parquet", ImportanceRecord, [share])
    text = write_report(folder).path.read_text(encoding="utf-8")
    assert f"| {data.STUDENT} | plain | lr | 82 | 12 |" in text


def test_notes_of_trials_are_warnings(tmp_path: Path) -> None:
    trials = [data.trial(trial_id=f"t{n}", note="teacher logits cannot be kept") for n in range(2)]
    folder = data.write_run(tmp_path / "noted", data.full_latency(), trials)
    assert "- 2 trials: teacher logits cannot be kept." in write_report(folder).path.read_text(encoding="utf-8")


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
    text = report.path.read_text(encoding="utf-8")
    assert "none reaches 85.00 %" in text
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
    report = write_report(data.write_run(tmp_path / "r", [data.latency()], distill="auto"))
    text = report.path.read_text(encoding="utf-8")
    assert "plain validates in its search at 90.00 %; distillation did not run" in text


def test_disturbed_unstable_and_unlike_rows_are_warned_of(tmp_path: Path) -> None:
    elsewhere = dataclasses.replace(data.ENVIRONMENT, host="other")
    rows = [data.latency(spread=0.3), data.latency(Variant(precision="fp16"), contended=True, environment=elsewhere)]
    text = write_report(data.write_run(tmp_path / "r", rows)).path.read_text(encoding="utf-8")
    for warning in ("Other processes used the machine", "Unstable", "unlike environments (env_host: box, other)"):
        assert warning in text


def test_an_unknown_run_is_refused_with_the_runs_there_are(run: Path) -> None:
    with pytest.raises(ValueError, match=r"'nope'.*full"):
        load_run("nope", run.parent)


def test_a_run_is_found_by_name(run: Path) -> None:
    assert load_run("full", run.parent).path == run


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
    assert capsys.readouterr().out.splitlines()[-1] == str(run / "report.md")


def test_the_front_command_marks_the_candidate(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["front", str(run)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.endswith("*")]
    assert "torch-fp16-compile" in line


@pytest.mark.parametrize("content", [None, b"not Parquet"])
def test_errors_are_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    folder = data.write_run(tmp_path / "r", [data.latency()])
    if content:
        (folder / "latency.parquet").write_bytes(content)
    assert main(["report", str(folder if content else tmp_path / "nope")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_analysis_needs_neither_torch_nor_ray_nor_optuna() -> None:
    script = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'ray', 'optuna'): sys.modules[name] = None\n"
        "import analysis.report, analysis.__main__\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
