"""Whether `make run`, done again and again, confirms its candidate and chooses the same.

    python benchmarks/repeated_runs.py FOLDER [--runs 10] [--preset quick] [--least-agreeing 9]

Runs of the preset, one after another, into FOLDER. One that is there and finished is not done again, and one that was
cut off is resumed. Printed are how many are confirmed, with the exact interval, which candidate each chose, which rows
it could not tell from it, and the evidence of a disturbance, whatever the result. Disjoint pairs go through `compare`.
Ten runs of `quick` take about an hour.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from common import Target, finish, parser, share

from analysis.choose import choose
from analysis.compare import compare
from analysis.frames import Run, label, load_run, rows, select
from analysis.race import key_of
from analysis.report import REPORT_FILES
from analysis.rivals import rivals_of

COMMAND = Path(__file__).resolve().parent.parent / "sweeps" / "distill_search.py"


def measured(options: argparse.Namespace) -> list[Run]:
    """All runs, those that lack made now."""
    names = [f"again-{number:02d}" for number in range(1, options.runs + 1)]
    for name in names:
        folder: Path = options.folder / name
        if all((folder / file).is_file() for file in REPORT_FILES):
            continue
        given = ["--preset", options.preset, "--storage", str(options.folder), "--name", name]
        resume = ["--resume"] if (folder / "study.json").is_file() else []
        subprocess.run([sys.executable, COMMAND, *given, *resume], check=True, stdout=subprocess.DEVNULL)
        print(f"{name}: measured", flush=True)
    return [load_run(options.folder / name) for name in names]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """What a run chose, read from its tables anew."""

    name: str
    """Label of the candidate."""
    tied: set[str]
    """Labels of the rows that it could not tell from the candidate."""
    confirmed: bool
    """Whether new processes repeated the race's ratio."""


def chosen(run: Run) -> Chosen | None:
    """What the run chose; None: nothing."""
    rivals = rivals_of(run.latency, run.test_images)
    choice = choose(rivals, run.min_accuracy, run.latency_budget_ms)
    if choice.index is None:
        return None
    named = {row["index"]: row for row in rivals.rows}
    confirmation = rivals.race.confirmation(key_of(named[choice.index]))
    return Chosen(
        name=label(named[choice.index]),
        tied={label(named[index]) for index in choice.tied},
        confirmed=confirmation is not None and confirmation.agrees,
    )


def disturbance(run: Run) -> str:
    """The rows of race and confirmation that others disturbed, as recorded."""
    raced = rows(select(run.latency, run.latency["stage"].isin(["race", "confirm"])))
    marked = [row for row in raced if row["contended"]]
    worst = max((row["foreign_cpu"] or 0.0 for row in raced), default=0.0)
    return f"{len(marked)} of {len(raced)} rows disturbed, at most {worst:.2f} cores by others"


def report(runs: list[Run], least: int) -> bool:
    """Print what each run chose; whether enough were confirmed and agree."""
    choices = [chosen(run) for run in runs]
    for run, choice in zip(runs, choices, strict=True):
        said = "no candidate" if choice is None else f"{choice.name}, {'' if choice.confirmed else 'NOT '}confirmed"
        print(f"{run.path.name}: {said}; {disturbance(run)}")
    held = [choice is not None and choice.confirmed for choice in choices]
    most = Counter(choice.name for choice in choices if choice is not None).most_common(1)
    usual = most[0][0] if most else "none"
    agreeing = [choice is not None and usual in {choice.name, *choice.tied} for choice in choices]
    print(f"confirmed: {share(held)}; chose {usual}, or could not tell its own from it: {share(agreeing)}")
    for one, other in zip(runs[::2], runs[1::2], strict=False):
        found = compare(one, other)
        worse = "; ".join(move.name for move in found.regressions) or "no regression"
        print(f"compare {one.path.name} {other.path.name}: {worse}")
    wanted = Target("at least", least)
    return all([wanted.judge("confirmed runs", sum(held), "d"), wanted.judge("agreeing runs", sum(agreeing), "d")])


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("folder", type=Path)
    flags.add_argument("--runs", type=int, default=10)
    flags.add_argument("--preset", default="quick")
    flags.add_argument("--least-agreeing", type=int, default=9, help="runs to be confirmed, and to agree")
    options = flags.parse_args()
    finish(met=report(measured(options), options.least_agreeing), runs=options.runs)


if __name__ == "__main__":
    main()
