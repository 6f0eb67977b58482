"""A process with a fresh process that waits: `python tests/support/orphan.py FILE`, killed by a test."""

import os
import sys
import time
from pathlib import Path

from cifar_tune.measuring.processes import in_fresh_process


def note_and_wait(path: str) -> None:
    """Say who we are, and wait."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


if __name__ == "__main__":
    from orphan import note_and_wait as importable

    in_fresh_process(importable, sys.argv[1])
