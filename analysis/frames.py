"""A run's folder -> DataFrames.

The only reader of run folders in the analysis: everything after it works on frames and plain rows.
"""

# pandas' own annotations leave these unknown:
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from cifar_tune.bucket import fetched, is_uri
from cifar_tune.config import RaceConfig, Variant, check
from cifar_tune.errors import OtherVersionError
from cifar_tune.records import EpochRecord, ImportanceRecord, LatencyRecord, ServingRecord, TrialRecord
from cifar_tune.store import read_table, verify_checksum
from cifar_tune.study import read_content

Row = dict[str, Any]
"""One row of a frame; a missing value is None, whatever the column's type."""

STORAGE = Path("ray_results")
_CARD_KEYS = {"trial_id", "variant", "verification"}
_VERIFICATION_KEYS = {"ok", "images", "accuracy", "agreement", "problem"}
_STUDY_KEYS = ("run", "config", "environment", "data", "command", "created_utc")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What a run left behind."""

    path: Path
    """The run's folder."""
    study: dict[str, Any]
    """Content of `study.json`: configuration, environment, data, command."""
    trials: pd.DataFrame
    """A row per training trial."""
    epochs: pd.DataFrame
    """A row per trial and epoch."""
    latency: pd.DataFrame
    """A row per measured model and variant."""
    importance: pd.DataFrame
    """A row per search and parameter; empty where there was no search."""
    serving: pd.DataFrame
    """A row per load that was put on the candidate behind HTTP; empty where none was."""
    card: dict[str, Any] | None
    """Content of `candidate/candidate.json`; None where no candidate has been written, or checked, yet."""

    @property
    def config(self) -> dict[str, Any]:
        """The fields of the study's StudyConfig."""
        return self.study["config"]

    @property
    def min_accuracy(self) -> float:
        """The accuracy constraint, 0 to 1."""
        return float(self.config["min_accuracy"])

    @property
    def latency_budget_ms(self) -> float | None:
        """The latency constraint, milliseconds of p50; None: there is none."""
        return self.config.get("latency_budget_ms")

    @property
    def most_contenders(self) -> int:
        """Most finalists of the race; a study of the older protocol had none, and has the default."""
        return int(self.config.get("race", {}).get("contenders", RaceConfig().contenders))

    @property
    def labelled(self) -> bool:
        """Whether the test images have labels, so that there is an accuracy."""
        return bool(self.study["data"].get("labelled", True))

    @property
    def test_images(self) -> int:
        """How many images stand behind `correct`."""
        return int(self.study["data"]["test_images"])


def asking(run: Run, min_accuracy: float | None = None, latency_budget_ms: float | None = None) -> Run:
    """The run's rows under another question; None: the study's own.

    Args:
        min_accuracy: what the candidate must hold, 0 to 1.
        latency_budget_ms: the p50 that it must hold, milliseconds.

    Raises:
        ValueError: no question of a study.

    """
    share, budget = min_accuracy, latency_budget_ms
    check(share is None or 0 < share <= 1, "min accuracy", share, "above 0, at most 1")
    check(budget is None or 0 < budget < math.inf, "latency budget", budget, "above 0 milliseconds")
    asked = {"min_accuracy": min_accuracy, "latency_budget_ms": latency_budget_ms}
    config = run.config | {name: value for name, value in asked.items() if value is not None}
    return dataclasses.replace(run, study=run.study | {"config": config})


def rows(frame: pd.DataFrame) -> list[Row]:
    """The frame's rows as dicts, with its index under `index` and None for every missing value."""
    columns: dict[str, list[Any]] = {"index": frame.index.tolist()}
    for name, column in frame.items():  # of a hundred columns: twice as fast as to_dict
        missing = cast("list[bool]", column.isna().tolist())
        columns[str(name)] = [None if gone else value for value, gone in zip(column.tolist(), missing, strict=True)]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def select(frame: pd.DataFrame, mask: Any) -> pd.DataFrame:
    """The rows of the frame where the mask is true."""
    return cast("pd.DataFrame", frame[mask])


def variant_of(row: Row) -> Variant:
    """The variant that a latency row measured."""
    return Variant(**{f.name: row[f.name] for f in dataclasses.fields(Variant)})


def label(row: Row) -> str:
    """What a reader calls a latency row."""
    return f"{row['model']} ({row['arm']}), {row['variant']}"


def load_run(run: str | Path, storage: str | Path = STORAGE) -> Run:
    """Read the run at a path, or of that name under `storage`.

    Raises:
        ValueError: there is no such run (its message lists those there are), or a file of it is missing or empty.

    """
    path = find_run(run, storage)
    return Run(
        path=path,
        study=_read_study(path / "study.json"),
        trials=_read_table(path / "trials.parquet", TrialRecord, may_be_empty=True),
        epochs=_read_table(path / "epochs.parquet", EpochRecord, may_be_empty=True),
        latency=_read_table(path / "latency.parquet", LatencyRecord),
        importance=_read_optional(path / "importance.parquet", ImportanceRecord),
        serving=_read_optional(path / "serving.parquet", ServingRecord),
        card=_read_card(path / "candidate" / "candidate.json"),
    )


def find_run(run: str | Path, storage: str | Path = STORAGE) -> Path:
    """The folder of a run; a path goes before a name. ValueError lists the runs under `storage`.

    Of a run in object storage it is a copy, which ends with the process.
    """
    if is_uri(str(run)):
        return fetched(str(run))
    if is_uri(str(storage)):
        return fetched(f"{storage}/{run}")
    for path in (Path(run), Path(storage) / run):
        if (path / "study.json").is_file():
            return path
    there = sorted(study.parent.name for study in Path(storage).glob("*/study.json"))
    known = ", ".join(there) or "none there"
    raise ValueError(f"run is {str(run)!r}; allowed is a path, or a run in {storage}: {known}")


def _read_study(path: Path) -> dict[str, Any]:
    verify_checksum(path)
    study = read_content(path.read_bytes(), str(path))
    missing = [key for key in _STUDY_KEYS if key not in study]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    return study


def _read_card(path: Path) -> dict[str, Any] | None:
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        whole = card.keys() >= _CARD_KEYS and card["verification"].keys() >= _VERIFICATION_KEYS
        return card if whole else None
    except (ValueError, TypeError, AttributeError, OSError):
        return None


def _read_optional(path: Path, record_type: type) -> pd.DataFrame:
    return _read_table(path, record_type, may_be_empty=True) if path.is_file() else pd.DataFrame()


def _read_table(path: Path, record_type: type, *, may_be_empty: bool = False) -> pd.DataFrame:
    if not path.is_file():
        raise ValueError(f"{path} is missing: the run has not come that far")
    verify_checksum(path)
    try:
        frame = cast("pd.DataFrame", read_table(path, record_type).to_pandas())
    except OtherVersionError:
        raise
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
    if frame.empty and not may_be_empty:
        raise ValueError(f"{path} has no rows: nothing to report")
    return frame
