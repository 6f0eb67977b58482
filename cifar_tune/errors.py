"""Every exception of this package, and how one becomes a row."""

from __future__ import annotations

from cifar_tune.records import LatencyStatus


class UsageError(ValueError):
    """What the user gave cannot be used; the message is one line that says what is allowed."""


class StudyFailedError(RuntimeError):
    """The run cannot go on; the message is one line that says why."""


class InterruptedRunError(RuntimeError):
    """The user stopped the run; the message is one line that says how to go on."""


class BucketError(OSError):
    """The storage did not do what it was asked, for good; the message is one line."""


class DeviceTakenError(RuntimeError):
    """Another study measures on the device; the message says which process."""


class DisturbedError(RuntimeError):
    """Others used the device to the last retry, and the user asked to refuse that."""


class ProcessDiedError(RuntimeError):
    """A fresh process died: out of memory, or a crash in native code."""


class UnsupportedError(RuntimeError):
    """The variant cannot run on this machine; the message says why. It becomes a row, and the run goes on."""


class TrainingDivergedError(RuntimeError):
    """The loss is not finite: the trial has failed, and its last weights are worthless."""


class OtherVersionError(ValueError):
    """A file is whole, and has other columns than this version's."""


class RefusedError(ValueError):
    """An upload that is not classified; the message is one line for who sent it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def failure(error: BaseException) -> str:
    """An exception in one line, for a row."""
    if isinstance(error, ProcessDiedError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:500]


def failed_status(error: BaseException) -> LatencyStatus:
    """Whether a variant cannot run here, was refused, or failed."""
    if isinstance(error, (DisturbedError, DeviceTakenError)):
        return "skipped"
    return "unsupported" if isinstance(error, UnsupportedError) else "failed"
