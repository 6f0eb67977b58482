"""What is finished, durable the moment it ends: one small file for each result, named for what it is of.

The run's tables are made from these files, and `--resume` runs what is missing among them. A file is written
whole or not at all, only by the driver, and begins with the SHA-256 of its content: one that was damaged since
counts as missing, so its work is done again. JSON, since a resumed run may have ten thousand of them to read.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from cifar_tune.errors import OtherVersionError
from cifar_tune.records import BuildRecord, EpochRecord, EvaluationRecord, LatencyRecord, TrialRecord, recipe_of
from cifar_tune.store import (
    RENAMED,
    column_names,
    fillers,
    from_row,
    missing_required,
    replace_file,
    schema,
    seal,
    to_row,
    unseal,
)

R = TypeVar("R")
SUFFIX = ".json"


class Ledger:
    """The finished records of a run, below `<run>/ledger/`.

    Args:
        say: told, once, of each file that is damaged.
        kept: called when a result is on disk; a study elsewhere than on this disk sends it there.
    """

    def __init__(
        self, run: Path, say: Callable[[str], object] = print, kept: Callable[[], object] = lambda: None
    ) -> None:
        self.run, self._say, self._kept = run, say, kept
        self._said: set[Path] = set()

    def _folder(self, record_type: type) -> Path:
        return self.run / "ledger" / record_type.__name__

    def put_trial(self, record: TrialRecord, epochs: Sequence[EpochRecord] = ()) -> None:
        """Epochs first: where the trial's file stands, all of it is there."""
        if epochs:
            self._put(EpochRecord, record.trial_id, epochs)
        self._put(TrialRecord, record.trial_id, [record])

    def put_latency(self, record: LatencyRecord) -> None:
        """One measurement; one of the same thing takes the place of an earlier one."""
        key = latency_key(record.stage, record.checkpoint_sha256, record.variant, record.block)
        self._put(LatencyRecord, key, [record])

    def put_evaluation(self, record: EvaluationRecord) -> None:
        """One reading of the test set."""
        self._put(EvaluationRecord, f"{record.trial_id}--{record.variant}", [record])

    def put_build(self, record: BuildRecord) -> None:
        """One compilation of an architecture, or one export of a trial's weights."""
        of = (record.trial_id or record.model).replace(":", ".")
        self._put(BuildRecord, f"{of}--{record.variant}", [record])

    def _put(self, record_type: type, key: str, records: Sequence[Any]) -> None:
        content = _encoded([to_row(r) for r in records])
        path = self._folder(record_type) / f"{key}{SUFFIX}"
        replace_file(path, lambda temporary: Path(temporary).write_bytes(content))
        self._kept()

    def read(self, record_type: type[R]) -> list[R]:
        """All records of a type, in the order of their keys."""
        return [from_row(record_type, row) for row in self.rows(record_type)]

    def rows(self, record_type: type) -> list[dict[str, Any]]:
        """All records of a type as rows of its table."""
        return [row for path in self._files(record_type) for row in self._content(path, record_type)]

    def _files(self, record_type: type) -> list[Path]:
        return sorted(self._folder(record_type).glob(f"[!.]*{SUFFIX}"))

    def _content(self, path: Path, record_type: type) -> list[dict[str, Any]]:
        """A file's rows; none where it is damaged."""
        try:
            return _decoded(path.read_bytes(), record_type)
        except OtherVersionError as error:
            raise OtherVersionError(f"{path.relative_to(self.run)} is of another version: {error}") from error
        except ValueError:
            if path not in self._said:
                self._said.add(path)
                self._say(f"{path.relative_to(self.run)} is damaged: its work is done again")
            return []

    def whole_trials(self) -> set[str]:
        """Ids of the trials of which all is there; one whose epochs were damaged since is forgotten, to be done again.

        Raises:
            OtherVersionError: the run was begun by a version with other columns.
        """
        known = {row["trial_id"] for row in self.rows(EpochRecord)}
        for record_type in (LatencyRecord, EvaluationRecord, BuildRecord):
            for path in self._files(record_type)[:1]:
                self._content(path, record_type)
        whole: set[str] = set()
        for row in self.rows(TrialRecord):
            if row["epochs_run"] and row["trial_id"] not in known:
                (self._folder(TrialRecord) / f"{row['trial_id']}{SUFFIX}").unlink()
            else:
                whole.add(row["trial_id"])
        return whole

    def trials(self, stage: str, model: str, teacher_sha256: str | None) -> list[TrialRecord]:
        """The finished trials of one search; those of another teacher are of another search.

        Further seeds of its best recipe are of none.
        """
        wanted = (stage, model, teacher_sha256)
        found = [r for r in self.read(TrialRecord) if (r.stage, r.model, r.teacher_sha256) == wanted]
        return [r for r in found if recipe_of(r.trial_id) == r.trial_id]

    def latency_keys(self, protocol: str) -> set[str]:
        """What need not be measured again, as `latency_key` names it; what failed or was refused is tried again.

        Args:
            protocol: rows of another are measured again.
        """
        return {
            latency_key(r.stage, r.checkpoint_sha256, r.variant, r.block)
            for r in self.read(LatencyRecord)
            if r.status not in ("failed", "skipped") and r.protocol == protocol
        }


def latency_key(stage: str, checkpoint_sha256: str, variant: str, block: int = 0) -> str:
    """What a latency measurement is of: a file's name."""
    return f"{stage}-{variant}-{block}-{hashlib.sha256(checkpoint_sha256.encode()).hexdigest()[:24]}"


def _encoded(rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows as a file's content; bytes become base64."""
    return seal([{k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in r.items()} for r in rows])


def _decoded(content: bytes, record_type: type) -> list[dict[str, Any]]:
    """The inverse of `_encoded`; a column that an older version did not write has its filler.

    Raises:
        ValueError: the content is not what was written.
        OtherVersionError: a column is unknown, or one is missing that is required.
    """
    columns = schema(record_type)
    rows = [_whole(row, record_type) for row in unseal(content)]
    for name in (f.name for f in columns if pa.types.is_binary(f.type)):
        for row in rows:
            row[name] = None if row[name] is None else base64.b64decode(row[name])
    return rows


def _whole(row: dict[str, Any], record_type: type) -> dict[str, Any]:
    """The row with every column of the record type, in their order."""
    columns = column_names(record_type)
    row = {RENAMED.get(name, name): value for name, value in row.items()}
    if list(row) == columns:
        return row
    others = sorted([*missing_required(record_type, row), *(name for name in row if name not in columns)])
    if others:
        raise OtherVersionError(f"columns that only one has: {', '.join(others)}")
    given = fillers(record_type) | row
    return {name: given[name] for name in columns}
