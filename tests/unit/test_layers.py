"""Imports go down only, never in a circle, and what must stay light stays light."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [p for folder in ("cifar_tune", "sweeps", "analysis") for p in sorted((ROOT / folder).rglob("*.py"))]
TIERS = (
    {"config", "settings"},
    {"records", "errors", "study", "presets", "space", "rounds", "blocks"},
    {"deployed", "store", "bucket", "device", "libraries", "cli"},
    {"models", "data", "runs"},
    {"training", "runtimes"},
    {"measuring", "shipping"},
    {"tuning", "commands"},
    {"__main__"},
)
"""Rooms of the package from the lowest up: each imports its own tier and those below it."""
TIER = {room: level for level, rooms in enumerate(TIERS) for room in rooms}
LIGHT = {"config", "settings", "study", "space", "records", "errors", "store", "bucket", "rounds", "blocks"}
"""What the analysis may import."""


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


def room(path: Path) -> str:
    """The folder below the package, or the file that lies in it."""
    inside = path.relative_to(ROOT / "cifar_tune")
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def rooms_of(path: Path) -> set[str]:
    """The rooms of the package that a file imports; `__version__` is in none."""
    return {n.split(".")[1] for n in imports(path, "cifar_tune") if n.count(".")} - {"__version__"}


IN_PACKAGE = [p for p in FILES if p.is_relative_to(ROOT / "cifar_tune") and p != ROOT / "cifar_tune" / "__init__.py"]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", IN_PACKAGE, ids=name)
def test_imports_go_down_only(path: Path) -> None:
    assert {r for r in rooms_of(path) if TIER[r] > TIER[room(path)]} == set()


def test_rooms_import_each_other_in_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in IN_PACKAGE:
        graph.setdefault(room(path), set()).update(rooms_of(path) - {room(path)})
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nobody_imports_sweeps_but_sweeps(path: Path) -> None:
    assert path.is_relative_to(ROOT / "sweeps") or not imports(path, "sweeps")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_only_tuning_and_sweeps_import_ray(path: Path) -> None:
    assert {"tuning", "sweeps"} & set(path.relative_to(ROOT).parts) or not imports(path, "ray")


@pytest.mark.parametrize("module", ["config", "settings", "study", "space", "records", "errors"])
def test_what_is_lowest_imports_only_the_standard_library(module: str) -> None:
    heavy = ("torch", "ray", "optuna", "numpy", "pandas", "pyarrow", "tyro")
    assert not imports(ROOT / "cifar_tune" / f"{module}.py", *heavy)


@pytest.mark.parametrize("path", [p for p in FILES if p.is_relative_to(ROOT / "analysis")], ids=name)
def test_analysis_imports_only_the_light_part_of_the_library(path: Path) -> None:
    assert rooms_of(path) <= LIGHT


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name == "deployed"], ids=name)
def test_what_opens_a_shipped_model_imports_nothing_of_ours(path: Path) -> None:
    assert not imports(path, "cifar_tune", "analysis", "sweeps")


def test_space_knows_neither_ray_nor_torch() -> None:
    assert not imports(ROOT / "cifar_tune" / "space.py", "ray", "torch", "optuna")


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=name)
def test_no_test_file_imports_another(path: Path) -> None:
    tests = {p.stem for p in (ROOT / "tests").rglob("test_*.py")}
    assert not imports(path, *tests)
