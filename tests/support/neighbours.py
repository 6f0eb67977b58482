"""What other processes on this machine do; it imports little, so that one starts at once."""

from __future__ import annotations

import time
from multiprocessing.synchronize import Event
from pathlib import Path

from cifar_tune.runs import locks
from cifar_tune.runs.locks import exclusive_device


def hold(folder: str, seconds: float, held: Event) -> None:
    """Take the CPU, say so, and keep it for some seconds."""
    locks.LOCKS = Path(folder)
    with exclusive_device("cpu", wait=True, purpose="(run other)"):
        held.set()
        time.sleep(seconds)
