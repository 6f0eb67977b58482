"""The report's page as a browser shows it: nothing is loaded, nothing fails, and it can be used.

Needs Chromium (`apt-get install chromium`, or any that `CHROMIUM` names).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import analysis_data as data
import pytest

from analysis.report import write_report
from cifar_tune.records import EpochRecord
from cifar_tune.store import note_checksums, write_records

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium: apt-get install chromium")

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything in it, and a name that is an attack."""
    trials = [
        data.trial(trial_id=f"{arm}-{n}{HOSTILE}", arm=arm, stage=arm, lr=0.01 * (n + 1), started_at=float(n),
                   val_accuracy=0.8 + 0.01 * n, temperature=4.0 if arm == "distill" else None,
                   alpha=0.1 * n if arm == "distill" else 0.0)
        for arm in ("plain", "distill") for n in range(4)
    ]  # fmt: skip
    epochs = [
        EpochRecord(trial_id=t.trial_id, epoch=e, lr=0.1, train_loss=1.0, train_accuracy=0.5, val_loss=1.0,
                    val_accuracy=0.1 * e, seconds=1.0, images_per_second=9.0)
        for t in trials for e in range(1, 4)
    ]  # fmt: skip
    folder = data.write_run(tmp_path_factory.mktemp("page") / "run", data.full_latency(), trials)
    study = (folder / "study.json").read_text()
    (folder / "study.json").write_text(study.replace('"label": "digits"', f'"label": "{HOSTILE}"'))
    write_records(folder / "epochs.parquet", EpochRecord, epochs)
    note_checksums(folder, ["study.json", "epochs.parquet"])
    return write_report(folder).path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@contextlib.contextmanager
def opened_page(browser: Any, report: Path) -> Iterator[Any]:
    """The page, and what it did while it was shown."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.said, opened.asked = [], []
    opened.on("console", lambda message: opened.said.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: opened.said.append(str(error)))
    opened.on("dialog", lambda dialog: (opened.said.append("a dialog"), dialog.dismiss()))
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.goto(report.as_uri())
    opened.wait_for_selector("#figure-front .main-svg")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def seen(browser: Any, report: Path) -> Iterator[Any]:
    """A page that is looked at and left as it is."""
    with opened_page(browser, report) as page:
        yield page


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """A page to use."""
    with opened_page(browser, report) as fresh:
        yield fresh


def test_nothing_fails_and_nothing_is_asked_of_a_network(seen: Any, report: Path) -> None:
    assert seen.said == []
    assert [url for url in seen.asked if not url.startswith(("data:", "blob:"))] == [report.as_uri()]


def test_the_first_screen_names_the_candidate(seen: Any) -> None:
    name = seen.locator(".answer h2")
    assert name.inner_text() == "mobilenet_v3_small (distill), torch-fp16-compile"
    assert name.bounding_box()["y"] < 900


def test_names_from_the_data_are_text(seen: Any) -> None:
    assert seen.locator("img[src=x]").count() == 0
    assert HOSTILE in seen.locator(".question").first.inner_text()


def test_hovering_a_point_says_what_it_is(page: Any) -> None:
    point = page.locator("#figure-front .scatterlayer .trace .points path").first
    point.hover(force=True)
    page.wait_for_selector("#figure-front .hoverlayer text")
    assert "on the front with probability" in page.locator("#figure-front .hoverlayer").text_content()


def test_an_entry_of_the_legend_hides_its_points(page: Any) -> None:
    toggles = page.locator("#figure-front .legendtoggle")
    before = page.locator("#figure-front .scatterlayer .trace").count()
    toggles.nth(1).click()
    page.wait_for_function(
        "count => document.querySelectorAll('#figure-front .scatterlayer .trace').length < count", arg=before
    )


def test_light_and_dark_can_be_chosen(page: Any) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(colour) != light
    assert page.locator("#theme").get_attribute("aria-pressed") == "true"


def test_the_keyboard_reaches_the_answer_first(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the answer"


def test_a_narrow_screen_needs_no_sideways_scrolling(page: Any) -> None:
    page.set_viewport_size({"width": 380, "height": 800})
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_every_figure_has_words_for_those_who_do_not_see_it(seen: Any) -> None:
    figures = seen.locator("figure")
    assert figures.count() >= 7
    assert all(figures.nth(n).get_attribute("aria-label") for n in range(figures.count()))


def test_headings_go_down_one_step_at_a_time(seen: Any) -> None:
    levels = seen.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
