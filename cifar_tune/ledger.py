"""What is finished, durable the moment it ends: one small Parquet file a record, under a key of its content.

The run's tables are made from these files, and `--resume` runs what is missing among them. A file is written
whole or not at all, by the driver alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from cifar_tune.records import BuildRecord, EpochRecord, EvaluationRecord, LatencyRecord, TrialRecord
from cifar_tune.store import from_row, schema, write_records

R = TypeVar("R")


class Ledger:
    """The finished records of a run, below `<run>/ledger/`."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def _folder(self, record_type: type) -> Path:
        return self.run / "ledger" / record_type.__name__

    def put_trial(self, record: TrialRecord, epochs: Sequence[EpochRecord] = ()) -> None:
        """Epochs first: where the trial's file stands, all of it is there."""
        if epochs:
            write_records(self._folder(EpochRecord) / f"{record.trial_id}.parquet", EpochRecord, epochs)
        self._put(record, record.trial_id)

    def put_latency(self, record: LatencyRecord) -> None:
        """One measurement; one of the same thing takes the place of an earlier one."""
        self._put(record, latency_key(record.stage, record.checkpoint_sha256, record.variant, record.repeat))

    def put_evaluation(self, record: EvaluationRecord) -> None:
        """One reading of the test set."""
        self._put(record, f"{record.trial_id}--{record.variant}")

    def put_build(self, record: BuildRecord) -> None:
        """One compilation of an architecture, or one export of a trial's weights."""
        self._put(record, f"{(record.trial_id or record.model).replace(':', '.')}--{record.variant}")

    def _put(self, record: Any, key: str) -> None:
        write_records(self._folder(type(record)) / f"{key}.parquet", type(record), [record])

    def read(self, record_type: type[R]) -> list[R]:
        """All records of a type, in the order of their keys."""
        return [from_row(record_type, row) for row in self.table(record_type).to_pylist()]

    def table(self, record_type: type) -> pa.Table:
        """All records of a type as one table."""
        files = sorted(self._folder(record_type).glob("*.parquet"))
        return pa.concat_tables([schema(record_type).empty_table(), *(pq.read_table(f) for f in files)])

    def trials(self, stage: str, model: str, teacher_sha256: str | None) -> list[TrialRecord]:
        """The finished trials of one search; those of another teacher are of another search."""
        wanted = (stage, model, teacher_sha256)
        return [r for r in self.read(TrialRecord) if (r.stage, r.model, r.teacher_sha256) == wanted]

    def latency_keys(self) -> set[str]:
        """What need not be measured again, as `latency_key` names it; what failed or was refused is tried again."""
        return {
            latency_key(r.stage, r.checkpoint_sha256, r.variant, r.repeat)
            for r in self.read(LatencyRecord)
            if r.status not in ("failed", "skipped")
        }


def latency_key(stage: str, checkpoint_sha256: str, variant: str, repeat: int = 0) -> str:
    """What a latency measurement is of: a file's name."""
    return f"{stage}-{variant}-{repeat}-{hashlib.sha256(checkpoint_sha256.encode()).hexdigest()[:24]}"
