"""The candidate behind HTTP: a real Ray Serve, real requests, a real load test (R25)."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analysis_data import full_latency, write_run
from PIL import Image
from shipped import CLASSES, PIXELS, SIDE, VERIFIED, free_port, shipment
from upload_files import bomb, encoded

from analysis.sections.serving import serving_answer
from cifar_tune.config import Variant
from cifar_tune.errors import RefusedError
from cifar_tune.records import ServingRecord
from cifar_tune.shipping.candidate import note_verification, write_candidate
from cifar_tune.store import read_records
from sweeps import serve_candidate

endpoint = pytest.importorskip("cifar_tune.tuning.endpoint", reason="pip install -e '.[serve]'")
pytestmark = pytest.mark.timeout(300)
ONNX = Variant(runtime="onnxruntime")


@pytest.fixture(scope="module")
def address(candidate: Path) -> Iterator[str]:
    limits = endpoint.Limits(batch=1, queue=2, timeout=5)
    with endpoint.serving(candidate, limits, port=free_port()) as where:
        yield where


def ask(address: str, body: bytes | None, kind: str = "image/png", method: str | None = None) -> tuple[int, Any]:
    """Status and answer."""
    request = urllib.request.Request(address, body, {"Content-Type": kind}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_r25_upload_is_classified_as_the_candidate_classifies(address: str, candidate: Path) -> None:
    card = endpoint.read_card(candidate)
    classify = endpoint.open_candidate(candidate, card)
    expected = [CLASSES[int(classify(pixels).argmax())] for pixels in PIXELS]
    assert [ask(address, png(pixels))[1]["class"] for pixels in PIXELS] == expected


def test_get_says_what_the_model_is(address: str) -> None:
    status, about = ask(address, None)
    assert (status, about["classes"], about["image_size"]) == (200, list(CLASSES), SIDE)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"hello", "text/plain", 415),
        (b"hello", "image/png", 415),
        (encoded()[:200], "image/png", 400),
        (bomb(60_000), "image/png", 413),
    ],
    ids=["wrong type", "no image", "truncated", "decompression bomb"],
)
def test_bad_upload_gets_a_sentence_and_does_no_harm(address: str, body: bytes, kind: str, status: int) -> None:
    found, answer = ask(address, body, kind)
    assert found == status
    assert answer["error"]
    assert ask(address, png(PIXELS[0]))[0] == 200


@contextlib.contextmanager
def begun_upload(address: str, size: int) -> Iterator[socket.socket]:
    """A request that has said how much it sends, and has not begun."""
    where = urllib.parse.urlsplit(address)
    assert where.hostname
    assert where.port
    with socket.create_connection((where.hostname, where.port), timeout=60) as connection:
        head = f"POST / HTTP/1.1\r\nHost: here\r\nContent-Type: image/png\r\nContent-Length: {size}\r\n\r\n"
        connection.sendall(head.encode())
        yield connection


def answered(connection: socket.socket) -> int:
    """The status that comes."""
    return int(connection.makefile("rb").readline().split()[1])


def test_upload_of_100_mb_is_refused_before_it_is_read(address: str) -> None:
    with begun_upload(address, 100_000_000) as connection:
        assert answered(connection) == 413


def test_upload_that_says_no_size_and_never_ends_is_refused() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"\0" * 1_000_000, "more_body": True}

    request = endpoint.Request({"type": "http", "method": "POST", "headers": []}, receive)
    with pytest.raises(RefusedError) as refused:
        asyncio.run(endpoint._body(request))
    assert refused.value.status == 413


def test_other_methods_are_refused(address: str) -> None:
    assert ask(address, b"", method="DELETE")[0] == 405


def test_requests_beyond_the_queue_are_refused_and_those_that_take_too_long_given_up(address: str) -> None:
    """Two are read at a time, two wait, and the proxy may hold a few; none of them ever sends what it said."""
    with contextlib.ExitStack() as open_ones:
        connections = [open_ones.enter_context(begun_upload(address, 1000)) for _ in range(16)]
        codes = [answered(connection) for connection in connections]
    assert set(codes) == {408, 503}
    assert codes.count(503) >= 8
    assert ask(address, png(PIXELS[0]))[0] == 200


def test_server_says_that_it_is_well(address: str) -> None:
    with urllib.request.urlopen(f"{address}-/healthz") as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "variant", [Variant(channels_last=True), Variant(runtime="torchscript")], ids=["torch", "torchscript"]
)
def test_form_that_may_hold_code_is_built_from_the_weights(variant: Variant, candidate: Path, tmp_path: Path) -> None:
    """Whatever file of that form lies there, such as one that holds a pickle, is not opened."""
    folder = tmp_path / "candidate"
    shipped = shipment(candidate / "model.safetensors", np.zeros(0), variant)
    write_candidate(folder, shipped)
    note_verification(folder, shipped, VERIFIED)
    (folder / "program.pt2").write_bytes(b"not to be opened")
    classify = endpoint.open_candidate(folder, endpoint.read_card(folder))
    expected = endpoint.open_candidate(candidate, endpoint.read_card(candidate))
    for pixels in PIXELS:
        np.testing.assert_allclose(classify(pixels), expected(pixels), atol=1e-4)


def test_what_cannot_be_built_from_its_weights_is_refused(candidate: Path) -> None:
    card = endpoint.read_card(candidate)
    card["variant"] |= {"runtime": "aotinductor", "precision": "int8"}
    with pytest.raises(ValueError, match="without calibration"):
        endpoint.check_servable(card, endpoint.Limits())


def test_model_of_a_name_that_is_not_registered_is_not_imported(candidate: Path) -> None:
    card = endpoint.read_card(candidate) | {"model": "os:abort"}
    card["variant"] |= {"runtime": "torch"}
    with pytest.raises(ValueError, match="unknown"):
        endpoint.check_servable(card, endpoint.Limits())


def test_more_replicas_than_gpus_are_refused(candidate: Path) -> None:
    card = endpoint.read_card(candidate) | {"device": "cuda"}
    with pytest.raises(ValueError, match="replicas is 100"):
        endpoint.check_servable(card, endpoint.Limits(replicas=100))


def test_candidate_that_was_not_verified_is_not_served(candidate: Path, tmp_path: Path) -> None:
    card = json.loads((candidate / "candidate.json").read_text())
    card["verification"] |= {"ok": False, "problem": "other answers"}
    (tmp_path / "candidate.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="not verified: other answers"):
        endpoint.read_card(tmp_path)


def test_replica_whose_model_answers_no_numbers_is_not_well(candidate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "open_candidate", lambda *_: lambda _: np.full(len(CLASSES), np.nan))
    with pytest.raises(RuntimeError, match="not finite"):
        endpoint.Endpoint(str(candidate), 1)


def load(users: int, p95_ms: float, *, meets: bool) -> dict[str, Any]:
    figures = {"p50_ms": p95_ms / 2, "p95_ms": p95_ms, "throughput": 100.0 * users}
    return {"users": users, "p95_limit_ms": 20.0, "meets": meets, **figures}


def test_highest_load_is_that_of_most_images_within_the_limit() -> None:
    loads = [load(1, 5.0, meets=True), load(4, 15.0, meets=True), load(16, 60.0, meets=False)]
    said = "The highest load that keeps p95 within 20 ms: 400 images/s from 4 users, p50 7.50 ms, p95 15.00 ms."
    assert serving_answer(loads) == said


def test_no_load_within_the_limit_is_said() -> None:
    said = "No load that was tried keeps p95 within 20 ms without failures."
    assert serving_answer([load(1, 60.0, meets=False)]) == said


def test_load_test_writes_rows_that_the_report_shows(candidate: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", full_latency())
    (run / "candidate").symlink_to(candidate)
    command = [sys.executable, serve_candidate.__file__, "--run", str(run), "--port", str(free_port())]
    command += ["--users", "1", "4", "--seconds", "2", "--p95-ms", "2000"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.splitlines()[-1] == str(run / "report.html")
    rows = read_records(run / "serving.parquet", ServingRecord)
    assert [r.users for r in rows] == [1, 4]
    assert all(r.requests > 0 and r.failures == 0 and r.meets for r in rows)
    assert all(r.together and 1 <= r.together <= r.batch for r in rows)
    assert all(r.p50_ms <= r.p95_ms <= r.p99_ms for r in rows if r.p50_ms and r.p95_ms and r.p99_ms)
    text = (run / "report.md").read_text()
    assert "## Behind HTTP" in text
    assert f"Without a server it takes {endpoint.read_card(candidate)['p50_ms']:.3f} ms" in text
