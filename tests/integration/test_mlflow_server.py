"""The candidate as a managed endpoint takes it: MLflow's own model server answers with its classes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from shipped import CLASSES, PIXELS, free_port

endpoint = pytest.importorskip("cifar_tune.tuning.endpoint", reason="pip install -e '.[serve]'")
pytest.importorskip("mlflow", reason="pip install -e '.[mlflow]'")
pytestmark = pytest.mark.timeout(240)


def answered(process: subprocess.Popen[bytes], address: str) -> None:
    """Wait until the server is well."""
    for _ in range(200):
        assert process.poll() is None, "the server has ended"
        try:
            urllib.request.urlopen(f"{address}/ping")
        except urllib.error.URLError:
            time.sleep(0.5)
        else:
            return
    pytest.fail("the server does not answer")


def test_model_server_gives_the_candidates_classes(candidate: Path, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(candidate)]
    command += ["--env-manager", "local", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # it looks for uvicorn there
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, env={**os.environ, "PATH": path})
    try:
        answered(process, f"http://127.0.0.1:{port}")
        body = json.dumps({"inputs": PIXELS[:4].tolist()}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
        )
        predictions = json.loads(urllib.request.urlopen(request).read())["predictions"]
    finally:
        process.terminate()
        process.wait(30)
    classify = endpoint.open_candidate(candidate, endpoint.read_card(candidate))
    assert [p["class"] for p in predictions] == [CLASSES[int(classify(p).argmax())] for p in PIXELS[:4]]
