"""The installed command: its subcommands are the scripts, under another name."""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cifar_tune.device import environment
from cifar_tune.presets import PRESETS
from sweeps.command import COMMANDS, main
from sweeps.steps.folder import write_study

SCRIPTS = {
    "search": "distill_search.py",
    "grid": "variant_grid.py",
    "serve": "serve_candidate.py",
    "train": "python -m cifar_tune train",
    "evaluate": "python -m cifar_tune evaluate",
    "bench": "python -m cifar_tune bench",
    **dict.fromkeys(("report", "front", "compare", "cost"), "python -m analysis"),
}


def said(command: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    """Exit code, standard output and standard error."""
    try:
        code = command()
    except SystemExit as ended:
        code = ended.code
    return (code or 0, *capsys.readouterr())


def script(name: str, *arguments: str) -> object:
    """What the subcommand stands for, called as it was before."""
    module = importlib.import_module(COMMANDS[name].module)
    return module.main([name, *arguments] if module.__name__ == "analysis.__main__" else list(arguments))


def test_help_has_a_line_for_each_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(lambda: main(["--help"]), capsys)
    assert code == 0
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.help)}$", out, re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 100


def test_help_imports_no_library() -> None:
    heavy = "{'torch', 'ray', 'optuna', 'tyro', 'pandas', 'numpy', 'pyarrow'}"
    asked = f"import sys; from sweeps.command import main; main(['--help']); sys.exit(bool({heavy} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


@pytest.mark.parametrize("arguments", [["fly"], []])
def test_unknown_subcommand_is_one_line_with_what_is_allowed(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(lambda: main(arguments), capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"is unknown; allowed are {', '.join(COMMANDS)}" in err


@pytest.mark.parametrize("name", COMMANDS)
def test_subcommand_has_the_flags_of_its_script_and_its_own_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, help_text, _ = said(lambda: main([name, "--help"]), capsys)
    _, of_script, _ = said(lambda: script(name, "--help"), capsys)
    assert code == 0
    assert re.findall(r"--[a-z][\w-]+", help_text) == re.findall(r"--[a-z][\w-]+", of_script)
    assert help_text.startswith(f"usage: cifar-tune {name} ")
    assert of_script.startswith(f"usage: {SCRIPTS[name]}")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("search", ("--preset", "quick", "--num-sample", "3")),
        ("grid", ("--model", "vgg")),
        ("serve", ("--run", "nowhere")),
        ("train", ("--data", "digits", "--lr", "-1")),
        ("evaluate", ("--model", "vgg", "--checkpoint", "none")),
        ("bench", ("--runtime", "abacus")),
        ("report", ("nowhere",)),
        ("front", ("nowhere", "--min-accuracy", "2")),
        ("compare", ("nowhere", "nowhere", "--threshold", "2")),
        ("cost", ("nowhere", "--price-per-hour", "1")),
    ],
)
def test_wrong_input_ends_as_in_the_script(
    name: str, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    found = said(lambda: main([name, *arguments]), capsys)
    assert found == said(lambda: script(name, *arguments), capsys)
    assert (found[0], found[1], found[2].count("\n")) == (2, "", 1)


def test_usage_names_the_command_as_it_was_called(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(lambda: main(["front"]), capsys)
    assert code == 2
    assert err.startswith("usage: cifar-tune front ")
    assert "cifar-tune front: error:" in err


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/env/bin/cifar-tune", "search", "--name", "a b", "--resume"], "cifar-tune search --name 'a b'"),
        (["sweeps/distill_search.py", "--resume", "--seed", "1"], "python sweeps/distill_search.py --seed 1"),
    ],
)
def test_a_run_records_the_command_that_makes_it_anew(
    argv: list[str], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    write_study(tmp_path, PRESETS["chaos"], environment("cpu"), {})
    assert json.loads((tmp_path / "study.json").read_text())["command"] == command
