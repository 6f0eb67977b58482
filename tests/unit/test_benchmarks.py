"""What the benchmarks share: turns, spreads, verdicts; and that they name only what is there."""

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def loaded(name: str) -> ModuleType:
    """A file of the benchmarks, under a name of its own: their folder is not on the path."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


COMMON = loaded("common")


@pytest.mark.parametrize(
    ("order", "called"),
    [("kept", "ABABAB"), ("swapped", "ABBAAB")],
)
def test_turns_are_taken_in_their_order(order: str, called: str) -> None:
    calls: list[str] = []
    rounds = list(COMMON.alternate({name: lambda n=name: calls.append(n) for name in "AB"}, 3, order))
    assert "".join(calls) == called
    assert [list(answers) for answers in rounds] == [["A", "B"]] * 3


def test_shuffled_turns_are_drawn_from_the_number_of_the_round() -> None:
    calls: list[str] = []
    for _ in range(2):
        list(COMMON.alternate({name: lambda n=name: calls.append(n) for name in "ABCDE"}, 4, "shuffled"))
    first, second = calls[:20], calls[20:]
    assert first == second
    assert all(sorted(first[i : i + 5]) == [*"ABCDE"] for i in range(0, 20, 5))
    assert first[:5] != first[5:10]


def test_a_round_has_each_call_s_answer() -> None:
    numbers = iter(range(100))
    rounds = COMMON.alternate({"A": lambda: next(numbers), "B": lambda: -next(numbers)}, 2, "swapped")
    assert list(rounds) == [{"A": 0, "B": -1}, {"A": 3, "B": -2}]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_the_median_lies_in_its_spread(values: list[float]) -> None:
    found = COMMON.spread(values)
    assert found.low == min(values) <= found.median <= max(values) == found.high


def test_a_spread_is_printed_as_its_median_and_range() -> None:
    assert f"{COMMON.spread([3.0, 1.0, 2.0]):.1f}" == "2.0 (1.0 to 3.0)"


@pytest.mark.parametrize(
    ("kind", "met"),
    [("at most", (True, True, False)), ("at least", (False, True, True)), ("below", (True, False, False))],
)
def test_target(kind: str, met: tuple[bool, ...]) -> None:
    assert tuple(COMMON.Target(kind, 2.0).met(figure) for figure in (1.0, 2.0, 3.0)) == met
    assert not COMMON.Target(kind, 2.0).met(float("nan"))


def test_a_verdict_says_figure_target_and_whether_it_is_met(capsys: pytest.CaptureFixture[str]) -> None:
    target = COMMON.Target("at most", 2.0, unit=" s")
    assert target.judge("each", COMMON.spread([1.0, 1.5, 9.0]), ".1f")
    assert not target.judge("each", 2.5, ".1f")
    out = capsys.readouterr().out
    assert out == "each: 1.5 (1.0 to 9.0) s; target at most 2 s: met\neach: 2.5 s; target at most 2 s: MISSED\n"


def test_a_missed_target_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    COMMON.finish(met=True, runs=3)
    with pytest.raises(SystemExit) as ended:
        COMMON.finish(met=False, runs=3)
    assert ended.value.code == "a target is missed", "Python prints it and ends with 1"
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    assert first.endswith("; 3 runs")
    assert "torch==" in first


def test_exact_interval_of_a_share() -> None:
    assert COMMON.exact(9, 10) == pytest.approx((0.5550, 0.9975), abs=1e-4)
    assert COMMON.exact(0, 10)[0] == 0.0
    assert COMMON.exact(10, 10)[1] == 1.0


@pytest.mark.parametrize(("second", "held"), [(0.51, True), (0.60, False)])
def test_a_rerun_is_held_where_the_next_race_lies_in_the_interval(second: float, held: bool) -> None:
    sys.modules["common"] = COMMON
    rerun = loaded("race_rerun")
    first = {"m": [{"ratio": 0.5, "rerun_low": 0.45, "rerun_high": 0.55}]}
    assert rerun.cases(first, {"m": [{"ratio": second}], "other": []}) == {"m": held}
    assert rerun.half_width(first["m"]) == pytest.approx(10.0)


def test_cases_of_one_race_are_one_cluster() -> None:
    sys.modules["common"] = COMMON
    rerun = loaded("race_rerun")
    all_or_none = [dict.fromkeys("abcde", value) for value in (True, True, False, True)]
    low, high = rerun.clustered(all_or_none)
    assert (low <= 0.25, high) == (True, 1.0)


def names_of(module: str) -> set[str]:
    """What a module of ours or a benchmark has, read from its source: packages have their files as well."""
    at = FOLDER / module if (FOLDER / f"{module}.py").is_file() else FOLDER.parent / module.replace(".", "/")
    source = at.with_suffix(".py") if at.with_suffix(".py").is_file() else at / "__init__.py"
    names = {path.stem for path in at.glob("*.py")}
    for node in ast.parse(source.read_text()).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.ImportFrom(names=aliases) | ast.Import(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
            case ast.Assign() | ast.AnnAssign():
                names |= {found.id for found in ast.walk(node) if isinstance(found, ast.Name)}
            case _:
                pass
    return names


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_name_only_what_is_there(path: Path) -> None:
    own = ("cifar_tune", "sweeps", "analysis", *(p.stem for p in FOLDER.glob("*.py")))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in own:
            assert {alias.name for alias in node.names} <= names_of(node.module)
