"""Imports go down only, and what must stay light stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [p for folder in ("cifar_tune", "sweeps", "analysis") for p in sorted((ROOT / folder).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def imports(path: Path, *prefixes: str) -> set[str]:
    return {n for n in imported(path) if any(n == p or n.startswith(f"{p}.") for p in prefixes)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nobody_imports_sweeps_but_sweeps(path: Path) -> None:
    assert path.parent.name == "sweeps" or not imports(path, "sweeps")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_tuning_and_sweeps_import_ray(path: Path) -> None:
    assert path.parent.name in ("tuning", "sweeps") or not imports(path, "ray")


@pytest.mark.parametrize("name", ["config", "records"])
def test_configuration_and_records_import_the_standard_library_alone(name: str) -> None:
    assert not imports(
        ROOT / "cifar_tune" / f"{name}.py", "torch", "ray", "optuna", "numpy", "pandas", "pyarrow", "tyro"
    )


def test_store_imports_only_pyarrow_and_below() -> None:
    assert not imports(
        ROOT / "cifar_tune" / "store.py", "torch", "ray", "optuna", "cifar_tune.data", "cifar_tune.models"
    )


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "analysis"], ids=lambda p: p.name)
def test_analysis_imports_only_the_light_part_of_the_library(path: Path) -> None:
    own = {n for n in imports(path, "cifar_tune") if n != "cifar_tune"}
    assert {n.split(".")[1] for n in own} <= {"config", "records", "store", "bucket"}


def test_space_knows_neither_ray_nor_torch() -> None:
    assert not imports(ROOT / "cifar_tune" / "space.py", "ray", "torch", "optuna")


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("cifar_tune.tuning.cells", "torch"),  # its workers hold resources, and start for each stage anew
        ("cifar_tune.tuning.trainables", "torch._dynamo"),  # a training compiles nothing
    ],
)
def test_worker_of_a_trial_does_not_import_what_it_does_not_use(module: str, heavy: str) -> None:
    asked = f"import sys, {module}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], cwd=ROOT, check=False).returncode == 0
