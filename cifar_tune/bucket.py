"""Objects in S3 storage, whole or not at all.

Credentials, region and endpoint come from where boto3 looks for them (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …).
Passing faults are tried again by boto3; what lasts is an OSError that says so in a line.
"""

# boto3 makes its clients' methods when it runs, and ships no types
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cifar_tune.errors import BucketError
from cifar_tune.store import replace_file

SCHEME = "s3://"
LEASE = "driver.lock"
"""The object by which a driver holds a run; no file of it."""
ATTEMPTS = 6
"""Of each request, with pauses that grow to 20 s."""
TIMEOUT = 30
"""Seconds without an answer after which a request is tried again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """An object as it was read."""

    content: bytes
    etag: str
    """Which version of it."""
    age: float
    """Seconds since it was written, by the storage's own clock."""


def is_uri(storage: str) -> bool:
    """Whether a storage is a bucket, not a folder. ValueError: a URI of a kind that is not known."""
    if "://" in storage and not storage.startswith(SCHEME):
        raise ValueError(f"storage is {storage!r}; allowed is a folder, or {SCHEME}bucket/prefix")
    return storage.startswith(SCHEME)


class Bucket:
    """The objects below `s3://bucket/prefix`.

    Raises ValueError where boto3 is missing.
    """

    def __init__(self, uri: str) -> None:
        try:
            import boto3
            from botocore.config import Config
        except ModuleNotFoundError as error:
            raise ValueError(f"storage {uri} needs boto3: pip install -e '.[s3]'") from error
        self.uri = uri.rstrip("/")
        self._bucket, _, prefix = self.uri.removeprefix(SCHEME).partition("/")
        self._prefix = f"{prefix}/" if prefix else ""
        settings = Config(
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS}, connect_timeout=TIMEOUT, read_timeout=TIMEOUT
        )
        with self._faults("reached"):
            self._client: Any = boto3.client("s3", config=settings)

    @contextlib.contextmanager
    def _faults(self, done: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (ClientError, BotoCoreError) as error:
            raise BucketError(f"{self.uri} cannot be {done}: {' '.join(str(error).split())}") from error

    def put(
        self, key: str, content: bytes | Path, *, only_if_absent: bool = False, only_if: str | None = None
    ) -> str | None:
        """Write an object; returns its version, or None where the condition does not hold.

        Args:
            only_if_absent: write nothing where there is such an object.
            only_if: the version that the object must have.
        """
        from botocore.exceptions import ClientError

        conditions: dict[str, str] = {}
        if only_if_absent:
            conditions["IfNoneMatch"] = "*"
        if only_if is not None:
            conditions["IfMatch"] = only_if
        with self._faults("written"):
            try:
                with contextlib.ExitStack() as stack:
                    body: bytes | IO[bytes] = (
                        stack.enter_context(content.open("rb")) if isinstance(content, Path) else content
                    )
                    answer = self._client.put_object(
                        Bucket=self._bucket, Key=self._prefix + key, Body=body, **conditions
                    )
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] in (404, 409, 412) and conditions:
                    return None
                raise
        return answer["ETag"]

    def get(self, key: str) -> Stored | None:
        """Read an object; None where there is none."""
        with self._faults("read"):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
                content = answer["Body"].read()
            except self._client.exceptions.NoSuchKey:
                return None
        now = _http_date(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))
        age = 0.0 if now is None else (now - answer["LastModified"]).total_seconds()
        return Stored(content=content, etag=answer["ETag"], age=age)

    def names(self, below: str = "") -> list[str]:
        """The names of all objects below a name."""
        with self._faults("listed"):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + below
            )
            return [found["Key"].removeprefix(self._prefix) for page in pages for found in page.get("Contents", [])]

    def delete(self, key: str) -> None:
        """Remove an object; that there is none is no fault."""
        with self._faults("written"):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)


def download(bucket: Bucket, run: str, folder: Path) -> None:
    """Copy a run from the storage into a folder. Names that would leave it are refused with a ValueError."""
    for key in bucket.names(f"{run}/"):
        name = PurePosixPath(key.removeprefix(f"{run}/"))
        if name.is_absolute() or ".." in name.parts:
            raise ValueError(f"{bucket.uri} holds an object whose name leaves the run: {key!r}")
        stored = bucket.get(key) if str(name) != LEASE else None
        if stored is not None:
            content = stored.content
            replace_file(folder / name, lambda temporary, content=content: Path(temporary).write_bytes(content))


def fetched(uri: str) -> Path:
    """A copy of the run at a URI, in a temporary folder that ends with the process. ValueError: there is none."""
    parent, _, name = uri.rstrip("/").rpartition("/")
    bucket = Bucket(parent)
    folder = Path(tempfile.mkdtemp(prefix="cifar_tune-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    download(bucket, name, folder / name)
    if not (folder / name / "study.json").is_file():
        raise ValueError(f"run is {uri!r}; allowed is a run in {parent}: {', '.join(runs_in(bucket)) or 'none there'}")
    return folder / name


def runs_in(bucket: Bucket) -> list[str]:
    """The names of a storage's runs."""
    return [k.removesuffix("/study.json") for k in bucket.names() if k.count("/") == 1 and k.endswith("/study.json")]


def _http_date(text: str | None) -> datetime | None:
    from email.utils import parsedate_to_datetime

    return None if text is None else parsedate_to_datetime(text)
