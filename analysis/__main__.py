"""Report on a finished run.

Commands: `python -m analysis report RUN`, `python -m analysis front RUN`.
"""

# pandas' own annotations leave these unknown:
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from analysis.frames import STORAGE, load_run, select
from analysis.report import REPORT_FILES, analyse, write_report
from cifar_tune.bucket import Bucket, is_uri

_FRONT_COLUMNS = ["model", "arm", "variant", "test_accuracy", "p50_ms", "front_probability", "feasible", "candidate"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, 2 where the run cannot be read."""
    options = _parser().parse_args(arguments)
    try:
        print(_report(options.run) if options.command == "report" else _front(options.run))
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis", description="Report on a finished run.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("report", "write the report again, print its path"), ("front", "print the Pareto front")):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("run", metavar="RUN", help=f"path or s3:// URI of a run, or the name of one in {STORAGE}")
    return parser


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


def _front(run: str) -> str:
    findings = analyse(load_run(run))
    front = select(findings.front, findings.front["on_front"] | findings.front["candidate"])
    if front.empty:
        return findings.choice.text
    shown = front.assign(candidate=["*" if chosen else "" for chosen in front["candidate"]])
    return shown.to_string(columns=_FRONT_COLUMNS, index=False, float_format=lambda value: f"{value:.4f}")


if __name__ == "__main__":
    sys.exit(main())
