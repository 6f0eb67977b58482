"""Every run in docs/results opens with today's commands, those without raw samples as far as their tables reach."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis import load_run
from analysis.__main__ import main
from analysis.compare import compare
from analysis.frames import Run
from analysis.report import Findings, analyse, html_report, markdown_report, sections_of

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
PUBLISHED = sorted(path.parent.name for path in RESULTS.glob("*/study.json"))
REQUIREMENT = re.compile(r"\bR\d+\b")

Reader = Callable[[str], Findings]


@pytest.fixture(scope="module")
def findings() -> Reader:
    read: dict[str, Findings] = {}

    def of(name: str) -> Findings:
        if name not in read:
            read[name] = analyse(load_run(RESULTS / name))
        return read[name]

    return of


def images_of(name: str) -> str:
    return str(run_of(name).study["data"]["label"])


def run_of(name: str) -> Run:
    return load_run(RESULTS / name)


SAME_IMAGES = [
    (first, second)
    for first, second in itertools.combinations_with_replacement(PUBLISHED, 2)
    if images_of(first) == images_of(second)
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_report_has_its_sections(name: str, findings: Reader) -> None:
    found = findings(name)
    texts = sections_of(found)
    text = markdown_report(found, texts)
    assert all(f"## {heading}" in text for heading in ("Answer", "Comparison", "Pareto front", "All variants"))
    assert "</html>" in html_report(found, texts)


@pytest.mark.parametrize("name", PUBLISHED)
def test_candidate_is_the_one_that_was_published(name: str, findings: Reader) -> None:
    published = pd.read_parquet(RESULTS / name / "front.parquet")
    identity = ["trial_id", "variant"]
    wanted = published.loc[published["candidate"], identity].to_numpy().tolist()
    front = findings(name).front
    assert front.loc[front["candidate"], identity].to_numpy().tolist() == wanted


@pytest.mark.parametrize("name", PUBLISHED)
def test_reader_meets_no_number_of_a_requirement_in_a_reason(name: str, findings: Reader) -> None:
    found = findings(name)
    said = [found.choice.text, *(text for d in found.decisions for text in (d.reason, d.cause))]
    assert [text for text in said if REQUIREMENT.search(text)] == []


@pytest.mark.parametrize("name", PUBLISHED)
def test_front_is_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["front", str(RESULTS / name)]) == 0
    assert "The candidate is " in capsys.readouterr().out


@pytest.mark.parametrize(("first", "second"), SAME_IMAGES)
def test_runs_of_the_same_images_are_compared(first: str, second: str) -> None:
    found = compare(run_of(first), run_of(second))
    assert "## Verdict" in found.text
    assert first != second or found.regressions == []


def test_a_run_without_raw_samples_says_so_and_has_its_picture(tmp_path: Path, findings: Reader) -> None:
    run = shutil.copytree(RESULTS / "cifar10", tmp_path / "cifar10")
    (run / "front.png").unlink()
    assert main(["report", str(run)]) == 0
    assert "holds no raw samples" in (run / "report.md").read_text(encoding="utf-8")
    assert (run / "front.png").read_bytes().startswith(b"\x89PNG")
    assert findings("cifar10").rivals.draws is None
