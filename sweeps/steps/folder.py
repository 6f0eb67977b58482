"""A run's folder: where it is, who may write there, and whether a study may go on in it."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cifar_tune.bucket import Bucket, is_uri
from cifar_tune.config import check
from cifar_tune.data.datasets import ImageData
from cifar_tune.errors import BucketError, UsageError
from cifar_tune.records import Environment
from cifar_tune.runs.locks import LOCK
from cifar_tune.settings import settings_of
from cifar_tune.store import (
    PRETRAINED,
    files_below,
    is_temporary,
    note_checksums,
    replace_file,
    user_cache,
)
from cifar_tune.study import STUDY_FORMAT, StudyConfig, read_content, study_from
from sweeps.command import PROGRAM

PROBE = ".cifar_tune-may-write"
WRITTEN = ("ledger", PRETRAINED, "checkpoints", "teacher_logits", "errors", "candidate")
"""Folders of a run into which files are moved when they are whole."""
SAME_ON_RESUME = ("device_name", "cpu_count", "torch", "cifar_tune")
"""Of the environment: figures of one run come from one processor and one version."""
RUNTIMES = "runtimes"
"""Of the environment: versions of what may be added on resume, but not changed."""


def bucket_of(study: StudyConfig) -> Bucket | None:
    """The object storage that keeps the run; None: a folder does. ValueError: it cannot be written."""
    if not is_uri(study.storage):
        return None
    bucket = Bucket(study.storage)
    try:
        bucket.put(PROBE, b"")
        bucket.delete(PROBE)
    except BucketError as error:
        raise ValueError(f"storage is {study.storage!r}: {error}") from error
    return bucket


def run_folder(study: StudyConfig, bucket: Bucket | None = None) -> Path:
    """Where the run is or will be worked on. ValueError where it exists, does not exist, or cannot be written."""
    storage = Path(study.storage).absolute() if bucket is None else staging(bucket)
    check_writable(storage)
    if study.name is None:
        check(not study.resume, "resume", True, "only with --name RUN, the run to go on with")
        now = datetime.datetime.now(datetime.UTC)
        data = Path(study.data.source).resolve().name or "data"
        data = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in data).lstrip(".") or "data"
        return storage / f"{data}-{study.preset}-{now:%Y%m%dT%H%M%S}Z"
    run = storage / study.name
    there = files_of(run) if bucket is None else [k.partition("/")[2] for k in bucket.names(f"{study.name}/")]
    if study.resume:
        check("study.json" in there, "name", study.name, f"with --resume, a run in {study.storage}")
    elif any(name != LOCK for name in there):
        raise ValueError(
            f"run {study.name} exists in {study.storage}; go on with it by --resume, or choose another --name"
        )
    return run


def files_of(run: Path) -> list[str]:
    """What is at the top of a run's folder; none where there is no such folder."""
    return [p.name for p in run.iterdir() if not is_temporary(p)] if run.is_dir() else []


def staging(bucket: Bucket) -> Path:
    """Where the runs of an object storage are worked on, on the driver's disk."""
    return user_cache() / "runs" / hashlib.sha256(bucket.uri.encode()).hexdigest()[:16]


def check_writable(storage: Path) -> None:
    """ValueError where nothing can be written below a folder that may not exist yet."""
    nearest = existing(storage)
    writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    check(writable, "storage", str(storage), "a folder that can be written")


def check_room(run: Path, most: int) -> None:
    """UsageError where a run that may grow to `most` bytes finds less than it still needs."""
    there = 0
    for path in files_below(run):
        with contextlib.suppress(FileNotFoundError):  # another driver's, removed since it was listed
            there += path.stat().st_size
    free = shutil.disk_usage(existing(run)).free
    if free < most - there:
        raise UsageError(
            f"storage {run.parent} has {free / 1e6:.0f} MB free; the run may need {(most - there) / 1e6:.0f} MB"
        )


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    while not path.exists():
        path = path.parent
    return path


def tidy(run: Path, ended: Collection[str]) -> None:
    """Remove what a driver that died left half done: temporary files, and weights of trials that are not in `ended`."""
    for folder in (run, *(p for name in WRITTEN for p in (run / name).glob("**"))):
        for path in folder.glob(".*"):
            if is_temporary(path):
                path.unlink(missing_ok=True)
    for folder in (run / "checkpoints").glob("*"):
        if folder.name not in ended:
            shutil.rmtree(folder, ignore_errors=True)


def check_same_study(before: Mapping[str, Any], study: StudyConfig, data: ImageData) -> None:
    """ValueError names the options, and the images, that differ from the run's own and would change its results.

    Args:
        before: content of the run's `study.json`, in today's format.
    """
    own = study_from(before["config"])
    kept = [setting for setting in settings_of(StudyConfig) if not setting.changeable]
    changed = [(s.flag or s.path[-1], s.of(own), s.of(study)) for s in kept if s.of(own) != s.of(study)]
    fingerprint = before["data"]["fingerprint"]
    if fingerprint != data.fingerprint:
        changed.append(("the images' fingerprint", fingerprint[:12], data.fingerprint[:12]))
    _refuse(changed)


def check_same_machine(before: Mapping[str, Any], measuring: Environment) -> None:
    """ValueError names what of the machine that measures, and of its versions, differs from the run's own."""
    was, now = before["environment"], dataclasses.asdict(measuring)
    changed = [(name, was[name], now[name]) for name in SAME_ON_RESUME if was[name] != now[name]]
    old, new = (dict(v.split("==") for v in of[RUNTIMES].split()) for of in (was, now))
    _refuse(changed + [(name, old[name], new[name]) for name in old.keys() & new if old[name] != new[name]])


def _refuse(changed: Sequence[tuple[str, object, object]]) -> None:
    if changed:
        what = "; ".join(f"{name} was {old!r}, is {new!r}" for name, old, new in changed)
        raise ValueError(f"--resume cannot change what would change results: {what}")


def read_study(run: Path, bucket: Bucket | None = None) -> dict[str, Any]:
    """Content of `study.json`, in today's format. ValueError: it is damaged, or a newer version's."""
    path = run / "study.json"
    stored = None if bucket is None else bucket.get(f"{run.name}/study.json")
    try:
        content = read_content(path.read_bytes() if stored is None else stored.content, str(path))
        needed = {"config": (), "environment": (*SAME_ON_RESUME, RUNTIMES), "data": ("fingerprint",)}
        if {"created_utc", "command"} <= content.keys() and all(
            isinstance(content[part], dict) and set(names) <= content[part].keys() for part, names in needed.items()
        ):
            return content
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ValueError(f"{path} is damaged, or of a newer format than {STUDY_FORMAT}, which this version has")


def _command(argv: Sequence[str]) -> str:
    """What makes the run anew: `python` and a script, or the installed command, without its folder."""
    name = Path(argv[0]).name
    program = [name] if name == PROGRAM else ["python", argv[0]]
    return shlex.join([*program, *(argument for argument in argv[1:] if argument != "--resume")])


def write_study(run: Path, study: StudyConfig, measuring: Environment, about_data: dict[str, object]) -> None:
    """Write `study.json`."""
    path = run / "study.json"
    # a resumed run keeps the moment it began in; its last command may have asked for more: that would make it anew
    begun = json.loads(path.read_text())["created_utc"] if path.exists() else None
    content = {
        "format": STUDY_FORMAT,
        "run": run.name,
        "created_utc": begun or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": _command(sys.argv),
        "config": dataclasses.asdict(study),
        "environment": dataclasses.asdict(measuring),
        "data": about_data,
    }
    text = json.dumps(content, indent=2) + "\n"
    replace_file(path, lambda temporary: Path(temporary).write_text(text))
    note_checksums(run, [path.name])
