"""The pages in docs/ are true: what they name is there, what they compute comes out."""

from __future__ import annotations

import doctest
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOWN = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs" / "requirements.md").read_text())


@pytest.mark.parametrize(("file", "name"), SHOWN)
def test_tests_that_show_a_requirement_exist(file: str, name: str) -> None:
    assert f"def {name}(" in (ROOT / file).read_text() if name else (ROOT / file).is_file()


def test_every_requirement_is_in_the_table() -> None:
    page = (ROOT / "docs" / "requirements.md").read_text()
    named = {int(n) for n in re.findall(r"^\| R(\d+) ", page, re.MULTILINE)}
    assert named == {*range(1, 19), *range(20, 27), *range(30, 34)}


def test_schema_page_follows_the_records() -> None:
    spec = importlib.util.spec_from_file_location("make_schema", ROOT / "docs" / "make_schema.py")
    assert spec is not None
    assert spec.loader is not None
    make_schema = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_schema)
    assert (ROOT / "docs" / "schema.md").read_text(encoding="utf-8") == make_schema.page()


@pytest.mark.parametrize("package", ["pandas", "duckdb", "polars"])
def test_queries_of_the_page_on_loading_give_what_it_says(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(package, reason=f"pip install {package}")
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs" / "analysing.md").read_text(encoding="utf-8")
    (section,) = [s for s in page.split("\n## ") if s.lower().startswith(package)]
    test = doctest.DocTestParser().get_doctest(section, {}, package, "docs/analysing.md", 0)
    assert len(test.examples) >= 3
    assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test).failed == 0


def test_local_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
