"""What can be watched while a run works: Prometheus scrapes a real one, and every panel's query gives something."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sweeps import distill_search

ROOT = Path(__file__).resolve().parent.parent
PORT = 19090
SECONDS = 420.0
"""A run of the smallest size; most of it is Ray's start."""
PANELS: list[dict[str, Any]] = json.loads((ROOT / "deploy" / "grafana.json").read_text())["panels"]
QUERIES = [target["expr"].replace("$run", ".*") for panel in PANELS for target in panel["targets"]]

pytestmark = pytest.mark.timeout(600)
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="there is no prometheus here: apt-get install prometheus"
)


@dataclass(frozen=True)
class Watched:
    """What was seen while a run worked."""

    run: Path
    series: dict[str, int]
    """Query -> the most series that it gave."""
    without_token: dict[str, int]
    """Address of the dashboard -> the status that it gave without a token."""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A run that has ended, and what it showed while it worked."""
    folder = tmp_path_factory.mktemp("watched")
    server = None
    if shutil.which("prometheus"):
        server = subprocess.Popen(
            ["prometheus", f"--config.file={ROOT / 'deploy' / 'prometheus.yml'}", f"--storage.tsdb.path={folder}/tsdb",
             f"--web.listen-address=127.0.0.1:{PORT}"], stderr=subprocess.DEVNULL,
        )  # fmt: skip
    command = [sys.executable, distill_search.__file__, "--preset", "chaos", "--storage", folder, "--name", "run",
               "--num-samples", "2", "--dashboard"]  # fmt: skip
    said = folder / "said"
    with said.open("w") as log:
        run = subprocess.Popen(command, cwd=folder, stderr=log, env=os.environ.copy())
    series = dict.fromkeys(QUERIES, 0)
    asked: dict[str, int] = {}
    try:
        end = time.monotonic() + SECONDS
        while run.poll() is None and time.monotonic() < end:
            time.sleep(2)
            found = re.search(r"Ray dashboard: (http://\S+)", said.read_text())
            if found and not asked:
                asked[found[1]] = status_without_token(found[1])
            if server is not None:
                series = {query: max(most, answers(query)) for query, most in series.items()}
        assert run.wait(timeout=10) == 0, said.read_text()[-2000:]
    finally:
        run.kill()
        run.wait()
        if server is not None:
            server.terminate()
            server.wait()
    return Watched(folder / "run", series, asked)


def status_without_token(dashboard: str) -> int:
    """What someone without the token is answered."""
    try:
        with urllib.request.urlopen(f"{dashboard}/api/jobs/", timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def answers(query: str) -> int:
    """How many series a query gives now; none while the server starts."""
    url = f"http://127.0.0.1:{PORT}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return len(json.load(answer)["data"]["result"])
    except OSError:
        return 0


@needs_prometheus
@pytest.mark.parametrize("query", QUERIES)
def test_panel_of_the_dashboard_shows_something_while_a_run_works(watched: Watched, query: str) -> None:
    assert watched.series[query] > 0


def test_dashboard_listens_on_loopback_and_asks_for_the_token(watched: Watched) -> None:
    ((address, status),) = watched.without_token.items()
    assert address.startswith("http://127.0.0.1:")
    assert status in (401, 403)


def test_tensorboard_finds_every_trial(watched: Watched) -> None:
    with_events = {file.parent for file in (watched.run / "ray").rglob("events.out.tfevents.*")}
    assert len(with_events) == 1 + 2 + 2 + 2  # teacher, plain, distilled, finalists


def test_panels_have_a_title_a_unit_and_a_query() -> None:
    for panel in PANELS:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"][0]["expr"]
