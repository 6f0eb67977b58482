"""What machine this is, and the evidence that nobody else used it while we measured."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
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
CLOCK_TICK = 0.02
"""Seconds by which the system's account of CPU time may be off."""
RUNTIME_PACKAGES = ("nncf", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torchao")
"""What decides how fast a model runs, beside PyTorch."""


def resolve_device(requested: str) -> str:
    """cpu or cuda; ValueError where cuda is asked for and not there."""
    available = torch.cuda.is_available()
    check(requested != "cuda" or available, "device", requested, "cpu or auto: PyTorch finds no CUDA device here")
    return "cuda" if available and requested != "cpu" else "cpu"


def usable_cores() -> list[int]:
    """Numbers of the logical cores that this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def usable_cpus() -> int:
    """How many logical cores this process may run on."""
    return len(usable_cores())


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
        runtimes=" ".join(f"{name}=={version}" for name in RUNTIME_PACKAGES if (version := _version(name))),
        git_commit=git_commit(),
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's model name."""
    return _of_cpu("model name") or platform.processor() or platform.machine()


def overflows_int8() -> bool:
    """Whether sums of INT8 products may overflow here: an x86 processor without VNNI adds pairs of them in 16 bits."""
    vnni = {"avx512_vnni", "avx_vnni"} & set(_of_cpu("flags").split())
    return platform.machine() in ("x86_64", "AMD64") and not vnni


def _of_cpu(key: str) -> str:
    """What Linux says of the first processor; empty elsewhere, or where it says nothing."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    values = [line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key]
    return values[0] if values else ""


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


def measured_cores(threads: int) -> list[int]:
    """The cores of a measurement: the last ones, so that whoever starts it has the first where there are more."""
    return usable_cores()[-threads:]


def pin_to_cores(threads: int) -> list[int]:
    """Keep this process on as many cores as it has threads; returns them, empty where the system cannot pin."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = measured_cores(threads)
    os.sched_setaffinity(0, cores)
    return cores


def free_memory() -> int:
    """Bytes that may still be taken: of the machine, or of the container where that allows less."""
    return min([psutil.virtual_memory().available, *map(_left_in, _control_groups())])


def _control_groups() -> list[Path]:
    """Folders of the control groups that may limit this process's memory: its own, and the container's."""
    listed = Path("/proc/self/cgroup")
    lines = [line.split(":", 2) for line in listed.read_text().splitlines()] if listed.exists() else []
    found: list[Path] = []
    for _, controllers, path in lines:
        if controllers in ("", "memory"):
            root = Path("/sys/fs/cgroup", controllers)
            found += [root / path.strip("/"), root]
    return found


def _left_in(group: Path) -> int:
    """Bytes that a control group leaves: its limit less what is in use and cannot be given back."""
    for limit, used, inactive in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number, and no limit
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            most, in_use = (int((group / name).read_text()) for name in (limit, used))
            return most - in_use + int(stat.get(inactive, 0))
    return sys.maxsize


def slept_seconds() -> float:
    """Seconds since the start that the machine has slept; 0 where the system does not tell."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class DeviceWatch:
    """What others did to the device while windows of samples were taken, and the evidence for the row.

    On a CPU: use of the measured cores by other processes, and what the hypervisor took of them (steal). Those are the
    cores that this process may run on: what works on others does not count. On a GPU also other processes on it,
    throttling, clock, temperature and power, as NVML says.

    Args:
        gpu: looked at before and after each window; None: not by this process.
        load: counts what others do in a window; None: all but this process are others.
    """

    def __init__(self, device: str, gpu: Gpu | None = None, load: Callable[[], ForeignLoad] | None = None) -> None:
        self._is_gpu = device == "cuda"
        self._gpu, self._uuid = gpu, None if gpu is None else gpu.uuid
        self._new_load = load or ForeignLoad
        self._load = self._new_load()
        self._worst = 0.0
        self._steal = 0.0
        self._window: list[GpuState] = []
        self._gpu_seen: list[GpuState] = []

    def start(self) -> None:
        """A window begins."""
        self._load, self._window = self._new_load(), []
        if self._gpu is not None:
            self._window.append(self._gpu.state())

    def saw(self, states: Sequence[GpuState], uuid: str | None) -> None:
        """What another process has seen of the GPU in this window."""
        self._window += states
        self._uuid = uuid

    def disturbed(self) -> bool:
        """Whether others used the device in the window that ends now."""
        foreign, steal = self._load.cores(), self._load.steal()
        self._worst, self._steal = max(self._worst, foreign), max(self._steal, steal)
        disturbed = self._load.seconds() > CONTENDED_CORES * self._load.elapsed() + CLOCK_TICK
        if self._gpu is not None:
            self._window.append(self._gpu.state())
        self._gpu_seen += self._window
        return disturbed or any(state.processes or state.throttled for state in self._window)

    @property
    def blind(self) -> str | None:
        """Why nothing tells whether others used the GPU; None on a CPU, and where NVML tells it."""
        if not self._is_gpu:
            return None
        if not self._gpu_seen:
            return "NVML is not at hand, so nothing tells whether others used the GPU"
        if all(state.processes is None for state in self._gpu_seen):
            return "NVML does not list this process, so nothing tells whether others used the GPU"
        return None

    def evidence(self) -> dict[str, Any]:
        """The worst of all windows, as fields of LatencyRecord."""

        def seen(name: str, worst: Callable[[list[Any]], Any] = max) -> Any:
            values = [getattr(state, name) for state in self._gpu_seen if getattr(state, name) is not None]
            return worst(values) if values else None

        return {
            "foreign_cpu": self._worst,
            "steal_cpu": self._steal,
            "load_average": os.getloadavg()[0],
            "gpu_uuid": self._uuid,
            "gpu_processes": seen("processes"),
            "gpu_throttled": seen("throttled"),
            "gpu_clock_mhz": seen("clock_mhz", min),
            "gpu_temperature": seen("temperature"),
            "gpu_power_w": seen("power_w"),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuState:
    """One look at a GPU through NVML."""

    processes: int | None
    """Processes that compute on it, those of this study aside."""
    throttled: bool | None
    """The clock is held down by heat, power or hardware protection."""
    clock_mhz: int | None
    temperature: int | None
    power_w: float | None


class Gpu:
    """The GPU that PyTorch uses, as NVML sees it."""

    def __init__(self, nvml: ModuleType, uuid: str) -> None:
        self._nvml, self._handle, self.uuid = nvml, nvml.nvmlDeviceGetHandleByUUID(uuid), uuid
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
            return Gpu(nvml, f"GPU-{torch.cuda.get_device_properties(0).uuid}")
        except Exception:  # noqa: BLE001 - whatever NVML cannot do, the measurement can do without
            return None

    def for_one_process(self) -> bool:
        """Whether only one process may use it at a time (compute mode EXCLUSIVE_PROCESS)."""
        try:
            return self._nvml.nvmlDeviceGetComputeMode(self._handle) == self._nvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS
        except self._nvml.NVMLError:
            return False

    def state(self) -> GpuState:
        """Look once; what this GPU does not tell is None."""
        nvml, handle = self._nvml, self._handle

        def ask(question: Callable[..., Any], *args: Any) -> Any:
            try:
                return question(handle, *args)
            except nvml.NVMLError:
                return None

        running = ask(nvml.nvmlDeviceGetComputeRunningProcesses)
        reasons = ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons)
        power = ask(nvml.nvmlDeviceGetPowerUsage)
        return GpuState(
            processes=None if running is None else _others([p.pid for p in running]),
            throttled=None if reasons is None else bool(reasons & self._harmful),
            clock_mhz=ask(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
            temperature=ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
            power_w=None if power is None else power / 1e3,
        )


def _others(pids: list[int]) -> int | None:
    """How many processes are not of this study; None where NVML counts them otherwise than we do (a container)."""
    if os.getpid() not in pids:
        return None
    own = psutil.Process()
    family = [*own.parents(), *(own.parent() or own).children()]  # the row's other processes wait for their turn
    return len(set(pids) - {os.getpid(), *(process.pid for process in family)})


class ForeignLoad:
    """What others did on some cores since this was made: the time that these were busy, less our own.

    Args:
        cores: logical cores; None: those that this process may run on. It must run on no others.
        own: CPU seconds so far of what is our own; None: of this process.
    """

    def __init__(self, cores: Collection[int] | None = None, own: Callable[[], float] | None = None) -> None:
        self._cores = usable_cores() if cores is None else cores
        self._own_seconds = own or own_seconds
        self._started, self._own = time.perf_counter(), self._own_seconds()
        self._busy, self._stolen = busy_seconds(self._cores)

    def elapsed(self) -> float:
        """Seconds since this was made."""
        return max(time.perf_counter() - self._started, 1e-9)

    def seconds(self) -> float:
        """CPU seconds that others used, or a hypervisor took away."""
        busy, _ = busy_seconds(self._cores)
        return max(0.0, busy - self._busy - (self._own_seconds() - self._own))

    def cores(self) -> float:
        """Cores that others kept busy, or a hypervisor took away, on average."""
        return self.seconds() / self.elapsed()

    def steal(self) -> float:
        """Cores that a hypervisor took away, on average."""
        _, stolen = busy_seconds(self._cores)
        return max(0.0, (stolen - self._stolen) / self.elapsed())


def busy_seconds(cores: Collection[int]) -> tuple[float, float]:
    """CPU seconds since the start that these cores have worked, steal included; and those of steal.

    Of the whole machine where the system does not count each of them.
    """
    counted: list[Any] = psutil.cpu_times(percpu=True)
    there = max(cores, default=0) < len(counted)
    times = [counted[core] for core in cores] if there else [psutil.cpu_times()]
    names = ("user", "nice", "system", "irq", "softirq", "steal")
    busy = sum(getattr(of, name, 0.0) for of in times for name in names)
    return busy, sum(getattr(of, "steal", 0.0) for of in times)  # Linux only counts steal


def own_seconds() -> float:
    """CPU seconds that this process has used."""
    own = os.times()
    return own.user + own.system
