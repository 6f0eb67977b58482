"""The example of docs/using.md, as a notebook would run it: a study from Python, and its tables."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).resolve().parents[2]
SHORT = """
import dataclasses
from cifar_tune.presets import PRESETS
PRESETS["quick"] = dataclasses.replace(PRESETS["chaos"], num_samples=1, epochs=1, distill="never")
"""
"""Before the example: what it calls `quick` takes a minute."""


def test_example_of_a_study_from_python_prints_the_front(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "using.md").read_text()
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "run(config)" in block)
    ended = subprocess.run([sys.executable, "-c", SHORT + example], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "test_accuracy" in ended.stdout
    assert (tmp_path / "ray_results" / "notebook" / "front.parquet").is_file()
