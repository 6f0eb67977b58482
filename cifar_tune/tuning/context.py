"""What every step of a run works with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_tune.runs.ledger import Ledger
from cifar_tune.study import StudyConfig
from cifar_tune.tuning.cluster import ClusterInfo
from cifar_tune.tuning.progress import StudyView


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """A run at work: its study, its folder, its cluster, and where results and progress go."""

    study: StudyConfig
    run: Path
    """Its folder."""
    dataset: str
    """What the data set is called."""
    device: str
    """cpu or cuda."""
    ledger: Ledger
    view: StudyView
    info: ClusterInfo
    workbench: Any = None
    """The handle of the Workbench on the measuring node; None: nothing is measured."""
