"""Runs in S3 storage, against a real server that fails as networks and servers do."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import BUCKET, Proxy, s3_server

from analysis.frames import find_run
from cifar_tune.bucket import Bucket, download
from cifar_tune.errors import BucketError, StudyFailedError, UsageError
from cifar_tune.runs.mirror import Mirror

pytestmark = pytest.mark.timeout(300)
URI = f"s3://{BUCKET}/prefix"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[Proxy]:
    with s3_server() as started:
        yield started


@pytest.fixture
def bucket(server: Proxy) -> Bucket:
    """An empty bucket."""
    server.faults, server.share = [], {}
    found = Bucket(URI)
    for name in found.names():
        found.delete(name)
    return found


def mirror(bucket: Bucket, folder: Path, **more: float) -> Mirror:
    said: list[str] = []
    return Mirror(bucket, folder / "run", said.append, **more)


def write(folder: Path, name: str, text: str = "x") -> None:
    path = folder / "run" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_what_is_put_can_be_read(bucket: Bucket) -> None:
    bucket.put("a/b", b"content")
    stored = bucket.get("a/b")
    assert stored is not None
    assert stored.content == b"content"
    assert bucket.names("a/") == ["a/b"]


def test_what_is_not_there_is_none(bucket: Bucket) -> None:
    assert bucket.get("a") is None


def test_nothing_is_put_over_what_is_there(bucket: Bucket) -> None:
    assert bucket.put("a", b"first", only_if_absent=True) is not None
    assert bucket.put("a", b"second", only_if_absent=True) is None


def test_nothing_is_put_over_another_version(bucket: Bucket) -> None:
    version = bucket.put("a", b"first")
    bucket.put("a", b"second")
    assert bucket.put("a", b"third", only_if=version) is None


def test_a_bucket_that_is_not_there_is_an_error_of_one_line(bucket: Bucket) -> None:
    with pytest.raises(BucketError, match=r"s3://nothing/here cannot be written: .*NoSuchBucket") as raised:
        Bucket("s3://nothing/here").put("a", b"")
    assert "\n" not in str(raised.value)


def test_a_second_driver_is_told_who_holds_the_run(bucket: Bucket, tmp_path: Path) -> None:
    first, second = mirror(bucket, tmp_path / "a"), mirror(bucket, tmp_path / "b")
    with first.held(), pytest.raises(UsageError, match=f"is being written by process {os.getpid()} on "), second.held():
        pass


def test_a_run_is_free_when_its_driver_has_ended(bucket: Bucket, tmp_path: Path) -> None:
    with mirror(bucket, tmp_path / "a").held():
        pass
    with mirror(bucket, tmp_path / "b").held():
        pass


def test_the_lease_of_a_dead_driver_is_taken(bucket: Bucket, tmp_path: Path) -> None:
    mirror(bucket, tmp_path / "a")._acquire()
    with mirror(bucket, tmp_path / "b", lease_seconds=0.0).held():
        pass


def test_a_driver_whose_lease_was_taken_stops(bucket: Bucket, tmp_path: Path) -> None:
    first = mirror(bucket, tmp_path / "a")
    first._acquire()
    with mirror(bucket, tmp_path / "b", lease_seconds=0.0).held():
        first._renew()
        with pytest.raises(StudyFailedError, match="another driver has taken run run"):
            first.push()


def test_a_lease_is_held_though_the_answer_was_lost(bucket: Bucket, server: Proxy, tmp_path: Path) -> None:
    server.faults = ["cut after"]
    with mirror(bucket, tmp_path).held():
        assert json.loads((tmp_path / "run" / "writer.json").read_text())["process"] == os.getpid()


def test_a_renewal_whose_answers_were_all_lost_is_ours_all_the_same(
    bucket: Bucket, server: Proxy, tmp_path: Path
) -> None:
    held = mirror(bucket, tmp_path)
    held._acquire()
    server.share = {"cut after": 1.0}
    with pytest.raises(BucketError):
        held._renew()
    server.share = {}
    held._renew()
    held.push()


def test_all_files_are_in_the_storage_at_the_end(bucket: Bucket, tmp_path: Path) -> None:
    with mirror(bucket, tmp_path).held():
        write(tmp_path, "ledger/TrialRecord/t.json")
        write(tmp_path, "report.md")
    assert {"run/ledger/TrialRecord/t.json", "run/report.md"} <= set(bucket.names())


def test_a_result_is_there_after_what_it_rests_on(bucket: Bucket, tmp_path: Path) -> None:
    held = mirror(bucket, tmp_path)
    for name in ("ledger/TrialRecord/t.json", "checkpoints/t/best.safetensors", "study.json"):
        write(tmp_path, name)
    assert [name for name, _ in held._files()][-1] == "ledger/TrialRecord/t.json"


def test_what_was_removed_is_removed_there(bucket: Bucket, tmp_path: Path) -> None:
    held = mirror(bucket, tmp_path)
    with held.held():
        write(tmp_path, "checkpoints/t/best.safetensors")
        held.push()
        (tmp_path / "run" / "checkpoints" / "t" / "best.safetensors").unlink()
    assert "run/checkpoints/t/best.safetensors" not in bucket.names()


def test_another_machine_goes_on_with_all_of_it(bucket: Bucket, tmp_path: Path) -> None:
    with mirror(bucket, tmp_path / "a").held():
        write(tmp_path / "a", "ledger/TrialRecord/t.json", "result")
    with mirror(bucket, tmp_path / "b").held():
        assert (tmp_path / "b" / "run" / "ledger" / "TrialRecord" / "t.json").read_text() == "result"


def test_a_folder_that_is_older_than_the_storage_gives_way(bucket: Bucket, tmp_path: Path) -> None:
    with mirror(bucket, tmp_path / "a").held():
        write(tmp_path / "a", "f", "old")
    with mirror(bucket, tmp_path / "b").held():
        write(tmp_path / "b", "f", "new")
    with mirror(bucket, tmp_path / "a").held():
        assert (tmp_path / "a" / "run" / "f").read_text() == "new"


def test_what_a_dead_driver_had_not_sent_is_sent_by_the_next(bucket: Bucket, tmp_path: Path) -> None:
    dead = mirror(bucket, tmp_path)
    dead._acquire()
    dead.push()
    write(tmp_path, "late")
    with mirror(bucket, tmp_path, lease_seconds=0.0).held():
        pass
    assert "run/late" in bucket.names()


@pytest.mark.parametrize("fault", ["slow", "error", "cut", "cut after"])
def test_passing_faults_lose_nothing(bucket: Bucket, server: Proxy, fault: str, tmp_path: Path) -> None:
    with mirror(bucket, tmp_path).held():
        for number in range(8):
            write(tmp_path, f"f{number}", str(number))
        server.share = {fault: 0.3}
    server.share = {}
    for number in range(8):
        stored = bucket.get(f"run/f{number}")
        assert stored is not None
        assert stored.content == str(number).encode()


def test_a_study_goes_on_while_the_storage_is_away_and_sends_all_later(
    bucket: Bucket, server: Proxy, tmp_path: Path
) -> None:
    held = mirror(bucket, tmp_path)
    with held.held():
        write(tmp_path, "f")
        server.share = {"cut": 1.0}
        held.push()
        server.share = {}
    assert "run/f" in bucket.names()


@pytest.mark.parametrize("name", ["../escaped", "a/../../escaped"])
def test_a_name_that_leaves_the_run_is_refused(bucket: Bucket, name: str, tmp_path: Path) -> None:
    bucket.put(f"run/{name}", b"x")
    with pytest.raises(ValueError, match="leaves the run"):
        download(bucket, "run", tmp_path / "run")
    assert not (tmp_path / "escaped").exists()


def test_a_run_that_is_not_there_is_refused_with_those_that_are(bucket: Bucket) -> None:
    bucket.put("mine/study.json", b"{}")
    with pytest.raises(ValueError, match=r"allowed is a run in .*: mine"):
        find_run(f"{URI}/other")


def test_a_sweep_in_object_storage_through_faults(bucket: Bucket, server: Proxy, tmp_path: Path) -> None:
    server.share = {"slow": 0.05, "error": 0.05, "cut": 0.05, "cut after": 0.05}
    ended = subprocess.run(
        [sys.executable, ROOT / "sweeps" / "teacher_search.py", "--preset", "chaos", "--storage", URI, "--name", "run"],
        capture_output=True, text=True, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)}, timeout=250,
    )  # fmt: skip
    server.share = {}
    assert ended.returncode == 0, ended.stderr[-2000:]
    name = ended.stdout.strip().splitlines()[-1].removeprefix(f"{URI}/")
    assert {name, "run/trials.parquet", "run/study.json"} <= set(bucket.names())
