"""What interruptions cost: a small study is killed again and again, and must end as one that was left alone.

    python tests/support/chaos.py                     # the whole table, up to an hour
    python tests/support/chaos.py --drivers 2 --workers 2 --nodes 0 --storages 0 --inputs 0

The preset `chaos` goes through all stages in under two minutes, and is deterministic on a CPU: after any interruption
the same trials must be there, with the same weights to the bit, and what was finished before must not be touched.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from lost_node import three_nodes, weights_after
from s3_server import BUCKET, s3_server
from small_study import LIMIT, ROOT, Ending, Study, is_training

RAYS_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
DRIVER_KILLS_A_STUDY = 2
WORKER_KILLS_A_STUDY = 4
TRIALS_BETWEEN_KILLS = 2
"""That end between two kills of workers: one trial killed more often than it has retries fails, and rightly."""
KINDS_OF_INPUT = 8
"""Tests in test_malformed.py."""


@dataclass(frozen=True)
class Verdict:
    """How one interruption went."""

    what: str
    fault: str | None
    """None: nothing was lost."""


def kill(process: psutil.Popen) -> str | None:
    """SIGKILL the driver alone; returns who outlives it, if anyone does. Ray's own agents take their time."""
    children: dict[psutil.Process, str] = {}
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since, and may be a zombie
            name = " ".join(child.cmdline())[:80]
            if not name.startswith(RAYS_AGENTS):
                children[child] = name
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(list(children), timeout=90)
    for child in alive:
        child.kill()
    return ", ".join(children[child] for child in alive) or None


class Payload:
    """What must never be unpickled: it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._mark,)


def plant_pickles(run: Path) -> Path:
    """Put a payload wherever Ray keeps or looks for pickles; returns the mark that it leaves when it is read."""
    mark = run.with_name(f"{run.name}.unpickled")
    experiments = [p for p in (run / "ray").glob("*") if p.is_dir()]
    names = ("tuner.pkl", "trainable.pkl", "searcher-state-2030-01-01_00-00-00.pkl", "search_gen_state-0.pkl")
    places = [*run.rglob("*.pkl"), *(folder / name for folder in (run, *experiments) for name in names)]
    for place in places:
        place.write_bytes(pickle.dumps(Payload(mark)))
    return mark


def still_there_after(process: psutil.Popen, seconds: float) -> bool:
    """Wait; whether the process has not ended by then."""
    try:
        process.wait(seconds)
    except psutil.TimeoutExpired:
        return True
    return False


def driver_killed(study: Study, moments: Sequence[float], undisturbed: Ending) -> list[Verdict]:
    """Kill the driver when a study has worked for so many seconds; resume, compare; a verdict for each kill."""
    before: dict[str, tuple[str, int]] = {}
    marks: list[Path] = []
    kinds, faults = [], []
    for worked in np.diff(sorted(moments), prepend=0.0):
        process = study.start()
        if not still_there_after(process, worked):
            break
        orphans = kill(process)
        if orphans is not None:
            faults.append(f"processes outlived the driver: {orphans}")
        if study.begun():
            faults += touched(study, before)
            before = study.finished()
            marks.append(plant_pickles(study.run))
        kinds.append(f"{study.name}: driver killed after {worked:.1f} s, {len(before)} results in the ledger")
    ended = study.finish()
    if ended is not None:
        faults.append(ended)
    if any(mark.exists() for mark in marks):
        faults.append("a pickle of the run's folder was read")
    fault = "; ".join(faults) or difference(study, before, undisturbed)
    return [Verdict(what, fault) for what in kinds]


def touched(study: Study, before: dict[str, tuple[str, int]]) -> list[str]:
    """What was finished before and is not as it was."""
    after = study.finished()
    changed = [name for name in before if after.get(name) != before[name]]
    return [f"run again: {changed}"] if changed else []


def difference(study: Study, before: dict[str, tuple[str, int]], undisturbed: Ending) -> str | None:
    """What is not as if nothing had happened."""
    again = touched(study, before)
    if again:
        return again[0]
    ending = study.ending()
    for name in ("weights", "measured", "tables"):
        was, now = getattr(undisturbed, name), getattr(ending, name)
        if was != now:
            return f"{name} differ: {sorted(set(was) ^ set(now)) or [k for k in was if was[k] != now[k]]}"
    left = study.left_behind()
    return f"left behind: {left}" if left else None


def workers_killed(study: Study, kills: int, chance: random.Random, undisturbed: Ending) -> Verdict:
    """Kill `kills` training workers of a study, so far apart that no trial runs out of retries."""
    process, killed = study.start(), 0
    end = time.monotonic() + LIMIT
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < end:
        time.sleep(chance.uniform(0.5, 2))
        ended = len(list(study.run.glob("ledger/TrialRecord/[!.]*.json")))
        workers = [p for p in _children(process) if is_training(p)]
        # when all have ended, such a process measures
        if workers and killed < min(kills, 1 + ended // TRIALS_BETWEEN_KILLS) and ended < len(undisturbed.weights):
            chance.choice(workers).kill()
            killed += 1
    code = process.wait(1)
    what = f"{study.name}: {killed} workers killed"
    fault = None if code == 0 else f"exit code {code}: {study.last_words()}"
    return Verdict(what, fault or (f"only {killed} killed" if killed < kills else difference(study, {}, undisturbed)))


def _children(process: psutil.Popen) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def storage_failing(scratch: Path, name: str, undisturbed: Ending) -> Verdict:
    """A study in a bucket whose server is slow, fails and hangs up, and for half a minute is away."""
    with s3_server() as server:
        study = Study(scratch, name, f"s3://{BUCKET}/chaos")
        server.share = {"slow": 0.05, "error": 0.05, "cut": 0.05, "cut after": 0.05}
        process = study.start()
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(30)
        server.share = {"cut": 1.0}
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(30)
        server.share = {"error": 0.05, "cut after": 0.05}
        code = process.wait(LIMIT)
        faults = sum(fault != "none" for fault in server.seen)
        server.share = {}
        fault = None if code == 0 else f"exit code {code}: {study.last_words()}"
        what = f"{name}: {faults} of {len(server.seen)} requests failed"
        return Verdict(what, fault or difference(study, {}, undisturbed))


def nodes_lost(scratch: Path, times: int) -> Iterator[Verdict]:
    """Trainings on three nodes, one of which is taken away."""
    with three_nodes() as (_, info):
        undisturbed = weights_after(scratch / "nodes" / "undisturbed", info)
    for number in range(times):
        with three_nodes() as (nodes, info):
            same = weights_after(scratch / "nodes" / str(number), info, lose=nodes) == undisturbed
        yield Verdict(f"node{number:02d}: one of three lost", None if same else "other weights")


def malformed(examples: int) -> Verdict:
    """Malformed input of every kind."""
    each = math.ceil(examples / KINDS_OF_INPUT)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(ROOT / "tests" / "integration" / "test_malformed.py")],
        cwd=ROOT, env={**os.environ, "MALFORMED_EXAMPLES": str(each)}, capture_output=True, text=True,
    )  # fmt: skip
    fault = None if ended.returncode == 0 else ended.stdout[-2000:]
    return Verdict(f"{each} inputs of each of {KINDS_OF_INPUT} kinds", fault)


def verdicts(scratch: Path, options: argparse.Namespace) -> Iterator[tuple[str, Verdict]]:
    """Every interruption, with the kind it is of."""
    chance = random.Random(options.seed)
    calm = Study(scratch, "undisturbed")
    started = time.monotonic()
    fault = calm.finish()
    seconds = time.monotonic() - started
    yield "left alone", Verdict(f"undisturbed in {seconds:.0f} s", fault)
    if fault is not None:
        return
    undisturbed = calm.ending()
    killed = 0
    for number in itertools.count():
        kills = min(DRIVER_KILLS_A_STUDY, options.drivers - killed)
        if kills == 0:
            break
        moments = [chance.uniform(0, 0.95 * seconds) for _ in range(kills)]
        of_it = driver_killed(Study(scratch, f"driver{number:02d}"), moments, undisturbed)
        killed += len(of_it)
        yield from (("driver killed", verdict) for verdict in of_it)
    for number, first in enumerate(range(0, options.workers, WORKER_KILLS_A_STUDY)):
        kills = min(WORKER_KILLS_A_STUDY, options.workers - first)
        verdict = workers_killed(Study(scratch, f"worker{number:02d}"), kills, chance, undisturbed)
        yield from [("worker killed", verdict)] * kills
    if options.nodes:
        yield from (("node lost", verdict) for verdict in nodes_lost(scratch, options.nodes))
    for number in range(options.storages):
        yield "storage failing", storage_failing(scratch, f"storage{number:02d}", undisturbed)
    if options.inputs:
        yield from [("malformed input", malformed(options.inputs))] * options.inputs


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drivers", type=int, default=20, help="drivers killed")
    parser.add_argument("--workers", type=int, default=20, help="workers killed")
    parser.add_argument("--nodes", type=int, default=5, help="nodes lost")
    parser.add_argument("--storages", type=int, default=3, help="studies in a bucket that fails")
    parser.add_argument("--inputs", type=int, default=300, help="malformed inputs")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args(arguments)
    table: dict[str, list[bool]] = {}
    started = time.monotonic()
    shown: set[str] = set()
    with tempfile.TemporaryDirectory() as scratch:
        for kind, verdict in verdicts(Path(scratch), options):
            table.setdefault(kind, []).append(verdict.fault is None)
            if verdict.what not in shown:  # one that stands for several
                print(f"{verdict.what}: {verdict.fault or 'nothing lost'}", flush=True)
            shown.add(verdict.what)
    print()
    for kind, good in table.items():
        print(f"{kind:<16}{sum(good)} of {len(good)}")
    print(f"{(time.monotonic() - started) / 60:.0f} min")
    return 0 if all(all(good) for good in table.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
