"""A real S3 server in a process of its own, and a proxy before it that fails as networks and servers do."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fault = Literal["none", "slow", "error", "cut", "cut after"]
"""slow: half a second; error: status 500; cut: the connection is closed before, or after, the server has acted."""
BUCKET = "studies"


class Proxy(ThreadingHTTPServer):
    """Hands requests on to a server, or fails them."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = port
        self.faults: list[Fault] = []
        """What happens to the next requests, one each; then `share` decides."""
        self.share: dict[Fault, float] = {}
        """Share of all requests that a fault befalls."""
        self.chance = random.Random(0)
        self.seen: list[Fault] = []

    def next_fault(self) -> Fault:
        """What befalls a request that has come in."""
        fault: Fault = "none"
        if self.faults:
            fault = self.faults.pop(0)
        else:
            drawn = self.chance.random()
            for kind, share in self.share.items():
                drawn -= share
                if drawn < 0:
                    fault = kind
                    break
        self.seen.append(fault)
        return fault

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _forward(self) -> None:
        body = self._body()
        fault = self.server.next_fault()
        if fault == "slow":
            time.sleep(0.5)
        if fault == "cut":
            self._cut()
            return
        if fault == "error":
            self._answer(500, {}, b"<Error><Code>InternalError</Code></Error>")
            return
        behind = http.client.HTTPConnection("127.0.0.1", self.server.behind)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("transfer-encoding", "expect")}
        behind.request(self.command, self.path, body=body, headers={**headers, "Content-Length": str(len(body))})
        answer = behind.getresponse()
        content = answer.read()
        behind.close()
        if fault == "cut after":
            self._cut()
            return
        self._answer(answer.status, dict(answer.getheaders()), content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward  # noqa: N815 - the names that http.server calls

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            content = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():  # trailers
                pass
            return content
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _cut(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        length = headers.get("Content-Length", headers.get("content-length")) if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def s3_server() -> Iterator[Proxy]:
    """A server with an empty bucket, behind a proxy; the environment says where it is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    proxy = Proxy(port)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    names = {
        "AWS_ENDPOINT_URL": proxy.url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        _make_bucket(port)
        yield proxy
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        proxy.shutdown()
        proxy.server_close()
        server.terminate()
        server.wait()


def _make_bucket(port: int) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("PUT", f"/{BUCKET}", headers={"Host": f"127.0.0.1:{port}"})
            assert connection.getresponse().status == 200
            return
        except OSError:
            assert time.monotonic() < end, "the S3 server does not start"
            time.sleep(0.2)
