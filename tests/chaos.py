"""What interruptions cost: a small study is killed again and again, and must end as one that was left alone.

    python tests/chaos.py                     # the whole table, up to an hour
    python tests/chaos.py --drivers 2 --workers 2

The preset `chaos` goes through all stages in under a minute, and is deterministic on a CPU: after any interruption
the same trials must be there, with the same weights to the bit, and what was finished before must not be touched.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from cifar_tune.ledger import Ledger, latency_key
from cifar_tune.records import LatencyRecord, TrialRecord

ROOT = Path(__file__).parent.parent
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


@dataclass(frozen=True)
class Verdict:
    """How one interruption went."""

    what: str
    fault: str | None
    """None: nothing was lost."""


class Study:
    """A study of the preset `chaos` in a process of its own."""

    def __init__(self, storage: Path, name: str, *flags: str) -> None:
        self.run = storage / name
        self._log = storage / f"{name}.log"
        self._command = [
            sys.executable, str(ROOT / "sweeps" / "distill_search.py"), "--preset", "chaos",
            "--storage", str(storage), "--name", name, *flags,
        ]  # fmt: skip

    def start(self) -> psutil.Popen:
        """Begin it, or go on with it where there is something to go on with."""
        resume = ["--resume"] if (self.run / "study.json").exists() else []
        with self._log.open("a") as log:
            return psutil.Popen([*self._command, *resume], stdout=log, stderr=log, start_new_session=True)

    def finish(self) -> str | None:
        """Run it to its end; returns what went wrong, if anything."""
        try:
            code = self.start().wait(LIMIT)
        except psutil.TimeoutExpired:
            return f"hangs: {self.last_words()}"
        return None if code == 0 else f"exit code {code}: {self.last_words()}"

    def last_words(self) -> str:
        """The last line it said."""
        return (self._log.read_text().strip().splitlines() or ["nothing"])[-1]

    def ending(self) -> Ending:
        """What it has left."""
        ledger = Ledger(self.run)
        return Ending(
            weights={t.trial_id: t.checkpoint_sha256 for t in ledger.read(TrialRecord)},
            measured={
                latency_key(r.stage, r.checkpoint_sha256, r.variant, r.repeat): r.status
                for r in ledger.read(LatencyRecord)
                if r.stage == "grid"  # which candidate is confirmed depends on what was measured
            },
            tables=tuple(sorted(p.name for p in self.run.iterdir() if p.is_file() and p.name != "driver.lock")),
        )

    def finished(self) -> dict[Path, tuple[str, int]]:
        """Digest and time of each file of the ledger: what is in it is never run again."""
        files = (self.run / "ledger").rglob("[!.]*.json")
        return {p: (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files}


def kill(process: psutil.Popen) -> str | None:
    """SIGKILL the driver alone; returns who outlives it, if anyone does."""
    children = process.children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    for child in alive:
        child.kill()
    return ", ".join(" ".join(child.cmdline())[:80] for child in alive) or None


def driver_killed(storage: Path, name: str, moment: float, undisturbed: Ending) -> Verdict:
    """Kill the driver after `moment` seconds, resume, compare."""
    study = Study(storage, name)
    process = study.start()
    try:
        process.wait(moment)
        return Verdict(name, "ended before it was killed")
    except psutil.TimeoutExpired:
        orphans = kill(process)
    before = study.finished()
    what = f"{name}: driver killed after {moment:.1f} s, {len(before)} results in the ledger"
    fault = study.finish()
    if fault is None and orphans is not None:
        fault = f"processes outlived the driver: {orphans}"
    return Verdict(what, fault or difference(study, before, undisturbed))


def difference(study: Study, before: dict[Path, tuple[str, int]], undisturbed: Ending) -> str | None:
    """What is not as if nothing had happened."""
    after = study.finished()
    touched = [p.name for p in before if after.get(p) != before[p]]
    if touched:
        return f"run again: {touched}"
    ending = study.ending()
    for name in ("weights", "measured", "tables"):
        was, now = getattr(undisturbed, name), getattr(ending, name)
        if was != now:
            return f"{name} differ: {sorted(set(was) ^ set(now)) or [k for k in was if was[k] != now[k]]}"
    left = [p.name for p in study.run.rglob("*.part")] + [p.name for p in study.run.glob("ray/*/*/checkpoint_*")]
    return f"left behind: {left}" if left else None


def is_training(process: psutil.Process) -> bool:
    """Whether a process is the worker of a training trial: Ray names it for what it runs."""
    try:
        return " ".join(process.cmdline()).startswith("ray::ImplicitFunc.train")
    except psutil.Error:
        return False


def workers_killed(storage: Path, name: str, kills: int, chance: random.Random, undisturbed: Ending) -> Verdict:
    """Kill `kills` training workers of a study, some seconds apart, so that no trial runs out of retries."""
    study = Study(storage, name)
    process, killed = study.start(), 0
    end = time.monotonic() + LIMIT
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(chance.uniform(1, 4))
        workers = [p for p in _children(process) if is_training(p)]
        if workers and killed < kills:
            chance.choice(workers).kill()
            killed += 1
    code = process.wait(1)
    what = f"{name}: {killed} workers killed"
    fault = None if code == 0 else f"exit code {code}: {study.last_words()}"
    return Verdict(what, fault or (f"only {killed} killed" if killed < kills else difference(study, {}, undisturbed)))


def _children(process: psutil.Popen) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def verdicts(storage: Path, drivers: int, workers: int, seed: int) -> Iterator[tuple[str, Verdict]]:
    """Every interruption, with the kind it is of."""
    chance = random.Random(seed)
    calm = Study(storage, "undisturbed")
    started = time.monotonic()
    fault = calm.finish()
    seconds = time.monotonic() - started
    yield "left alone", Verdict(f"undisturbed in {seconds:.0f} s", fault)
    if fault is not None:
        return
    undisturbed = calm.ending()
    for number in range(drivers):
        moment = chance.uniform(0, 0.95 * seconds)
        yield "driver killed", driver_killed(storage, f"driver{number:02d}", moment, undisturbed)
    done = 0
    while done < workers:
        kills = min(4, workers - done)
        verdict = workers_killed(storage, f"worker{done:02d}", kills, chance, undisturbed)
        done += kills
        for _ in range(kills):
            yield "worker killed", verdict


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drivers", type=int, default=20, help="drivers killed")
    parser.add_argument("--workers", type=int, default=20, help="workers killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args(arguments)
    table: dict[str, list[bool]] = {}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as storage:
        for kind, verdict in verdicts(Path(storage), options.drivers, options.workers, options.seed):
            table.setdefault(kind, []).append(verdict.fault is None)
            print(f"{verdict.what}: {verdict.fault or 'nothing lost'}", flush=True)
    print()
    for kind, good in table.items():
        print(f"{kind:<16}{sum(good)} of {len(good)}")
    print(f"{(time.monotonic() - started) / 60:.0f} min")
    return 0 if all(all(good) for good in table.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
