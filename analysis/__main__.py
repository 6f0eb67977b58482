"""Report on finished runs.

Commands: `python -m analysis report RUN`, `python -m analysis front RUN`, `python -m analysis compare RUN_A RUN_B`,
`python -m analysis cost RUN... --price-per-hour PRICE...`.
"""

# pandas' own annotations leave these unknown:
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from analysis.compare import LATENCY_THRESHOLD, compare, regressions
from analysis.cost import cost, plot_cost
from analysis.frames import STORAGE, asking, load_run, select
from analysis.report import REPORT_FILES, analyse, write_report
from analysis.sections.front import OBJECTIVES, wide_front
from cifar_tune.bucket import Bucket, is_uri

_FRONT_COLUMNS = ["model", "arm", "variant", "test_accuracy", "p50_ms", "front_probability", "feasible", "candidate"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 1 for a regression that `compare` finds, 2 for an unreadable run.

    3 is for a fault of this program.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.command == "compare":
            return _compare(options)
        if options.command == "cost":
            print(_cost(options))
            return 0
        print(_report(options.run) if options.command == "report" else _front(options))
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Exception:  # noqa: BLE001 - a fault of ours: Python's own exit code would be that of a regression
        traceback.print_exc()
        return 3
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description="Report on a finished run.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("report", "write the report again, print its path"), ("front", "print the Pareto front")):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("run", metavar="RUN", help=f"path or s3:// URI of a run, or the name of one in {STORAGE}")
        if name == "front":
            text = f"what counts beside latency and accuracy: {', '.join(OBJECTIVES)}"
            command.add_argument("--beside", nargs="+", default=[], metavar="OBJECTIVE", help=text)
            text = "what the candidate must hold, 0 to 1, instead of what the study asked for"
            command.add_argument("--min-accuracy", type=float, metavar="SHARE", help=text)
            text = "p50 that the candidate must hold, milliseconds, likewise"
            command.add_argument("--latency-budget-ms", type=float, metavar="MS", help=text)
    text = "what differs between two runs; exit code 1 on a regression"
    command = commands.add_parser("compare", help=text, description=text)
    for name in ("first", "second"):
        command.add_argument(name, metavar="RUN", help="path, s3:// URI or name of a run")
    command.add_argument(
        "--threshold", type=float, default=LATENCY_THRESHOLD, help="share by which a row must be slower to count"
    )
    command.add_argument(
        "--absolute", action="store_true", help="count a slower FP32 eager, too: the machine was the same, and alone"
    )
    text = "what a million images cost on the devices of several runs"
    command = commands.add_parser("cost", help=text, description=text)
    command.add_argument("runs", nargs="+", metavar="RUN", help="path, s3:// URI or name of a run, one a device")
    command.add_argument(
        "--price-per-hour", nargs="+", type=float, required=True, metavar="PRICE", help="of each run's device"
    )
    command.add_argument("--picture", type=Path, metavar="FILE", help="PNG of the costs to write")
    return parser


def _cost(options: argparse.Namespace) -> str:
    runs = [load_run(run) for run in options.runs]
    text = cost(runs, options.price_per_hour)
    if options.picture is not None:
        plot_cost(runs, options.price_per_hour, options.picture)
    return text


def _compare(options: argparse.Namespace) -> int:
    if not 0 <= options.threshold < 1:
        raise ValueError(f"threshold is {options.threshold}; allowed is 0 or more, below 1")
    runs = load_run(options.first), load_run(options.second)
    print(compare(*runs, options.threshold, absolute=options.absolute))
    return 1 if regressions(*runs, options.threshold, absolute=options.absolute) else 0


def _report(run: str) -> str:
    report = write_report(run)
    if not is_uri(run):
        return f"{report.text}\n{report.path}"
    parent, _, name = run.rstrip("/").rpartition("/")
    for written in REPORT_FILES:
        path = report.path.with_name(written)
        if path.is_file():
            Bucket(parent).put(f"{name}/{written}", path)
    return f"{report.text}\n{run.rstrip('/')}/{report.path.name}"


def _front(options: argparse.Namespace) -> str:
    findings = analyse(asking(load_run(options.run), options.min_accuracy, options.latency_budget_ms))
    beside: Sequence[str] = options.beside
    if findings.front.empty:
        return findings.choice.text
    everything = findings.front.assign(
        **{name: OBJECTIVES[name](findings.front) for name in beside if name in OBJECTIVES}
    )
    front = select(everything, wide_front(everything, beside) | everything["candidate"])
    shown = front.assign(candidate=["*" if chosen else "" for chosen in front["candidate"]])
    columns = [*_FRONT_COLUMNS, *beside]
    table = shown.to_string(columns=columns, index=False, float_format=lambda value: f"{value:.4f}")
    return f"{table}\n\n{findings.choice.text}"


if __name__ == "__main__":
    sys.exit(main())
