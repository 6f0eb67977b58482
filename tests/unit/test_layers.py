"""Imports go down only, never in a circle, and what must stay light stays light."""

import ast
import functools
import graphlib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [p for folder in ("cifar_tune", "sweeps", "analysis") for p in sorted((ROOT / folder).rglob("*.py"))]
TIERS = (
    {"config", "settings"},
    {"records", "errors", "study", "presets", "space", "rounds", "between", "blocks"},
    {"deployed", "store", "bucket", "device", "libraries", "cli"},
    {"models", "data", "runs"},
    {"training", "runtimes"},
    {"measuring", "shipping"},
    {"tuning", "commands"},
    {"__main__"},
)
"""Rooms of the package from the lowest up: each imports its own tier and those below it."""
TIER = {room: level for level, rooms in enumerate(TIERS) for room in rooms}
LIGHT = {"config", "settings", "study", "space", "records", "errors", "store", "bucket", "rounds", "between", "blocks"}
"""What the analysis may import."""


@functools.cache
def imported(path: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


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


def offenders(files: list[Path], offends: Callable[[Path], object]) -> list[str]:
    """The files that break a rule, each with what it imports against it."""
    found = ((path, offends(path)) for path in files)
    return [f"{path.relative_to(ROOT)}: {what}" for path, what in found if what]


def in_folder(*parts: str) -> list[Path]:
    return [p for p in FILES if p.is_relative_to(ROOT.joinpath(*parts))]


def test_imports_go_down_only() -> None:
    assert offenders(IN_PACKAGE, lambda path: {r for r in rooms_of(path) if TIER[r] > TIER[room(path)]}) == []


def test_rooms_import_each_other_in_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in IN_PACKAGE:
        graph.setdefault(room(path), set()).update(rooms_of(path) - {room(path)})
    graphlib.TopologicalSorter(graph).prepare()


def test_nobody_imports_sweeps_but_sweeps() -> None:
    others = [p for p in FILES if p not in in_folder("sweeps")]
    assert offenders(others, lambda path: imports(path, "sweeps")) == []


def test_only_tuning_and_sweeps_import_ray() -> None:
    others = [p for p in FILES if not {"tuning", "sweeps"} & set(p.relative_to(ROOT).parts)]
    assert offenders(others, lambda path: imports(path, "ray")) == []


@pytest.mark.parametrize("module", ["config", "settings", "study", "records", "errors"])
def test_what_is_lowest_imports_only_the_standard_library(module: str) -> None:
    heavy = ("torch", "ray", "optuna", "numpy", "pandas", "pyarrow", "tyro")
    assert not imports(ROOT / "cifar_tune" / f"{module}.py", *heavy)


def test_analysis_imports_only_the_light_part_of_the_library() -> None:
    assert offenders(in_folder("analysis"), lambda path: rooms_of(path) - LIGHT) == []


def test_what_opens_a_shipped_model_imports_nothing_of_ours() -> None:
    shipped = in_folder("cifar_tune", "deployed")
    assert offenders(shipped, lambda path: imports(path, "cifar_tune", "analysis", "sweeps")) == []


def test_space_knows_neither_ray_nor_torch() -> None:
    assert not imports(ROOT / "cifar_tune" / "space.py", "ray", "torch", "optuna")


def test_no_test_file_imports_another() -> None:
    files = sorted((ROOT / "tests").rglob("*.py"))
    tests = [p.stem for p in files if p.name.startswith("test_")]
    assert offenders(files, lambda path: imports(path, *tests)) == []
