"""A run in object storage: the driver works in a folder of its own disk, and all of it goes up as it is written.

Every file is an object of its own, put whole. A result counts as kept when it is up; where the storage cannot be
reached the study goes on, and what is missing follows. One driver holds the run by a lease, which it renews; one
that has died is known by its age.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from cifar_tune.bucket import LEASE, Bucket, download
from cifar_tune.errors import BucketError, StudyFailedError, UsageError
from cifar_tune.store import files_below, is_temporary, replace_file

WRITER = "writer.json"
"""Which driver wrote last: a folder that holds the same is as new as the storage."""
INTERVAL = 20.0
"""Seconds between two looks at what is new, and between two renewals of the lease."""
LEASE_SECONDS = 180.0
PATIENCE = 300.0
"""Seconds for which the end of a study waits for a storage that cannot be reached."""


class Mirror:
    """A run's folder and its copy below `<storage>/<run>/`.

    Args:
        say: told when the storage cannot be reached, and when it can again.
        lease_seconds: age at which a lease that nobody renewed is a dead driver's.
    """

    def __init__(
        self,
        bucket: Bucket,
        folder: Path,
        say: Callable[[str], object] = print,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self.bucket, self.folder, self.say, self._lease_seconds = bucket, folder, say, lease_seconds
        self._name = folder.name
        self._memory = folder.parent / f"{folder.name}.uploaded.json"
        self._uploaded: dict[str, list[int]] = {}
        self._lease = ""
        self._claims: set[bytes] = set()
        """All that were sent: a lease that holds one is ours, though the answer was lost."""
        self._lost = False
        self._trouble = False
        self._working = threading.Lock()

    def _key(self, name: str) -> str:
        return f"{self._name}/{name}"

    # --- one writer ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run, and send up what changes in its folder, until the end.

        Raises:
            UsageError: another driver holds it.
            StudyFailedError: another driver took it, or not all of it could be sent up at the end.
        """
        self._acquire()
        stop = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(stop,), daemon=True)
        keeper.start()
        try:
            yield
        finally:
            stop.set()
            keeper.join()
            self._finish()

    def _claim(self) -> bytes:
        claim = {"process": os.getpid(), "host": socket.gethostname(), "id": secrets.token_hex(8)}
        return json.dumps(claim).encode()

    def _put_claim(self, claim: bytes, over: str | None) -> str | None:
        """Write a claim over a version of the lease, or where there is none; None: another driver was faster."""
        self._claims.add(claim)
        lease = self.bucket.put(self._key(LEASE), claim, only_if_absent=over is None, only_if=over)
        if lease is None:  # ours all the same, if the answer to an attempt was lost
            held = self.bucket.get(self._key(LEASE))
            lease = held.etag if held is not None and held.content in self._claims else None
        return lease

    def _acquire(self) -> None:
        claim = self._claim()
        lease = self._put_claim(claim, None)
        if lease is None:
            held = self.bucket.get(self._key(LEASE))
            if held is not None and held.age < self._lease_seconds:
                by = json.loads(held.content)
                raise UsageError(
                    f"run {self._name} is being written by process {by['process']} on {by['host']}; "
                    f"if that has died, its lease ends in {self._lease_seconds - held.age:.0f} s"
                )
            lease = self._put_claim(claim, None if held is None else held.etag)
            if lease is None:
                raise UsageError(f"run {self._name} was taken by another driver at this moment")
        self._lease = lease
        self._bring_up_to_date()
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self.folder / WRITER, lambda temporary: Path(temporary).write_bytes(claim))

    def _bring_up_to_date(self) -> None:
        """Keep the folder where it is what was written last; else make it the storage's copy."""
        there = self.bucket.get(self._key(WRITER))
        here = self.folder / WRITER
        if there is not None and here.is_file() and here.read_bytes() == there.content:
            with contextlib.suppress(OSError, ValueError):
                self._uploaded = json.loads(self._memory.read_text())
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        download(self.bucket, self._name, self.folder)
        self._uploaded = {name: _version(path) for name, path in self._files()}

    def _renew(self) -> None:
        renewed = self._put_claim(self._claim(), self._lease)
        if renewed is None:
            self._lost = True
        else:
            self._lease = renewed

    # --- sending up ---------------------------------------------------------------------------------------------

    def _files(self) -> list[tuple[str, Path]]:
        """Names and paths, results after what they rest on."""
        found = [
            (str(PurePosixPath(p.relative_to(self.folder))), p)
            for p in files_below(self.folder)
            if not is_temporary(p) and p.name != LEASE
        ]
        return sorted(found, key=lambda f: (f[0].startswith("ledger/"), f[0]))

    def push(self) -> None:
        """Send up what is new, and remove what is gone. Where the storage cannot be reached it stays to be done.

        Raises:
            StudyFailedError: another driver has taken the run.
        """
        with self._working:
            if self._lost:
                raise StudyFailedError(f"another driver has taken run {self._name}: this one stops")
            try:
                self._push()
            except BucketError as error:
                if not self._trouble:
                    self.say(f"{error}; the study goes on, and sends it later")
                self._trouble = True
                return
            if self._trouble:
                self.say(f"{self.bucket.uri} can be reached again: all is there")
            self._trouble = False

    def _push(self) -> None:
        files = dict(self._files())
        changed = False
        for name, path in files.items():
            with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                version = _version(path)
                if self._uploaded.get(name) != version:
                    self.bucket.put(self._key(name), path)
                    self._uploaded[name], changed = version, True
        for name in [name for name in self._uploaded if name not in files]:
            self.bucket.delete(self._key(name))
            del self._uploaded[name]
            changed = True
        if changed:
            text = json.dumps(self._uploaded)
            replace_file(self._memory, lambda temporary: Path(temporary).write_text(text))

    def _keep(self, stop: threading.Event) -> None:
        """Renew the lease and send up what grows, now and then."""
        while not stop.wait(INTERVAL):
            with contextlib.suppress(BucketError):  # tried again in a moment
                self._renew()
            if self._lost:
                return  # the next result tells the study
            try:
                self.push()
            except OSError as error:  # of this disk: what comes next shows it, or it has passed
                self.say(f"not all could be sent to {self.bucket.uri} just now: {error}")

    def _finish(self) -> None:
        """Send up the rest, and free the run."""
        if self._lost:
            return
        end = time.monotonic() + PATIENCE
        self.push()
        while self._trouble and time.monotonic() < end:
            time.sleep(5)
            self.push()
        if self._trouble:
            raise StudyFailedError(
                f"{self.bucket.uri} cannot be reached: what is missing there is in {self.folder}, "
                "and the same command with --resume sends it"
            )
        with contextlib.suppress(BucketError):
            self.bucket.delete(self._key(LEASE))


def _version(path: Path) -> list[int]:
    about = path.stat()
    return [about.st_mtime_ns, about.st_size]
