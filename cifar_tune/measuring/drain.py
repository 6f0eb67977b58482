"""Waiting until the threads of earlier calls sleep.

A thread pool does not sleep when a call ends: libgomp's workers spin for up to 25 ms (GOMP_SPINCOUNT), since a next
parallel region may come soon. A call of another runtime that is timed meanwhile shares its cores with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

LOOK_SECONDS = 0.001
"""Between two looks."""
QUIET_LOOKS = 3
"""Looks in a row that must find nobody at work: a spinning thread may lose its core for one."""
QUIET_SHARE = 0.05
"""Of a core that all other threads together may use in a look."""
LIMIT_SECONDS = 0.1
"""After which a thread that still works is no spinning one."""


def others_seconds() -> float:
    """CPU seconds that all threads of this process but the calling one have used."""
    return time.process_time() - time.thread_time()


def drain(
    others: Callable[[], float] = others_seconds,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> bool:
    """Sleep until no other thread of this process works; False where one still does after LIMIT_SECONDS.

    Args:
        others: CPU seconds that the other threads have used so far.
    """
    started = looked = clock()
    used, quiet = others(), 0
    while quiet < QUIET_LOOKS:
        if looked - started > LIMIT_SECONDS:
            return False
        sleep(LOOK_SECONDS)
        before, looked = looked, clock()
        earlier, used = used, others()
        quiet = quiet + 1 if used - earlier <= QUIET_SHARE * (looked - before) else 0
    return True
