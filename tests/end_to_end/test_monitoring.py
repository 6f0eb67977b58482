"""What can be watched while a run works: Prometheus scrapes a real one, and every panel's query gives something."""

import shutil

import pytest
from watched import PANELS, QUERIES, Watched

pytestmark = pytest.mark.timeout(900)
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="there is no prometheus here: apt-get install prometheus"
)


@needs_prometheus
@pytest.mark.parametrize("query", QUERIES)
def test_panel_of_the_dashboard_shows_something_while_a_run_works(watched: Watched, query: str) -> None:
    assert watched.series[query] > 0


def test_dashboard_listens_on_loopback_and_asks_for_the_token(watched: Watched) -> None:
    ((address, status),) = watched.without_token.items()
    assert address.startswith("http://127.0.0.1:")
    assert status in (401, 403)


def test_tensorboard_finds_every_trial(watched: Watched) -> None:
    with_events = {file.parent for file in (watched.study.run / "ray").rglob("events.out.tfevents.*")}
    assert len(with_events) == 1 + 2 + 2 + 4  # teacher, plain, distilled, finalists


def test_panels_have_a_title_a_unit_and_a_query() -> None:
    for panel in PANELS:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"][0]["expr"]
