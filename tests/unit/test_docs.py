"""The pages in docs/ are true: what they name is there, what they compute comes out. And they are easy to read."""

from __future__ import annotations

import doctest
import importlib.util
import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
STUDIES = DOCS / "results" / "README.md"
PAGES = [README, STUDIES, *sorted(DOCS.glob("*.md")), ROOT / "CHANGELOG.md", ROOT / "ray_results" / "README.md"]
SHOWN = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (DOCS / "requirements.md").read_text())

MOST_LINES, MOST_WORDS, MOST_IN_A_CELL, MOST_IN_A_SENTENCE, MOST_IN_A_LOG_LINE = 130, 1300, 120, 28, 119


@pytest.mark.parametrize(("file", "name"), SHOWN)
def test_tests_that_show_a_requirement_exist(file: str, name: str) -> None:
    assert f"def {name}(" in (ROOT / file).read_text() if name else (ROOT / file).is_file()


def test_every_requirement_is_in_the_table() -> None:
    page = text(DOCS / "requirements.md")
    named = {int(n) for n in re.findall(r"^\| R(\d+) ", page, re.MULTILINE)}
    assert named == {*range(1, 19), *range(20, 27), *range(30, 34)}


def test_schema_page_follows_the_records() -> None:
    spec = importlib.util.spec_from_file_location("make_schema", DOCS / "make_schema.py")
    assert spec is not None
    assert spec.loader is not None
    make_schema = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_schema)
    assert text(DOCS / "schema.md") == make_schema.page()


@pytest.mark.parametrize("package", ["pandas", "duckdb", "polars"])
def test_queries_of_the_page_on_loading_give_what_it_says(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(package, reason=f"pip install {package}")
    monkeypatch.chdir(ROOT)
    (section,) = [s for s in text(DOCS / "analysing.md").split("\n## ") if s.lower().startswith(package)]
    run_examples(section, package)


def test_example_of_the_python_api_gives_what_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (section,) = [s for s in text(DOCS / "using.md").split("\n## ") if s.startswith("From Python")]
    run_examples(section, "from_python")


def run_examples(section: str, name: str) -> None:
    """The section's examples print what stands below them."""
    test = doctest.DocTestParser().get_doctest(section, {}, name, name, 0)
    assert len(test.examples) >= 3
    assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test).failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_local_links_lead_somewhere(page: Path) -> None:
    for target, heading in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", text(page)):
        if "://" in target:
            continue
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name}: {target}"
        assert not heading or heading in anchors(file), f"{page.name}: {target}#{heading}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    linked = {(README.parent / target).resolve() for target in re.findall(r"\]\(([^)#]+)", text(README))}
    assert {page.resolve() for page in [*DOCS.glob("*.md"), STUDIES]} <= linked


def test_every_published_study_is_in_the_table_of_studies() -> None:
    published = {path.parent.name for path in DOCS.glob("results/*/study.json")}
    assert set(re.findall(r"^\| \[(\w+)\]", text(STUDIES), re.MULTILINE)) == published


def test_readme_is_short() -> None:
    assert len(text(README).splitlines()) <= MOST_LINES
    assert len(text(README).split()) <= MOST_WORDS


def test_readme_tells_things_in_their_order() -> None:
    headings = re.findall(r"^## (.+)$", without_code(text(README)), re.MULTILINE)
    assert headings == ["Two commands", "What comes out", "The tree", "Your own question", "Where to read on"]
    above = " ".join(text(README).split("\n## ")[0].split())
    places = [above.index(part) for part in ("latency at the accuracy you need", "front.png", "**Status**")]
    assert places == sorted(places)


def test_readme_has_two_commands_then_three_of_the_users_own_and_a_small_tree() -> None:
    commands, tree, own = (code.strip().splitlines() for code in re.findall(r"```\n(.*?)```", text(README), re.DOTALL))
    assert [line.split("#")[0].strip() for line in commands] == ["make run", "make test"]
    assert len(tree) <= 15
    assert len([line for line in own if not line.startswith("#")]) == 3


def test_readme_names_no_requirement_by_its_number() -> None:
    assert not re.findall(r"\bR\d+\b", text(README))


def test_rows_of_the_readme_are_those_of_the_published_study() -> None:
    section = text(README).split("## What comes out")[1].split("## The tree")[0]
    shown = re.findall(r"^\| (\S+) \| ([\d.]+) \| (.+?) \| ([\d.]+) \|$", section, re.MULTILINE)
    quick = DOCS / "results" / "quick"
    latency, front = (pd.read_parquet(quick / f"{name}.parquet") for name in ("latency", "front"))
    of_candidate = latency.trial_id == front[front.candidate].trial_id.item()
    grid = latency[(latency.stage == "grid") & of_candidate].set_index("variant")
    assert len(shown) == 5
    for variant, p50, speedup, accuracy in shown:
        row = grid.loc[variant]
        assert p50 == f"{row.p50_ms:.3f}"
        assert speedup == f"{row.speedup:.2f} ({row.speedup_low:.2f} to {row.speedup_high:.2f})"
        assert accuracy == f"{100 * row.test_accuracy:.2f}"


def test_directories_of_the_readmes_tree_exist() -> None:
    tree = re.findall(r"```\n(cifar_tune/.*?)```", text(README), re.DOTALL)[0]
    for line in tree.splitlines():
        inside = ROOT / "cifar_tune" if line.startswith(" ") else ROOT
        names = re.findall(r"(\w+)/(?=[ ])", line[:24])
        assert names
        assert all((inside / name).is_dir() for name in names), line


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in ("requirements.md", "schema.md")], ids=str)
def test_a_table_cell_is_a_figure_or_a_phrase(page: Path) -> None:
    rows = [line for line in without_code(text(page)).splitlines() if line.startswith("|")]
    long = [cell.strip() for row in rows for cell in row.split("|") if len(cell.strip()) > MOST_IN_A_CELL]
    assert not long


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in ("log.md", "CHANGELOG.md")], ids=str)
def test_a_sentence_can_be_read_once(page: Path) -> None:
    long = [sentence for sentence in sentences(text(page)) if len(sentence.split()) > MOST_IN_A_SENTENCE]
    assert not long


def test_lines_of_the_log_fit_a_screen() -> None:
    lines = text(DOCS / "log.md").splitlines()
    assert not [n for n, line in enumerate(lines, start=1) if len(line) > MOST_IN_A_LOG_LINE]


def test_log_is_by_date_with_a_heading_an_idea() -> None:
    days = text(DOCS / "log.md").split("\n## ")[1:]
    dates = [day[:10] for day in days]
    assert dates == sorted(dates, reverse=True)
    for day in days:
        assert re.match(r"\d{4}-\d\d-\d\d · ", day)
        ideas = re.findall(r"^### (.+)$", day, re.MULTILINE)
        assert ideas, day.splitlines()[0]
        without_a_verdict = [idea for idea in ideas if ": " not in idea]
        assert not without_a_verdict


def text(page: Path) -> str:
    """The page's content."""
    return page.read_text(encoding="utf-8")


def without_code(page: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"```.*?```", "", page, flags=re.DOTALL)


def sentences(page: str) -> list[str]:
    """The sentences of a page's prose: no code, tables, headings or pictures; code within a line is one word."""
    lines = without_code(page).splitlines()
    kept = "\n".join("" if re.match(r"\s*(\||#|!\[)|    ", line) else line for line in lines)
    kept = re.sub(r"`[^`]*`", "CODE", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", kept))
    paragraphs = re.split(r"\n\s*\n|\n\s*(?:[-*>]|\d+\.) |<br>", kept)
    return [s for p in paragraphs for s in re.split(r"(?<=[.!?])[*)\"]*\s+(?=[A-Z*(\"\d])", " ".join(p.split()))]


def anchors(page: Path) -> set[str]:
    """What a link may name after `#`, as GitHub makes it from the headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(text(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
