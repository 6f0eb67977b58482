"""What is shipped, and what came of checking it. Imports only the light part of the library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cifar_tune.records import LatencyRecord, TrialRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Shipment:
    """What is shipped, and what its card says."""

    row: LatencyRecord
    """Of the grid."""
    recipe: TrialRecord | None
    """How its weights were trained; None: they were given."""
    checkpoint: Path
    data: str
    """What the data set is called."""
    train_images: int
    test_images: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    accuracy_interval: tuple[float, float]
    """95 % interval of the row's test accuracy, fractions."""
    reason: str
    """Why it was chosen."""
    command: str
    """What gave the run."""
    fresh: LatencyRecord | None = None
    """A row of its confirmation, summed up (`blocks.summarised`): the card states its figures; None: those of `row`."""
    is_confirmed: bool | None = None
    """Whether these new processes repeat the race that chose it; None: it was not measured again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """What the written folder answered in a fresh process, without this package."""

    ok: bool
    images: int
    """The first of the test images, as many as time allowed."""
    accuracy: float | None = None
    agreement: float | None = None
    """Share of these images given the same class as FP32 eager gives."""
    problem: str | None = None

    def __str__(self) -> str:
        if self.accuracy is None or self.agreement is None:
            return f"NOT verified: {self.problem}"
        read = (
            f"accuracy {self.accuracy:.2%}, agreement with FP32 eager {self.agreement:.2%} on {self.images} test images"
        )
        return f"verified in a fresh process: {read}" if self.ok else f"NOT verified: {self.problem} ({read})"
