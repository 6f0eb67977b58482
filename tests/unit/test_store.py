"""Records to Parquet and back, whole or not at all."""

import dataclasses
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pandas as pd
import pyarrow.parquet as pq
import pytest
from analysis_data import latency, trial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cifar_tune.errors import OtherVersionError
from cifar_tune.records import BuildRecord, EpochRecord, EvaluationRecord, LatencyRecord, TrialRecord
from cifar_tune.runs.ledger import Ledger
from cifar_tune.store import (
    files_below,
    note_checksums,
    read_records,
    read_table,
    replace_file,
    schema,
    seal,
    unseal,
    verify_checksum,
    write_records,
)

RECORDS = (TrialRecord, EpochRecord, LatencyRecord, EvaluationRecord, BuildRecord)


@pytest.mark.parametrize("kind", RECORDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_record_to_parquet_to_record_is_identity(kind: type, data: st.DataObject, tmp_path: Path) -> None:
    st.register_type_strategy(float, st.floats(allow_nan=False))
    st.register_type_strategy(int, st.integers(-(2**63), 2**63 - 1))
    st.register_type_strategy(str, st.text(st.characters(exclude_categories=["Cs"])))
    hints = get_type_hints(kind)
    values = {f.name: data.draw(st.from_type(hints[f.name]), label=f.name) for f in dataclasses.fields(kind)}
    record = kind(**values)
    write_records(tmp_path / "r.parquet", kind, [record])
    assert read_records(tmp_path / "r.parquet", kind) == [record]


@pytest.mark.parametrize("kind", RECORDS)
def test_no_records_make_a_table_with_all_columns(kind: type, tmp_path: Path) -> None:
    write_records(tmp_path / "r.parquet", kind, [])
    assert list(pd.read_parquet(tmp_path / "r.parquet").columns) == schema(kind).names


def test_columns_follow_the_contract() -> None:
    named = (
        "run trial_id model arm stage checkpoint_sha256 variant runtime precision compile channels_last status error "
    )
    named += (
        "test_accuracy correct agreement samples_ms reference_ms mean_ms p50_ms p95_ms p99_ms std_ms compile_seconds "
    )
    named += "artifact_mb checkpoint_mb speedup contended"
    assert set(named.split()) <= set(schema(LatencyRecord).names)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")

    def fail(_: str) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        replace_file(tmp_path / "f", fail)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("f", "old")]


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    write_records(tmp_path / "r.parquet", TrialRecord, [trial()])
    (tmp_path / "plain").write_text("")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("r.parquet", "plain")]
    assert modes[0] == modes[1]


def test_ledger_gives_back_what_was_put(tmp_path: Path) -> None:
    ledger, record = Ledger(tmp_path), trial()
    epoch = EpochRecord(
        trial_id=record.trial_id, epoch=1, lr=0.1, train_loss=1.0, train_accuracy=0.5, val_loss=1.0, val_accuracy=0.5,
        seconds=1.0, images_per_second=100.0,
    )  # fmt: skip
    ledger.put_trial(record, [epoch])
    assert (ledger.read(TrialRecord), ledger.read(EpochRecord)) == ([record], [epoch])


@pytest.mark.parametrize(
    "change", [{"variant": "other"}, {"stage": "confirm"}, {"block": 2}, {"checkpoint_sha256": "f"}]
)
def test_ledger_keeps_measurements_of_different_things_apart(change: dict[str, Any], tmp_path: Path) -> None:
    ledger, record = Ledger(tmp_path), latency()
    ledger.put_latency(record)
    ledger.put_latency(dataclasses.replace(record, **change))
    assert len(ledger.read(LatencyRecord)) == 2


def test_ledger_keeps_one_measurement_of_the_same_thing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.put_latency(latency(p50=1.0))
    ledger.put_latency(latency(p50=2.0))
    assert len(ledger.read(LatencyRecord)) == 1


@pytest.mark.parametrize("damage", [lambda c: c[:-9], lambda c: c.replace(b"0.5", b"0.6"), lambda c: b""])
def test_a_damaged_result_counts_as_missing_and_is_named(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    said: list[str] = []
    ledger, record = Ledger(tmp_path, said.append), trial(val_accuracy=0.5)
    ledger.put_trial(record)
    (path,) = (tmp_path / "ledger").rglob("*.json")
    path.write_bytes(damage(path.read_bytes()))
    assert (ledger.read(TrialRecord), ledger.read(TrialRecord)) == ([], [])
    assert said == [f"{path.relative_to(tmp_path)} is damaged: its work is done again"]


def test_a_result_of_another_version_is_refused_not_done_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.put_trial(trial())
    (path,) = (tmp_path / "ledger").rglob("*.json")
    (row,) = unseal(path.read_bytes())
    path.write_bytes(seal([{k: v for k, v in row.items() if k != "optimizer"} | {"novel": 1}]))
    with pytest.raises(OtherVersionError, match="of another version: columns that only one has: novel, optimizer"):
        ledger.whole_trials()


@pytest.mark.parametrize("column", ["note", "checkpoint", "env_git_commit"])
def test_a_result_of_a_version_without_a_nullable_column_is_read_with_none(column: str, tmp_path: Path) -> None:
    ledger, record = Ledger(tmp_path), trial(note=None, checkpoint=None)
    ledger.put_trial(record)
    (path,) = (tmp_path / "ledger").rglob("*.json")
    (row,) = unseal(path.read_bytes())
    path.write_bytes(seal([{k: v for k, v in row.items() if k != column}]))
    assert ledger.read(TrialRecord) == [record]


def cut(path: Path, *columns: str) -> Path:
    """The table as a version would have left it that did not have these columns."""
    pq.write_table(pq.read_table(path).drop(list(columns)), path)
    return path


def test_a_table_without_nullable_columns_is_read_with_none(tmp_path: Path) -> None:
    record = latency()
    write_records(tmp_path / "r.parquet", LatencyRecord, [record])
    path = cut(tmp_path / "r.parquet", "auroc", "samples_ms", "correct", "env_git_commit")
    wanted = dataclasses.replace(record, auroc=None, samples_ms=None, correct=None)
    assert read_records(path, LatencyRecord) == [wanted]


def test_a_table_without_a_column_that_has_a_default_is_read_with_it(tmp_path: Path) -> None:
    record = latency(block=3)
    write_records(tmp_path / "r.parquet", LatencyRecord, [record])
    path = cut(tmp_path / "r.parquet", "block", "env_runtimes")
    assert read_records(path, LatencyRecord) == [dataclasses.replace(record, block=0)]


def test_a_column_of_an_older_name_is_read_under_todays(tmp_path: Path) -> None:
    write_records(tmp_path / "r.parquet", LatencyRecord, [latency(block=3)])
    table = pq.read_table(tmp_path / "r.parquet")
    pq.write_table(table.rename_columns(["repeat" if n == "block" else n for n in table.column_names]), tmp_path / "r")
    assert [r.block for r in read_records(tmp_path / "r", LatencyRecord)] == [3]


def test_a_column_that_is_filled_in_has_the_type_of_the_schema(tmp_path: Path) -> None:
    write_records(tmp_path / "r.parquet", LatencyRecord, [latency()])
    path = cut(tmp_path / "r.parquet", "settled", "samples_ms", "note", "auroc")
    read, wanted = read_table(path, LatencyRecord).schema, schema(LatencyRecord)
    assert all(read.field(name).type == wanted.field(name).type for name in wanted.names)


def test_a_table_without_a_required_column_is_refused_with_its_name(tmp_path: Path) -> None:
    write_records(tmp_path / "r.parquet", LatencyRecord, [latency()])
    path = cut(tmp_path / "r.parquet", "zeroed", "auroc")
    with pytest.raises(OtherVersionError, match=r"r.parquet is of another version, without zeroed$"):
        read_records(path, LatencyRecord)


def test_a_trial_whose_epochs_are_damaged_is_done_again(tmp_path: Path) -> None:
    ledger, record = Ledger(tmp_path, lambda _: None), trial(epochs_run=1)
    epoch = EpochRecord(
        trial_id=record.trial_id, epoch=1, train_loss=1.0, train_accuracy=0.5, val_loss=1.0, val_accuracy=0.5, lr=0.1,
        seconds=1.0, images_per_second=9.0,
    )  # fmt: skip
    ledger.put_trial(record, [epoch])
    assert ledger.whole_trials() == {record.trial_id}
    (path,) = (tmp_path / "ledger" / "EpochRecord").glob("*.json")
    path.write_bytes(path.read_bytes()[:-9])
    assert ledger.whole_trials() == set()
    assert ledger.read(TrialRecord) == []


def test_damaged_checksums_are_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("a")
    (tmp_path / "checksums.json").write_text("damaged")
    note_checksums(tmp_path, ["f"])
    verify_checksum(tmp_path / "f")


def test_a_folder_that_goes_while_files_are_listed_is_no_error(tmp_path: Path) -> None:
    for name in ("a/f", "b/f"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    listed = files_below(tmp_path)
    first = next(listed)
    for folder in ("a", "b"):
        shutil.rmtree(tmp_path / folder)
    assert [first, *listed] == [first]


def test_a_table_of_the_ledger_has_no_half_written_files(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.put_trial(trial())
    (path,) = (tmp_path / "ledger").rglob("*.json")
    path.with_name(f".{path.name}.0.part").write_bytes(b"half")
    assert len(ledger.read(TrialRecord)) == 1


def test_a_measurement_under_another_protocol_is_due_again(tmp_path: Path) -> None:
    ledger, record = Ledger(tmp_path), latency()
    ledger.put_latency(record)
    assert len(ledger.latency_keys(record.protocol)) == 1
    assert ledger.latency_keys("another") == set()


def test_a_file_that_is_not_what_was_noted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("a")
    note_checksums(tmp_path, ["f"])
    verify_checksum(tmp_path / "f")
    (tmp_path / "f").write_text("b")
    with pytest.raises(ValueError, match="f is damaged"):
        verify_checksum(tmp_path / "f")
