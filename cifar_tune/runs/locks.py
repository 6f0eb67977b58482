"""Who may measure on a device, and who may write a run: locks of the kernel (flock), which end with their process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cifar_tune.errors import DeviceTakenError, UsageError

LOCKS = Path("/tmp")
"""Where the locks of devices lie: one place for all users, whatever their own temporary folder is."""
LOCK = "driver.lock"
"""File of a run's folder that its driver holds."""


def lock(file: IO[str], *, wait: bool) -> bool:
    """Lock an open file exclusively; False at once when it is locked elsewhere and `wait` is off."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def exclusive_device(device: str, *, wait: bool, purpose: str = "") -> Iterator[None]:
    """Hold the machine-wide lock of a device, beyond Ray's own resources, so that two studies take turns.

    The lock is the kernel's (flock): it ends with its process, however that ends. Its file says who holds it.

    Raises:
        DeviceTakenError: `wait` is false and another process holds the device.
    """
    with _lock_file(LOCKS / f"cifar_tune-{device}.lock") as file:
        if not lock(file, wait=wait):
            raise DeviceTakenError(f"{device} is taken by {file.read().strip() or 'another process'}")
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} of user {os.getuid()} on {platform.node()} {purpose}".strip())
        file.flush()
        yield
        file.truncate(0)


def _lock_file(path: Path) -> IO[str]:
    """The file, made if need be, so that every user of the machine can lock it.

    It is opened before it is made: a folder that all may write to lets nobody open another's file with O_CREAT.
    """
    while True:
        with contextlib.suppress(FileNotFoundError):
            return os.fdopen(os.open(path, os.O_RDWR), "r+")
        with contextlib.suppress(FileExistsError):
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), "r+")
            path.chmod(0o666)  # whatever the umask
            return file


@contextlib.contextmanager
def sole_writer(run: Path) -> Iterator[None]:
    """Hold the run's folder, which is made: no other driver may write there. The lock ends with its process.

    Raises:
        UsageError: another driver holds it; the message says which.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / LOCK).open("a+") as file:
        if not lock(file, wait=False):
            file.seek(0)
            raise UsageError(f"run {run.name} is being written by {file.read().strip()}")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
