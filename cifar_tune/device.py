"""What machine this is, and the proof that it was ours alone while we measured."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import importlib
import importlib.metadata
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

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


class DeviceTakenError(RuntimeError):
    """Another study measures on the device; the message says which process."""


@contextlib.contextmanager
def exclusive_device(device: str, *, wait: bool, purpose: str = "") -> Iterator[None]:
    """Hold the machine-wide lock of a device, beyond Ray's own resources, so that two studies take turns.

    The lock is the kernel's (flock): it ends with its process, however that ends. Its file says who holds it.

    Raises:
        DeviceTakenError: `wait` is false and another process holds the device.
    """
    path = Path(tempfile.gettempdir(), f"cifar_tune-{device}.lock")
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+") as file:
        with contextlib.suppress(PermissionError):  # another user's file: it can be locked all the same
            path.chmod(0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise DeviceTakenError(f"{device} is taken by {file.read().strip() or 'another process'}") from None
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} of user {os.getuid()} on {platform.node()} {purpose}".strip())
        file.flush()
        yield
        file.truncate(0)


def pin_to_cores(threads: int) -> list[int]:
    """Keep this process on as many cores as it has threads; returns them, empty where the system cannot pin."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cores)
    return cores


class DeviceWatch:
    """What others did to the device while windows of samples were taken, and the evidence for the row.

    On a CPU: cores used by other processes and taken by the hypervisor (steal). On a GPU also other processes on it,
    throttling, clock, temperature and power, as NVML says.
    """

    def __init__(self, device: str) -> None:
        self._gpu = Gpu.open() if device == "cuda" else None
        self._load = ForeignLoad()
        self._worst = 0.0
        self._steal = 0.0
        self._gpu_seen: list[GpuState] = []

    def start(self) -> None:
        """A window begins."""
        self._load = ForeignLoad()
        if self._gpu is not None:
            self._gpu_seen.append(self._gpu.state())

    def disturbed(self) -> bool:
        """Whether others used the device in the window that ends now."""
        foreign, steal = self._load.cores(), self._load.steal()
        self._worst, self._steal = max(self._worst, foreign), max(self._steal, steal)
        disturbed = foreign > CONTENDED_CORES
        if self._gpu is not None:
            self._gpu_seen.append(self._gpu.state())
            disturbed |= any(state.processes > 0 or state.throttled for state in self._gpu_seen[-2:])
        return disturbed

    def evidence(self) -> dict[str, Any]:
        """The worst of all windows, as fields of LatencyRecord."""
        seen = self._gpu_seen
        return {
            "foreign_cpu": self._worst,
            "steal_cpu": self._steal,
            "load_average": os.getloadavg()[0],
            "gpu_processes": max((s.processes for s in seen), default=None),
            "gpu_throttled": any(s.throttled for s in seen) if seen else None,
            "gpu_clock_mhz": min((s.clock_mhz for s in seen), default=None),
            "gpu_temperature": max((s.temperature for s in seen), default=None),
            "gpu_power_w": max((s.power_w for s in seen), default=None),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuState:
    """One look at a GPU through NVML."""

    processes: int
    """Processes other than this one that compute on it."""
    throttled: bool
    """The clock is held down by heat, power or hardware protection."""
    clock_mhz: int
    temperature: int
    power_w: float


class Gpu:
    """The GPU that PyTorch uses, as NVML sees it."""

    def __init__(self, nvml: ModuleType, handle: object) -> None:
        self._nvml, self._handle = nvml, handle
        self._harmful = (
            nvml.nvmlClocksThrottleReasonHwSlowdown
            | nvml.nvmlClocksThrottleReasonSwThermalSlowdown
            | nvml.nvmlClocksThrottleReasonSwPowerCap
        )

    @staticmethod
    def open() -> Gpu | None:
        """None where NVML is not installed or refuses: the row then has no evidence of the GPU."""
        try:
            nvml = importlib.import_module("pynvml")
            nvml.nvmlInit()
            uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
            return Gpu(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid))
        except Exception:  # noqa: BLE001 - whatever NVML cannot do, the measurement can do without
            return None

    def state(self) -> GpuState:
        """Look once."""
        nvml, handle = self._nvml, self._handle
        others = [p for p in nvml.nvmlDeviceGetComputeRunningProcesses(handle) if p.pid != os.getpid()]
        return GpuState(
            processes=len(others),
            throttled=bool(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) & self._harmful),
            clock_mhz=nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            temperature=nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            power_w=nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        )


class ForeignLoad:
    """Cores used by other processes since this was made: the machine's busy time less our own."""

    def __init__(self) -> None:
        self._started, self._times, self._own = time.perf_counter(), psutil.cpu_times(), _own_seconds()

    def cores(self) -> float:
        """Cores that others kept busy, or a hypervisor took away, on average."""
        elapsed = max(time.perf_counter() - self._started, 1e-9)
        others = (_busy_seconds(psutil.cpu_times()) - _busy_seconds(self._times)) - (_own_seconds() - self._own)
        return max(0.0, others / elapsed)

    def steal(self) -> float:
        """Cores that a hypervisor took away, on average."""
        elapsed = max(time.perf_counter() - self._started, 1e-9)
        return max(0.0, (_steal(psutil.cpu_times()) - _steal(self._times)) / elapsed)


def _steal(times: Any) -> float:
    return getattr(times, "steal", 0.0)  # Linux alone counts it


def _busy_seconds(times: Any) -> float:
    """CPU time that the machine has spent working, and that a hypervisor took away (steal)."""
    names = ("user", "nice", "system", "irq", "softirq", "steal")
    return sum(getattr(times, name, 0.0) for name in names)


def _own_seconds() -> float:
    own = os.times()
    return own.user + own.system
