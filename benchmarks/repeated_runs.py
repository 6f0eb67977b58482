"""Whether `make run`, done again and again, confirms its candidate and chooses the same.

    python benchmarks/repeated_runs.py FOLDER [--runs 10] [--preset quick] [--least-agreeing 9]

Runs of the preset, one after another, into FOLDER. One that is there and finished is not done again, and one that was
cut off is resumed. Printed are how many are confirmed, with the exact interval, which candidate each chose, which rows
it could not tell from it, and the evidence of a disturbance, whatever the result. Disjoint pairs go through `compare`.

A run is excused where others disturbed more than half of the rows of its race and confirmation: the table says so
before anyone looks at a figure. Another is made in its place, up to MOST_EXCUSED. Both counts are printed, the one
with the excused runs as well. Ten runs of `quick` take about an hour.
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
from analysis.rivals import rivals_of

COMMAND = Path(__file__).resolve().parent.parent / "sweeps" / "distill_search.py"
MOST_EXCUSED = 4
"""Runs that are made in the place of disturbed ones."""


def measured(options: argparse.Namespace) -> list[Run]:
    """Runs until enough were not disturbed; those that lack are made now."""
    runs: list[Run] = []
    while sum(not disturbance(run).excuses for run in runs) < options.runs:
        if len(runs) == options.runs + MOST_EXCUSED:
            break
        runs.append(_run(options, f"again-{len(runs) + 1:02d}"))
    return runs


def _run(options: argparse.Namespace, name: str) -> Run:
    """The run of this name, made now where it is not there."""
    folder: Path = options.folder / name
    if not (folder / "report.html").is_file():
        given = ["--preset", options.preset, "--storage", str(options.folder), "--name", name]
        resume = ["--resume"] if (folder / "study.json").is_file() else []
        subprocess.run([sys.executable, COMMAND, *given, *resume], check=True, stdout=subprocess.DEVNULL)
        print(f"{name}: measured", flush=True)
    return load_run(folder)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Disturbance:
    """What a run's table records of others on the machine, in the rows of race and confirmation."""

    disturbed: int
    of: int
    cores: float
    """Most cores that others took."""

    @property
    def excuses(self) -> bool:
        """Whether more than half of the rows were disturbed."""
        return 2 * self.disturbed > self.of

    @property
    def text(self) -> str:
        """In a line."""
        excused = "excused: " if self.excuses else ""
        return f"{excused}{self.disturbed} of {self.of} rows disturbed, at most {self.cores:.2f} cores by others"


def disturbance(run: Run) -> Disturbance:
    """What the run's table records of others."""
    raced = rows(select(run.latency, run.latency["stage"].isin(["race", "confirm"])))
    return Disturbance(
        disturbed=sum(bool(row["contended"]) for row in raced),
        of=len(raced),
        cores=max((row["foreign_cpu"] or 0.0 for row in raced), default=0.0),
    )


def report(runs: list[Run], least: int) -> bool:
    """Print what each run chose; whether enough were confirmed and agree."""
    choices = {run.path.name: chosen(run) for run in runs}
    for run in runs:
        choice = choices[run.path.name]
        said = "no candidate" if choice is None else f"{choice.name}, {'' if choice.confirmed else 'NOT '}confirmed"
        print(f"{run.path.name}: {said}; {disturbance(run).text}")
    most = Counter(choice.name for choice in choices.values() if choice is not None).most_common(1)
    usual = most[0][0] if most else "none"
    counted = [choices[run.path.name] for run in runs if not disturbance(run).excuses]
    _counts("all runs", list(choices.values()), usual)
    confirmed, agreeing = _counts("those not excused", counted, usual)
    for one, other in zip(runs[::2], runs[1::2], strict=False):
        found = compare(one, other)
        worse = "; ".join(move.name for move in found.regressions) or "no regression"
        print(f"compare {one.path.name} {other.path.name}: {worse}")
    wanted = Target("at least", least)
    return all([wanted.judge("confirmed runs", confirmed, "d"), wanted.judge("agreeing runs", agreeing, "d")])


def _counts(which: str, choices: list[Chosen | None], usual: str) -> tuple[int, int]:
    """Print how many are confirmed, and how many chose what most did or could not tell it apart; both counts."""
    held = [choice is not None and choice.confirmed for choice in choices]
    agreeing = [choice is not None and usual in {choice.name, *choice.tied} for choice in choices]
    print(f"{which}: confirmed {share(held)}; chose {usual}, or could not tell its own from it {share(agreeing)}")
    return sum(held), sum(agreeing)


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("folder", type=Path)
    flags.add_argument("--runs", type=int, default=10)
    flags.add_argument("--preset", default="quick")
    flags.add_argument("--least-agreeing", type=int, default=9, help="runs to be confirmed, and to agree")
    options = flags.parse_args()
    runs = measured(options)
    finish(met=report(runs, options.least_agreeing), runs=len(runs))


if __name__ == "__main__":
    main()
