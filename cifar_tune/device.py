"""What machine this is, and what else ran on it while we measured."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path

import psutil
import torch

from cifar_tune import __version__
from cifar_tune.config import check
from cifar_tune.records import Environment

CONTENDED_CORES = 0.2
"""Cores used by others from which a measurement counts as disturbed."""


def resolve_device(requested: str) -> str:
    """cpu or cuda; ValueError where cuda is asked for and not there."""
    available = torch.cuda.is_available()
    check(requested != "cuda" or available, "device", requested, "cpu or auto: PyTorch finds no CUDA device here")
    return "cuda" if available and requested != "cpu" else "cpu"


def usable_cpus() -> int:
    """Logical cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def environment(device: str) -> Environment:
    """The machine and versions of this process."""
    return Environment(
        host=platform.node(),
        os=platform.platform(),
        device=device,
        device_name=torch.cuda.get_device_name() if device == "cuda" else cpu_name(),
        cpu_count=usable_cpus(),
        python=platform.python_version(),
        torch=torch.__version__,
        torchvision=importlib.metadata.version("torchvision"),
        ray=importlib.metadata.version("ray"),
        optuna=importlib.metadata.version("optuna"),
        cifar_tune=__version__,
        git_commit=git_commit(),
    )


def cpu_name() -> str:
    """The processor's model name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def git_commit() -> str | None:
    """Commit of the checkout this package runs from, `+` appended when it has local changes; None outside one."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None

    def git(*args: str) -> str:
        command = ["git", "-C", str(root), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


class ForeignLoad:
    """Cores used by other processes since this was made: the machine's busy time less our own."""

    def __init__(self) -> None:
        self._started, self._busy, self._own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def cores(self) -> float:
        """Cores that others kept busy, on average."""
        elapsed = time.perf_counter() - self._started
        others = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        return max(0.0, others / elapsed)


def _busy_seconds() -> float:
    """CPU time that the machine has spent working, and that a hypervisor took away (steal)."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system + times.irq + times.softirq + times.steal


def _own_seconds() -> float:
    own = os.times()
    return own.user + own.system
