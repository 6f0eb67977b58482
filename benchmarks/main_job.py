"""Wall time and peak memory of the main job on the embedded data, all of its processes included.

    python benchmarks/main_job.py [ARGUMENT OF distill_search.py...]

Memory is the proportional set size of the driver and all its descendants (Ray's daemons, dashboard and workers),
sampled every few seconds: pages that several processes share count once.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from common import about

SAMPLE_SECONDS = 4.0
COMMAND = Path(__file__).resolve().parent.parent / "sweeps" / "distill_search.py"


def proportional_set_size(root: psutil.Process) -> int:
    """Bytes of a process and its descendants."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
    return total


def main() -> None:
    with tempfile.TemporaryDirectory() as storage:
        command = [sys.executable, COMMAND, "--preset", "quick", "--storage", storage, *sys.argv[1:]]
        started = time.monotonic()
        job = subprocess.Popen(command)
        root, peak = psutil.Process(job.pid), 0
        while job.poll() is None:
            peak = max(peak, proportional_set_size(root))
            time.sleep(SAMPLE_SECONDS)
        wall = time.monotonic() - started
    print(f"exit {job.returncode}, wall {wall:.0f} s, peak proportional set size {peak / 2**30:.2f} GiB")
    print(about(1))


if __name__ == "__main__":
    main()
