"""The report reads as plain English: no number of a requirement, no sentence that needs a second breath."""

from __future__ import annotations

import re
from pathlib import Path

import analysis_data as data
import pytest
from analysis_data import markdown

ROOT = Path(__file__).resolve().parents[2]
MOST_WORDS = 32


@pytest.fixture(scope="module", params=["synthetic", "quick"])
def text(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report of a synthetic run, and one of a published run."""
    if request.param == "quick":
        return markdown(ROOT / "docs" / "results" / "quick")
    disturbed = data.latency(data.Variant(runtime="onnxruntime"), p50=1.5, contended=True, spread=0.3)
    records = [*data.full_latency(), disturbed, data.latency(data.Variant(zeroed=0.5), right=700, compressed_mb=3.0)]
    return markdown(data.write_run(tmp_path_factory.mktemp("prose") / "run", records))


def sentences(text: str) -> list[str]:
    """The sentences outside tables, headings and code; of a list in a sentence, each item."""
    without_code = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines = [line for line in without_code.splitlines() if not line.startswith(("|", "#", "!["))]
    paragraphs = re.split(r"\n\s*\n|^\s*- ", "\n".join(lines), flags=re.MULTILINE)
    return [part for paragraph in paragraphs for part in re.split(r"(?<=[.!?])\s+|;\s+", " ".join(paragraph.split()))]


def test_a_reader_meets_no_number_of_a_requirement(text: str) -> None:
    assert re.findall(r"\bR\d{1,2}\b", text) == []


def test_no_sentence_is_long(text: str) -> None:
    assert [s for s in sentences(text) if len(s.split()) > MOST_WORDS] == []


def test_sentences_are_told_apart_from_tables_headings_and_code() -> None:
    report = "# Title\n\nOne. Two:\nthree; four.\n\n| a |\n\n- five\n- six\n\n```\ncode\n```\n"
    assert [s for s in sentences(report) if s] == ["One.", "Two: three", "four.", "five", "six"]
