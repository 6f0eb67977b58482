"""Malformed input of every kind: one line and exit code 2, or the same result as before; nothing in between."""

import contextlib
import io
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from analysis_data import full_latency, trial, write_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import write_parquet

from analysis.__main__ import main as analysis_command
from cifar_tune.__main__ import main as library_command
from cifar_tune.models.registry import build_model
from cifar_tune.models.weights import save_weights
from cifar_tune.records import TrialRecord
from cifar_tune.runs.ledger import Ledger
from cifar_tune.store import sha256_file
from cifar_tune.training.teacher import load_model
from sweeps.steps.checks import parse_study, prepare

EXAMPLES = int(os.environ.get("MALFORMED_EXAMPLES", "10"))
"""Of each kind; `make chaos` takes more."""
many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def damages(draw: st.DrawFn) -> tuple[float, int | None]:
    """Where in a file, as a share of its length, and which bit flips there; None: it is cut there."""
    return draw(st.floats(0, 0.999)), draw(st.none() | st.integers(0, 7))


def damage(path: Path, where: float, bit: int | None) -> bool:
    """Damage a file; whether it is another now."""
    content = bytearray(path.read_bytes())
    position = int(where * len(content))
    damaged = content[:position]
    if bit is not None:
        content[position] ^= 1 << bit
        damaged = content
    before = path.read_bytes()
    path.write_bytes(damaged)
    return bytes(damaged) != before


def said(command: object, *arguments: str) -> tuple[int, str, str]:
    """Exit code and output of a command; any exception but SystemExit is a failure of the test."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = command(list(arguments))  # pyright: ignore[reportCallIssue]
        except SystemExit as ended:
            code = ended.code
    return int(code or 0), out.getvalue(), err.getvalue()  # pyright: ignore[reportArgumentType]


def check_refused(err: str) -> None:
    assert err.startswith("error: ")
    assert err.count("\n") == 1


FLAGS = (
    "--epochs", "--lr-range", "--students", "--num-samples", "--storage", "--name", "--min-accuracy", "--data",
    "--schedules", "--latency-iterations", "--validation-fraction", "--device", "--runtimes", "--seed",
    "--teacher-checkpoint", "--temperature-range", "--batch-size", "--search-images", "--resume", "--cutout",
)  # fmt: skip
RUN_FILES = ("study.json", "trials.parquet", "latency.parquet", "epochs.parquet", "checksums.json")
COLUMNS = {"ints": np.arange(3), "text": ["a", "b", "c"], "none": [None] * 3}
VALUES = st.sampled_from(
    ["0", "-1", "1e309", "nan", "inf", "", " ", "../x", "/proc", "\0", "☃", "a" * 300, "1", "None"]
)


@many
@given(arguments=st.lists(st.sampled_from(FLAGS) | VALUES, min_size=1, max_size=6))
def test_flags(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def command(argv: list[str]) -> None:
        from cifar_tune import cli

        def checked() -> None:
            prepare(parse_study(argv, "distill_search.py", ""))

        cli.run_command(checked)

    code, _, err = said(command, "--preset", "chaos", *arguments)
    if code:
        assert code == 2
        check_refused(err)


@many
@given(
    name=st.sampled_from(["study.json", "trials.parquet", "latency.parquet", "epochs.parquet", "checksums.json"]),
    how=damages(),
)
def test_run_folders(name: str, how: tuple[float, int | None], pristine: tuple[Path, str]) -> None:
    """A damaged run is refused; it never gives another front."""
    run, front = pristine
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(run, Path(folder, "run")))
        changed = damage(copy / name, *how)
        code, out, err = said(analysis_command, "front", str(copy))
    if code:
        assert code == 2
        check_refused(err)
    else:
        assert out == front
        assert not changed


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    run = write_run(tmp_path_factory.mktemp("runs") / "run", full_latency())
    return run, said(analysis_command, "front", str(run))[1]


@many
@given(how=damages())
def test_results_in_the_ledger(how: tuple[float, int | None], tmp_path: Path) -> None:
    """A damaged result is missing; it never is another."""
    told: list[str] = []
    ledger, record = Ledger(tmp_path, told.append), trial(val_accuracy=0.5)
    ledger.put_trial(record)
    (path,) = (tmp_path / "ledger").rglob("[!.]*.json")
    changed = damage(path, *how)
    assert ledger.read(TrialRecord) == ([] if changed else [record])
    assert bool(told) == changed


@many
@given(how=damages())
def test_checkpoints_of_a_run(how: tuple[float, int | None], tmp_path: Path) -> None:
    """Whose digest is known: any damage is noticed."""
    path = tmp_path / "w.safetensors"
    save_weights(build_model("resnet_tiny", 3), path)
    digest = sha256_file(path)
    if damage(path, *how):
        with pytest.raises(ValueError, match="damaged"):
            load_model("resnet_tiny", 3, path, digest)


@many
@given(how=damages())
def test_checkpoints_of_a_user(how: tuple[float, int | None], tmp_path: Path) -> None:
    """Whose digest is not known: what cannot be read is refused in a line."""
    path = tmp_path / "w.safetensors"
    save_weights(build_model("resnet_tiny", 10), path)
    damage(path, *how)
    code, _, err = said(
        library_command, "evaluate", "--model", "resnet_tiny", "--checkpoint", str(path), "--data", "digits",
        "--train-images", "20", "--test-images", "20",
    )  # fmt: skip
    if code:
        assert code == 2
        check_refused(err)


@many
@given(how=damages())
def test_data_in_parquet(how: tuple[float, int | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unreadable data are refused in a line; what can still be read is what it says it is."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("train", "test"):
        write_parquet(folder / f"{part}.parquet", [0, 1] * 10, names=("cat", "dog"))
    damage(next(folder.glob("train*.parquet")), *how)
    code, _, err = said(library_command, "train", "--data", str(folder), "--model", "resnet_tiny", "--epochs", "1")
    if code:
        assert code == 2
        check_refused(err)


@many
@given(content=st.binary(max_size=200))
def test_images(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "images" / part / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "images" / part / name / "0.png").write_bytes(content)
    code, _, err = said(library_command, "train", "--data", "images", "--model", "resnet_tiny", "--epochs", "1")
    assert code == 2
    check_refused(err)


@many
@given(
    columns=st.dictionaries(st.sampled_from(["img", "label", "image", "x"]), st.sampled_from(["ints", "text", "none"]))
)
def test_parquet_of_other_columns(columns: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(exist_ok=True)
    for part in ("train", "test"):
        pd.DataFrame({name: COLUMNS[kind] for name, kind in columns.items()}).to_parquet(folder / f"{part}.parquet")
    code, _, err = said(library_command, "train", "--data", str(folder), "--model", "resnet_tiny", "--epochs", "1")
    assert code == 2
    check_refused(err)
