"""The candidate behind HTTP: a real Ray Serve, real requests, a real load test (R25)."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analysis_data import full_latency, write_run
from PIL import Image
from test_candidate import CLASSES, PIXELS, SIDE, VERIFIED, shipment, source
from test_uploads import bomb, encoded

from cifar_tune.candidate import deploy, note_verification, write_candidate
from cifar_tune.config import Variant
from cifar_tune.models import build_model, save_weights
from cifar_tune.records import ServingRecord
from cifar_tune.store import read_records
from sweeps import serve_candidate

endpoint = pytest.importorskip("cifar_tune.tuning.endpoint", reason="pip install 'cifar_tune[serve]'")
pytestmark = pytest.mark.timeout(300)
ONNX = Variant(runtime="onnxruntime")


def free_port() -> int:
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
        return here.getsockname()[1]


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a verified candidate, as a run has it."""
    root = tmp_path_factory.mktemp("served")
    weights = root / "w.safetensors"
    save_weights(build_model("resnet_tiny", len(CLASSES), seed=1), weights)
    folder = root / "candidate"
    shipped = shipment(weights, np.zeros(0), ONNX)
    write_candidate(folder, shipped)
    deploy(source(root / "artifact", weights, ONNX), folder)
    note_verification(folder, shipped, VERIFIED)
    return folder


@pytest.fixture(scope="module")
def address(candidate: Path) -> Iterator[str]:
    limits = endpoint.Limits(queue=4, timeout=20)
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
        (b"\0" * 100_000_000, "image/png", 413),
    ],
    ids=["wrong type", "no image", "truncated", "decompression bomb", "100 MB"],
)
def test_bad_upload_gets_a_sentence_and_does_no_harm(address: str, body: bytes, kind: str, status: int) -> None:
    try:
        found, answer = ask(address, body, kind)
    except urllib.error.URLError as error:  # the server has answered, and hung up before all was sent
        assert isinstance(error.reason, (BrokenPipeError, ConnectionResetError)), error  # noqa: PT017
    else:
        assert found == status
        assert answer["error"]
    assert ask(address, png(PIXELS[0]))[0] == 200


def test_other_methods_are_refused(address: str) -> None:
    assert ask(address, b"", method="DELETE")[0] == 405


def test_requests_beyond_the_queue_are_answered_at_once(address: str) -> None:
    """Each is classified, or told with 503 that there is no room: none hangs, none is lost."""
    body = png(PIXELS[0])
    with ThreadPoolExecutor(64) as pool:
        codes = list(pool.map(lambda _: status_of(address, body), range(256)))
    assert set(codes) <= {200, 503}
    assert 200 in codes


def status_of(address: str, body: bytes) -> int:
    try:
        request = urllib.request.Request(address, body, {"Content-Type": "image/png"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_server_says_that_it_is_well(address: str) -> None:
    with urllib.request.urlopen(f"{address}-/healthz") as answer:
        assert answer.status == 200


def test_candidate_that_was_not_verified_is_not_served(candidate: Path, tmp_path: Path) -> None:
    card = json.loads((candidate / "candidate.json").read_text())
    card["verification"] |= {"ok": False, "problem": "other answers"}
    (tmp_path / "candidate.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="not verified: other answers"):
        endpoint.read_card(tmp_path)


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
    assert all(r.p50_ms <= r.p95_ms <= r.p99_ms for r in rows if r.p50_ms and r.p95_ms and r.p99_ms)
    assert "## Behind HTTP" in (run / "report.md").read_text()
