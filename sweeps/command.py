"""The installed command: `cifar-tune SUBCOMMAND`, each with the flags and exit codes of the script it stands for.

    cifar-tune --help
    cifar-tune search --preset quick          # as python sweeps/distill_search.py --preset quick
    cifar-tune bench --runtime onnxruntime    # as python -m cifar_tune bench --runtime onnxruntime
    cifar-tune report RUN                     # as python -m analysis report RUN

Only what is asked for is imported: the list of subcommands is there at once, and a report needs no PyTorch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

PROGRAM = "cifar-tune"
USAGE_ERROR = 2
OURS = ("cifar_tune", "sweeps", "analysis")


class Command(NamedTuple):
    """A subcommand."""

    module: str
    """Has main(argv, prog). A package's `__main__` gets the subcommand as the first word of argv."""
    help: str
    """One line."""


COMMANDS = {
    "search": Command("sweeps.distill_search", "the main job: teacher, students, variant grid, front, report"),
    "grid": Command("sweeps.variant_grid", "every inference variant of trained models"),
    "serve": Command("sweeps.serve_candidate", "the chosen model behind HTTP, with its load test"),
    "train": Command("cifar_tune.commands.train", "one training"),
    "evaluate": Command("cifar_tune.commands.evaluate", "one reading of the test set"),
    "bench": Command("cifar_tune.commands.bench", "the latency of one variant"),
    "report": Command("analysis.__main__", "write the report of a run again"),
    "front": Command("analysis.__main__", "print the Pareto front of a run"),
    "compare": Command("analysis.__main__", "what differs between two runs"),
    "cost": Command("analysis.__main__", "what a million images cost on the devices of several runs"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns its exit code, 2 where there is no such subcommand."""
    name, *argv = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name not in COMMANDS:
        return _refuse(f"command {name!r} is unknown; allowed are {', '.join(COMMANDS)}")
    module = COMMANDS[name].module
    try:
        run = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in OURS:
            raise
        return _refuse(f"{PROGRAM} {name} needs more packages: pip install '.[train]' ({error})")
    code = run([name, *argv], PROGRAM) if module.endswith(".__main__") else run(argv, f"{PROGRAM} {name}")
    return code or 0


def _help() -> str:
    lines = (f"  {name:<10}{command.help}" for name, command in COMMANDS.items())
    usage = f"usage: {PROGRAM} SUBCOMMAND [OPTIONS]"
    what = "Which model, training recipe and inference variant has the lowest latency at the accuracy you need."
    return "\n".join([usage, "", what, "", *lines, "", f"{PROGRAM} SUBCOMMAND --help shows its options."])


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
