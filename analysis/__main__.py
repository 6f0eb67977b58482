"""Report on finished runs.

Commands: `python -m analysis report RUN`, `python -m analysis front RUN`, `python -m analysis compare RUN_A RUN_B`,
`python -m analysis cost RUN... --price-per-hour PRICE...`. Installed, they are `cifar-tune report RUN` and so on.

What a command computes with is imported where the command begins: `--help` answers at once.
"""

# pandas' own annotations leave these unknown:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from analysis import load_run

_FRONT_COLUMNS = [
    *("model", "arm", "variant", "test_accuracy", "latency_ms", "figure", "front_probability", "feasible", "candidate"),
]
_RUN = "path or s3:// URI of a run, or the name of one in ray_results"


def main(arguments: Sequence[str] | None = None, prog: str = "python -m analysis") -> int:
    """Run the command line; returns the exit code: 1 for a regression that `compare` finds, 2 for an unreadable run.

    3 is for a fault of this program.
    """
    options = _parser(prog).parse_args(arguments)
    try:
        return {"report": _report, "front": _front, "compare": _compare, "cost": _cost}[options.command](options)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Exception:  # noqa: BLE001 - a fault of ours: Python's own exit code would be that of a regression
        traceback.print_exc()
        return 3


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="Report on finished runs.")
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")

    report = add("report", "write a run's report again and print its path")
    report.add_argument("run", metavar="RUN", help=_RUN)
    _add_front_options(add("front", "print a run's Pareto front and its candidate"))
    _add_compare_options(add("compare", "print what differs between two runs; exit with 1 on a regression"))
    _add_cost_options(add("cost", "print what a million images cost on the device of each run"))
    return parser


def _add_front_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", help=_RUN)
    text = "more objectives of the front, beside latency and accuracy: size, build, energy"
    command.add_argument("--beside", nargs="+", default=[], metavar="OBJECTIVE", help=text)
    text = "least accuracy of the candidate, 0 to 1 (default: the study's)"
    command.add_argument("--min-accuracy", type=float, metavar="SHARE", help=text)
    text = "highest p50 of the candidate in milliseconds (default: the study's)"
    command.add_argument("--latency-budget-ms", type=float, metavar="MS", help=text)


def _add_compare_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("first", metavar="RUN_A", help=_RUN)
    command.add_argument("second", metavar="RUN_B", help="the run that may have become worse")
    text = "a row counts as slower from this share on, 0 to 1 (default: 0.05)"
    command.add_argument("--threshold", type=float, metavar="SHARE", help=text)
    text = "count a slower FP32 eager as well; use it where both runs had the same machine to themselves"
    command.add_argument("--absolute", action="store_true", help=text)
    text = "fresh figures of RUN_B: a row is a regression only where these say so, too"
    command.add_argument("--again", metavar="RUN_C", help=text)


def _add_cost_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("runs", nargs="+", metavar="RUN", help=f"{_RUN}; one run for each device")
    text = "price of each run's device per hour, in the order of the runs"
    command.add_argument("--price-per-hour", nargs="+", type=float, required=True, metavar="PRICE", help=text)
    command.add_argument("--picture", type=Path, metavar="FILE", help="write the costs as a PNG, too")


def _report(options: argparse.Namespace) -> int:
    from analysis.report import REPORT_FILES, write_report
    from cifar_tune.bucket import Bucket, is_uri

    run: str = options.run
    report = write_report(run)
    path = str(report.path)
    if is_uri(run):
        parent, _, name = run.rstrip("/").rpartition("/")
        for written in REPORT_FILES:
            if report.path.with_name(written).is_file():
                Bucket(parent).put(f"{name}/{written}", report.path.with_name(written))
        path = f"{run.rstrip('/')}/{report.path.name}"
    print(f"{report.text}\n{path}")
    return 0


def _front(options: argparse.Namespace) -> int:
    from analysis.choose import choose
    from analysis.frames import asking, select
    from analysis.rivals import rivals_of
    from analysis.sections.front import OBJECTIVES, front_table, wide_front

    run = asking(load_run(options.run), options.min_accuracy, options.latency_budget_ms)
    rivals = rivals_of(run.latency, run.test_images)
    choice = choose(rivals, run.min_accuracy, run.latency_budget_ms)
    front = front_table(rivals, run.min_accuracy, choice)
    if not front.empty:
        beside: Sequence[str] = options.beside
        front = front.assign(**{name: OBJECTIVES[name](front) for name in beside if name in OBJECTIVES})
        shown = select(front, wide_front(front, beside) | front["candidate"])
        shown = shown.assign(
            candidate=["*" if chosen else "" for chosen in shown["candidate"]],
            latency_ms=shown["typical_ms"].astype(float).fillna(shown["paired_ms"]),
        )
        columns = [*_FRONT_COLUMNS, *beside]
        form = "{:.4f}".format
        print(shown.to_string(columns=columns, index=False, float_format=form, na_rep="-"), end="\n\n")
    print(choice.text)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from analysis.compare import LATENCY_THRESHOLD, compare

    threshold = LATENCY_THRESHOLD if options.threshold is None else options.threshold
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold is {threshold}; allowed is 0 or more, below 1")
    again = None if options.again is None else load_run(options.again)
    runs = load_run(options.first), load_run(options.second)
    found = compare(*runs, threshold, absolute=options.absolute, again=again)
    print(found.text)
    return 1 if found.regressions else 0


def _cost(options: argparse.Namespace) -> int:
    from analysis.cost import cost, offers, plot_cost

    found = offers([load_run(run) for run in options.runs], options.price_per_hour)
    if options.picture is not None:
        plot_cost(found, options.picture)
    print(cost(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
