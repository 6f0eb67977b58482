"""A study of the preset `chaos`, which goes through all stages in about two minutes, in a process of its own."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psutil

from cifar_tune.bucket import LEASE, Bucket, fetched, is_uri
from cifar_tune.records import LatencyRecord, TrialRecord
from cifar_tune.runs.ledger import Ledger, latency_key
from cifar_tune.runs.mirror import WRITER

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 600.0
"""Seconds after which a study that should have ended hangs."""


@dataclass(frozen=True)
class Ending:
    """What a study leaves: all that must not depend on interruptions."""

    weights: dict[str, str | None]
    """Trial id -> SHA-256 of its weights."""
    measured: dict[str, str]
    """What was measured -> how it ended."""
    tables: tuple[str, ...]
    """Files at the top of the run's folder."""


class Study:
    """A study of the preset `chaos` in a process of its own.

    Args:
        scratch: folder for what it says, and for its caches.
        storage: where it is kept: a folder, or an s3:// URI.
        sweep: which sweep.
        options: of its command.
        environment: variables that it has besides.
    """

    def __init__(
        self,
        scratch: Path,
        name: str,
        storage: str | None = None,
        sweep: str = "distill_search.py",
        options: Sequence[str] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name, self._storage = name, storage or str(scratch)
        self._log, self._printed = scratch / f"{name}.log", scratch / f"{name}.out"
        self._environment = {**os.environ, "XDG_CACHE_HOME": str(scratch / "caches"), **environment}
        self._command = [
            sys.executable, str(ROOT / "sweeps" / sweep), "--preset", "chaos",
            "--storage", self._storage, "--name", name, *options,
        ]  # fmt: skip

    @property
    def run(self) -> Path:
        """Its folder; of a run in a bucket a copy."""
        return fetched(f"{self._storage}/{self.name}") if is_uri(self._storage) else Path(self._storage, self.name)

    def begun(self) -> bool:
        """Whether there is something to go on with."""
        if is_uri(self._storage):
            return f"{self.name}/study.json" in Bucket(self._storage).names(f"{self.name}/")
        return (self.run / "study.json").exists()

    def start(self) -> psutil.Popen:
        """Begin it, or go on with it."""
        resume = ["--resume"] if self.begun() else []
        with self._log.open("a") as log, self._printed.open("a") as printed:
            return psutil.Popen(
                [*self._command, *resume], stdout=printed, stderr=log, start_new_session=True, env=self._environment,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
            )  # fmt: skip

    def finish(self) -> str | None:
        """Run it to its end; returns what went wrong, if anything."""
        try:
            code = self.start().wait(LIMIT)
        except psutil.TimeoutExpired:
            return f"hangs: {self.last_words()}"
        return None if code == 0 else f"exit code {code}: {self.last_words()}"

    def said(self) -> str:
        """All that it said on standard error."""
        return self._log.read_text()

    def printed(self) -> str:
        """All that it printed on standard output."""
        return self._printed.read_text()

    def last_words(self) -> str:
        """The last line it said."""
        return (self.said().strip().splitlines() or ["nothing"])[-1]

    def ending(self) -> Ending:
        """What it has left."""
        run = self.run
        ledger = Ledger(run)
        return Ending(
            weights={t.trial_id: t.checkpoint_sha256 for t in ledger.read(TrialRecord)},
            measured={
                latency_key(r.stage, r.checkpoint_sha256, r.variant, r.block): r.status
                for r in ledger.read(LatencyRecord)
                if r.stage == "grid"  # which candidate is confirmed depends on what was measured
            },
            tables=tuple(
                sorted(
                    p.name
                    for p in run.iterdir()
                    if p.is_file() and p.name not in (LEASE, WRITER) and p.suffix != ".pkl"
                )
            ),
        )

    def finished(self) -> dict[str, tuple[str, int]]:
        """Digest and time of each file of the ledger: what is in it is never run again."""
        run = self.run
        return {
            str(p.relative_to(run)): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns)
            for p in (run / "ledger").rglob("[!.]*.json")
        }

    def left_behind(self) -> list[str]:
        """Half files, and what trials that have ended left to go on from."""
        run = self.run
        return [p.name for p in (*run.rglob("*.part"), *run.glob("ray/*/*/checkpoint_*"))]


def is_training(process: psutil.Process) -> bool:
    """Whether a process is the worker of a training trial: Ray names it for what it runs."""
    try:
        return " ".join(process.cmdline()).startswith("ray::ImplicitFunc.train")
    except psutil.Error:
        return False
