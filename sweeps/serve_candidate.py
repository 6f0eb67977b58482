"""The chosen model behind HTTP, and how much load it bears.

    python sweeps/serve_candidate.py --run RUN --p95-ms 20        # serve, try rising loads, write them into the report
    python sweeps/serve_candidate.py --run RUN --stay             # serve until Ctrl-C

    curl --data-binary @image.png -H 'Content-Type: image/png' http://127.0.0.1:8000/

Installed, it is `cifar-tune serve`. The last line of standard output is the path of the report.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from analysis.frames import find_run
from analysis.report import write_report
from analysis.sections.serving import serving_answer
from cifar_tune import cli
from cifar_tune.bucket import is_uri
from cifar_tune.config import Variant, check
from cifar_tune.device import environment
from cifar_tune.errors import StudyFailedError
from cifar_tune.records import Environment, ServingRecord
from cifar_tune.runs.locks import exclusive_device
from cifar_tune.store import note_checksums, to_row, write_records

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
RAMP_SECONDS = 1.0
"""Until all users of a load have begun."""
HOPELESS = 4.0
"""Times the allowed p95 from which higher loads are not tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """Serve the candidate of a run."""

    run: str
    """Name or path of the run."""
    storage: str = "ray_results"
    """Folder that holds the runs."""
    host: str = "127.0.0.1"
    """Where to listen. There is no access control: whoever reaches it may use it."""
    port: int = 8000
    """Port to listen on."""
    replicas: int = 1
    """Processes that answer."""
    batch: int = 8
    """Waiting images that a replica takes at a time, at most."""
    queue: int = 128
    """Requests that may wait, beside those that replicas have taken (each twice `batch`); more get a 503."""
    timeout: float = 10.0
    """Seconds after which a request is answered with 408."""
    p95_ms: float = 50.0
    """What 95 % of the requests may take."""
    users: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Loads to try, rising: users that send at the same time, each the next image when the last is answered."""
    seconds: float = 8.0
    """Length of each load."""
    stay: bool = False
    """Serve until Ctrl-C, without a load test."""

    def __post_init__(self) -> None:
        for name in ("replicas", "batch", "queue"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("timeout", "p95_ms", "seconds"):
            check(0 < getattr(self, name) < math.inf, name.replace("_", " "), getattr(self, name), "above 0")
        check(1 <= self.port <= 65535, "port", self.port, "1 to 65535")
        check(len(self.users) >= 1 and min(self.users) >= 1, "users", self.users, "one or more loads of 1 or more")


def run(config: ServeConfig) -> Path | None:
    """Serve, and try the loads; the path of the report, or None where there was no load test."""
    with cli.user_input():
        folder = _run_folder(config)
        _check_port(config)
        card = _card(folder)
        limits = _limits(config)
        _server().check_servable(card, limits)
    with _server().serving(folder / "candidate", limits, config.host, config.port) as address:
        print(f"Serving {card['model']} at {address}   (GET: what it is; POST: an image file)", flush=True)
        if config.stay:
            _until_interrupted()
            return None
        # what else is measured on this machine would be slowed down, and would slow this down
        with exclusive_device(card["device"], wait=True, purpose="(load test)"):
            rows = list(_loads(config, folder, card, address))
    write_records(folder / "serving.parquet", ServingRecord, rows)
    note_checksums(folder, ["serving.parquet"])
    print(serving_answer([to_row(row) for row in rows]))
    return write_report(folder).path


def _run_folder(config: ServeConfig) -> Path:
    check(not is_uri(config.run), "run", config.run, "a run in a folder here: copy it from the object storage first")
    return find_run(config.run, config.storage)


def _check_port(config: ServeConfig) -> None:
    """ValueError where the endpoint could not listen."""
    with socket.socket() as here:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            here.bind((config.host, config.port))
        except OSError as error:
            raise ValueError(f"host and port are {config.host}:{config.port}: {error.strerror}") from error


def _card(folder: Path) -> dict[str, Any]:
    endpoint = _server()
    return endpoint.read_card(folder / "candidate")


def _server() -> Any:
    try:
        from cifar_tune.tuning import endpoint

        # not imported: it would replace this process's sockets with gevent's
        if importlib.util.find_spec("locust") is None:
            raise ImportError("No module named 'locust'")
    except ImportError as error:
        raise ValueError(f"what serves is not installed: pip install -e '.[serve]' ({error})") from error
    return endpoint


def _limits(config: ServeConfig) -> Any:
    return _server().Limits(**{name: getattr(config, name) for name in ("replicas", "batch", "queue", "timeout")})


def _until_interrupted() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


def _loads(config: ServeConfig, folder: Path, card: dict[str, Any], address: str) -> Iterator[ServingRecord]:
    here = environment(card["device"])
    for users in sorted(set(config.users)):
        row = _row(config, folder.name, card, users, send(address, card["image_size"], users, config.seconds), here)
        print(_line(row), flush=True)
        yield row
        if row.p95_ms is None or row.p95_ms > HOPELESS * config.p95_ms:
            return


class Sent(NamedTuple):
    """One request of a load test."""

    end: float
    """Unix time."""
    ms: float
    ok: bool
    """Whether it was answered as it should be."""
    together: int
    """Images that the replica took together, this one among them; 0 where it was not answered."""


def send(address: str, side: int, users: int, seconds: float) -> list[Sent]:
    """Put a load on an endpoint; returns all requests.

    Args:
        side: of the images, in pixels.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "requests.json")
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
        command += ["--host", address.rstrip("/"), "-u", str(users), "-r", str(users)]
        command += ["-t", f"{math.ceil(seconds + RAMP_SECONDS)}s"]  # whole seconds, by locust's own reading
        asked = {"CIFAR_TUNE_SIDE": str(side), "CIFAR_TUNE_REQUESTS": str(out)}
        asked["CIFAR_TUNE_TOGETHER"] = _server().TAKEN_TOGETHER
        ended = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=False)
        if not out.is_file():
            raise StudyFailedError(f"the load test did not run: {ended.stderr.strip().splitlines()[-1:]}")
        return [Sent(*request) for request in json.loads(out.read_text())]


def _row(
    config: ServeConfig,
    run: str,
    card: dict[str, Any],
    users: int,
    requests: Sequence[Sent],
    here: Environment,
) -> ServingRecord:
    """The figures of one load; the first requests, while users were still beginning, do not count."""
    begun = min((r.end - r.ms / 1e3 for r in requests), default=0.0) + RAMP_SECONDS
    counted = [r for r in requests if r.end >= begun]
    answered = np.array([r.ms for r in counted if r.ok])
    seconds = max((r.end for r in counted), default=begun) - begun
    p50, p95, p99 = np.percentile(answered, (50, 95, 99)).tolist() if len(answered) else (None, None, None)
    failures = len(counted) - len(answered)
    return ServingRecord(
        run=run,
        trial_id=card["trial_id"],
        model=card["model"],
        arm=card["arm"],
        checkpoint_sha256=card["checkpoint_sha256"],
        variant=Variant(**card["variant"]).name,
        users=users,
        seconds=seconds,
        requests=len(counted),
        failures=failures,
        throughput=len(answered) / seconds if seconds > 0 else 0.0,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        p95_limit_ms=config.p95_ms,
        meets=p95 is not None and p95 <= config.p95_ms and failures == 0,
        replicas=config.replicas,
        batch=config.batch,
        together=float(np.mean([r.together for r in counted if r.ok])) if len(answered) else None,
        environment=here,
    )


def _line(row: ServingRecord) -> str:
    if row.p50_ms is None:
        return f"{row.users:4d} users: no request was answered"
    return (
        f"{row.users:4d} users: {row.throughput:7.1f} images/s   p50 {row.p50_ms:7.2f}   p95 {row.p95_ms:7.2f}   "
        f"p99 {row.p99_ms:7.2f} ms   {row.failures} failed"
    )


def main(argv: Sequence[str], prog: str = "serve_candidate.py") -> None:
    """The command."""

    def served() -> Path | None:
        return run(cli.parse(ServeConfig, argv, prog=prog, description=__doc__ or ""))

    cli.run_command(served)


if __name__ == "__main__":
    main(sys.argv[1:])
