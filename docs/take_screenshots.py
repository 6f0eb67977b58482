"""Take the pictures of docs/monitoring.md, from the real pages while a real run works.

    python docs/take_screenshots.py          # needs chromium, prometheus, and pip install tensorboard optuna-dashboard

A run of some minutes on handwritten digits; nothing else may use the ports 8265, 8081, 6006 and 9090.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PICTURES = Path(__file__).with_name("pictures")
PROGRAMS = Path(sys.executable).parent
STUDY = ("--preset", "chaos", "--num-samples", "6", "--epochs", "8", "--dashboard", "--name", "run")
PATIENCE = 600.0
"""Seconds for a stage to be reached."""


@contextlib.contextmanager
def program(command: Sequence[str | Path], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Something that runs meanwhile."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def wait_for(words: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the run has said so."""
    end = time.monotonic() + PATIENCE
    while words not in log.read_text():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the run never said {words!r}: {log.read_text()[-500:]}")
        time.sleep(0.5)


def take(browser: Browser, address: str, name: str, seconds: float = 8.0, token: str | None = None) -> None:
    """One page, some seconds after it was opened, for what it loads."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    context = browser.new_context(viewport={"width": 1280, "height": 720}, extra_http_headers=headers)
    page = context.new_page()
    page.goto(address, wait_until="domcontentloaded", timeout=60_000)
    time.sleep(seconds)
    page.screenshot(path=PICTURES / f"{name}.png")
    context.close()


def main() -> None:
    """All of them."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright, contextlib.ExitStack() as programs:
        here = Path(scratch)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])

        def start(name: str, *command: str | Path) -> subprocess.Popen[bytes]:
            return programs.enter_context(program(command, here / f"{name}.log"))

        configuration = f"--config.file={ROOT / 'deploy' / 'prometheus.yml'}"
        start("prometheus", "prometheus", configuration, f"--storage.tsdb.path={here / 'tsdb'}")
        study = (sys.executable, ROOT / "sweeps" / "distill_search.py", *STUDY, "--storage", here)
        run, log = start("run", *study), here / "run.log"
        wait_for("plain resnet_tiny: done", log, run)
        time.sleep(8)  # the next stage's workers start
        asked = subprocess.run([PROGRAMS / "ray", "get-auth-token"], capture_output=True, text=True, check=True)
        token = asked.stdout.strip().splitlines()[-1]
        take(browser, "http://127.0.0.1:8265/#/actors", "ray", token=token)
        wait_for("finalists: done", log, run)
        start("optuna", PROGRAMS / "optuna-dashboard", here / "run" / "optuna.journal", "--port", "8081")
        start("tensorboard", PROGRAMS / "tensorboard", "--logdir", here / "run" / "ray", "--port", "6006")
        time.sleep(20)
        take(browser, "http://127.0.0.1:8081/dashboard/studies/1", "optuna")
        take(browser, "http://127.0.0.1:6006/?darkMode=false#timeseries", "tensorboard", 15)
        query = "ray_cifar_tune_val_accuracy&g0.tab=0&g0.range_input=10m"
        take(browser, f"http://127.0.0.1:9090/graph?g0.expr={query}", "prometheus")
        run.wait(PATIENCE)
        browser.close()


if __name__ == "__main__":
    main()
