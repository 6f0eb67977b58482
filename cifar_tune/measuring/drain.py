"""Waiting until the threads of earlier calls sleep.

A pool's threads do not sleep when a call ends: they spin for a while, since the next parallel region may come soon.
What is timed meanwhile shares its cores with them. Linux says of each thread whether it runs, would run, or sleeps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

THREADS = Path("/proc/self/task")
LOOK_SECONDS = 0.0002
"""Between two looks."""
LIMIT_SECONDS = 0.05
"""After which a thread that still works is no spinning one: twice as long as libgomp spins by its own choice."""


def others_work() -> bool:
    """Whether a thread of this process works or spins, the calling one aside; False where the system does not say."""
    if not THREADS.is_dir():
        return False
    own = str(threading.get_native_id())
    return any(_runs(thread) for thread in THREADS.iterdir() if thread.name != own)


def _runs(thread: Path) -> bool:
    """Whether a thread runs or waits for a core; one that has ended does not."""
    try:
        return (thread / "stat").read_bytes().rpartition(b")")[2].split(maxsplit=1)[0] == b"R"
    except (FileNotFoundError, ProcessLookupError):
        return False


def drain(
    others: Callable[[], bool] = others_work,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> bool:
    """Sleep until no other thread of this process works; False where one still does after LIMIT_SECONDS.

    Args:
        others: whether one does.
    """
    started = clock()
    while others():
        if clock() - started > LIMIT_SECONDS:
            return False
        sleep(LOOK_SECONDS)
    return True
