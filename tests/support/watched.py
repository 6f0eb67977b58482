"""A small study with everything in it that nobody disturbs, and what can be seen from outside while it works.

It is of a user's own image folder, on a machine without a C++ compiler: the variants that need one become rows, and
cost no time. The builds themselves are shown by `.ci/run`.
"""

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

import numpy as np
from PIL import Image
from small_study import LIMIT, ROOT, Study

PORT = 19090
PANELS: list[dict[str, Any]] = json.loads((ROOT / "deploy" / "grafana.json").read_text())["panels"]
QUERIES = [target["expr"].replace("$run", ".*") for panel in PANELS for target in panel["targets"]]


OPTIONS = (
    "--train-images", "90", "--test-images", "30", "--image-size", "8",
    "--batch-size", "2",  # small steps, so that trials last
    "--search-images", "60", "--teacher-epochs", "1", "--num-samples", "2", "--final-seeds", "2",
    "--min-accuracy", "0.01", "--runtimes", "onnxruntime", "--compiled-variants",
    "--latency-time-limit", "60",  # a machine busy with other work has the time to take all samples
)  # fmt: skip


def write_shapes(root: Path) -> Path:
    """A user's own image folder: three classes, grey PNGs of several sizes."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("test", 10)):
        for brightness, name in enumerate(("dark", "grey", "light")):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (12 + i % 5, 14), dtype=np.uint8) + np.uint8(80 * brightness)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return root


def whole_study(scratch: Path, name: str, images: Path, *options: str) -> Study:
    """One with every stage and kind of row, not yet begun.

    Args:
        images: where `write_shapes` has written.
    """
    return Study(
        scratch,
        name,
        options=["--data", str(images), *OPTIONS, *options],
        environment={"CXX": "no-such-compiler"},
    )


@dataclass(frozen=True)
class Watched:
    """A study that has ended, and what was seen while it worked."""

    study: Study
    images: Path
    """Its data."""
    seconds: float
    """That it took."""
    series: dict[str, int]
    """Prometheus query -> the most series that it gave; 0 where there is no Prometheus."""
    without_token: dict[str, int]
    """Address of the dashboard -> the status that it gave without a token."""


def watch(folder: Path) -> Watched:
    """Run the study to its end, in an empty folder, and ask while it works."""
    images = write_shapes(folder / "shapes")
    study = whole_study(folder, "undisturbed", images, "--dashboard")
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
    return Watched(study, images, time.monotonic() - started, series, asked)


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
