"""Whether the watch notices another process on the measured cores, and only there.

    python benchmarks/foreign_load.py [--windows 40]

This process is pinned to one core and works in windows of half a second, as a measurement does. A foreign process
keeps busy either the same core, or another one, or there is none; turns alternate. Targets: of the windows with a
neighbour on the core 95 % are noticed; with one on another core no more are marked than without any, and no row is.
A row is marked where two windows in a row are: the first is taken again. It needs two cores, a machine that is
otherwise idle, and a minute.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

from common import Target, alternate, finish, parser, share

from cifar_tune.config import LatencyConfig
from cifar_tune.device import DeviceWatch, usable_cores

NOTICED = Target("at least", 0.95)
MARKED = Target("at most", 0)
BUSY = "import os\nos.sched_setaffinity(0, {core})\nprint(flush=True)\nwhile True: pass"


@contextlib.contextmanager
def neighbour(core: int | None) -> Iterator[None]:
    """A foreign process that keeps a core busy; None: there is none."""
    if core is None:
        yield
        return
    command = [sys.executable, "-c", BUSY.replace("{core}", f"{{{core}}}")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has begun
        try:
            yield
        finally:
            process.kill()


def noticed(core: int | None) -> bool:
    """Whether a window beside a neighbour on this core is disturbed."""
    with neighbour(core):
        watch = DeviceWatch("cpu")
        watch.start()
        ends = time.perf_counter() + LatencyConfig().window
        while time.perf_counter() < ends:
            sum(range(1000))
        return watch.disturbed()


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--windows", type=int, default=40, help="of each kind")
    options = flags.parse_args()
    cores = usable_cores()
    if len(cores) < 2:
        sys.exit("two cores are needed: one is measured, the other is not")
    os.sched_setaffinity(0, cores[:1])
    calls = {
        name: lambda core=core: noticed(core)
        for name, core in (("the measured core", cores[0]), ("another core", cores[1]), ("none", None))
    }
    found = list(alternate(calls, options.windows, "shuffled"))
    os.sched_setaffinity(0, cores)
    windows = {name: [window[name] for window in found] for name in calls}
    for name, held in windows.items():
        print(f"neighbour on {name}: {share(held)} of {len(held)} windows are disturbed")
    other = windows["another core"]
    rows = sum(one and two for one, two in zip(other[::2], other[1::2], strict=False))
    met = NOTICED.judge("noticed on the measured core", sum(windows["the measured core"]) / options.windows)
    finish(met=met & MARKED.judge("rows marked beside another core", rows, "d"), runs=options.windows)


if __name__ == "__main__":
    main()
