"""What can be watched while a run works: Prometheus scrapes a real one, and every panel's query gives something."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
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


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """A run that has ended, and query -> most series that it gave while the run worked."""
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
    try:
        end = time.monotonic() + SECONDS
        while run.poll() is None and time.monotonic() < end:
            time.sleep(2)
            if server is not None:
                series = {query: max(most, answers(query)) for query, most in series.items()}
        assert run.wait(timeout=10) == 0, said.read_text()[-2000:]
    finally:
        run.kill()
        run.wait()
        if server is not None:
            server.terminate()
            server.wait()
    return folder / "run", series


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
def test_panel_of_the_dashboard_shows_something_while_a_run_works(
    watched: tuple[Path, dict[str, int]], query: str
) -> None:
    assert watched[1][query] > 0


def test_tensorboard_finds_every_trial(watched: tuple[Path, dict[str, int]]) -> None:
    with_events = {file.parent for file in (watched[0] / "ray").rglob("events.out.tfevents.*")}
    assert len(with_events) == 1 + 2 + 2 + 2  # teacher, plain, distilled, finalists


def test_panels_have_a_title_a_unit_and_a_query() -> None:
    for panel in PANELS:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"][0]["expr"]
