"""A small study that nobody disturbs, and what can be seen of it from outside while it works."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from small_study import LIMIT, ROOT, Study

PORT = 19090
PANELS: list[dict[str, Any]] = json.loads((ROOT / "deploy" / "grafana.json").read_text())["panels"]
QUERIES = [target["expr"].replace("$run", ".*") for panel in PANELS for target in panel["targets"]]


@dataclass(frozen=True)
class Watched:
    """A study of the preset `chaos` that has ended, and what was seen while it worked."""

    study: Study
    seconds: float
    """That it took."""
    series: dict[str, int]
    """Prometheus query -> the most series that it gave; 0 where there is no Prometheus."""
    without_token: dict[str, int]
    """Address of the dashboard -> the status that it gave without a token."""


def watch(folder: Path) -> Watched:
    """Run the study to its end, in an empty folder, and ask while it works."""
    study = Study(folder, "undisturbed", options=["--dashboard"])
    series = dict.fromkeys(QUERIES, 0)
    asked: dict[str, int] = {}
    started = time.monotonic()
    with prometheus(folder):
        process = study.start()
        try:
            while process.poll() is None and time.monotonic() < started + LIMIT:
                time.sleep(2)
                found = re.search(r"Ray dashboard: (http://\S+)", study.said())
                if found and not asked:
                    asked[found[1]] = status_without_token(found[1])
                series = {query: max(most, answers(query)) for query, most in series.items()}
            assert process.wait(timeout=10) == 0, study.said()[-2000:]
        finally:
            if process.is_running():
                process.kill()
            process.wait()
    return Watched(study, time.monotonic() - started, series, asked)


@contextmanager
def prometheus(folder: Path) -> Iterator[None]:
    """A server that scrapes what runs on this machine, where it is installed."""
    if shutil.which("prometheus") is None:
        yield
        return
    server = subprocess.Popen(
        ["prometheus", f"--config.file={ROOT / 'deploy' / 'prometheus.yml'}", f"--storage.tsdb.path={folder}/tsdb",
         f"--web.listen-address=127.0.0.1:{PORT}"], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        server.terminate()
        server.wait()


def status_without_token(dashboard: str) -> int:
    """What someone without the token is answered."""
    try:
        with urllib.request.urlopen(f"{dashboard}/api/jobs/", timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def answers(query: str) -> int:
    """How many series a query gives now; none while the server starts, or where there is none."""
    url = f"http://127.0.0.1:{PORT}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return len(json.load(answer)["data"]["result"])
    except OSError:
        return 0
