"""NVML for tests on machines without a GPU: the names are those of pynvml."""

from types import SimpleNamespace


class FakeNvml:
    """NVML's answers for one card, in the shape that pynvml gives them."""

    NVMLError = RuntimeError
    nvmlClocksThrottleReasonHwSlowdown, nvmlClocksThrottleReasonSwThermalSlowdown = 8, 32
    nvmlClocksThrottleReasonSwPowerCap, NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 4, 1, 0

    def __init__(self, pids: list[int], reasons: int = 0) -> None:
        self.pids, self.reasons = pids, reasons

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetComputeRunningProcesses(self, _: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid) for pid in self.pids]

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _: str) -> int:
        return self.reasons

    def nvmlDeviceGetPowerUsage(self, _: str) -> int:
        return 90_000

    def nvmlDeviceGetClockInfo(self, _: str, __: int) -> int:
        return 1500

    def nvmlDeviceGetTemperature(self, _: str, __: int) -> int:
        return 40
