"""What `pip install .` brings: every module, the page's template, and the command, which works outside a checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sweeps.command import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("cifar_tune", "sweeps", "analysis")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves files beside the sources, which the next build would take for its own."""
    scratch = tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, scratch / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, scratch / "source" / name)
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(scratch), str(scratch / "source"))
    return next(scratch.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """Folder with the packages and, in `bin`, the command."""
    pip("install", "--no-index", "--target", str(wheel.parent / "site"), str(wheel))
    return wheel.parent / "site"


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments, "--no-deps"]
    subprocess.run(command, check=True)


def test_wheel_holds_every_module_and_template(wheel: Path) -> None:
    files = {p for name in PACKAGES for p in (ROOT / name).rglob("*") if p.is_file() and p.suffix != ".pyc"}
    assert {".py", ".jinja"} <= {p.suffix for p in files}
    assert {str(p.relative_to(ROOT)) for p in files} <= set(zipfile.ZipFile(wheel).namelist())


def test_wheel_holds_nothing_but_the_packages(wheel: Path) -> None:
    tops = {Path(name).parts[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def call(installed: Path, cwd: Path, *arguments: str, isolated: bool = False) -> subprocess.CompletedProcess[str]:
    """The command as a user types it; isolated: with no other package in reach."""
    python = [sys.executable, "-S"] if isolated else [sys.executable]
    return subprocess.run(
        [*python, installed / "bin" / "cifar-tune", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )


def test_command_works_outside_a_checkout(installed: Path, tmp_path: Path) -> None:
    ended = call(installed, tmp_path, "front", "nowhere")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "nowhere" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_function_of_the_user_s_own_lies_where_the_user_works(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "own_model.py").write_text("def make():\n    return 'no model'\n")
    ended = call(installed, tmp_path, "bench", "--model", "own_model:make")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "model 'own_model:make' gives str; allowed is a torch.nn.Module" in ended.stderr


def test_help_needs_no_other_package(installed: Path, tmp_path: Path) -> None:
    ended = call(installed, tmp_path, "--help", isolated=True)
    assert ended.returncode == 0, ended.stderr
    assert all(name in ended.stdout for name in COMMANDS)


def test_what_is_not_installed_is_named_in_one_line(installed: Path, tmp_path: Path) -> None:
    ended = call(installed, tmp_path, "search", isolated=True)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "cifar-tune search needs more packages: pip install '.[train]' (No module named " in ended.stderr
