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
from pathlib import Path

from common import Target, finish, parser, share

from analysis.choose import choose
from analysis.compare import compare
from analysis.frames import Run, label, load_run, rows, select
from analysis.report import REPORT_FILES
from analysis.rivals import rivals_of
from cifar_tune.config import Variant

COMMAND = Path(__file__).resolve().parent.parent / "sweeps" / "distill_search.py"
AGREES = 0.10
"""Share by which the confirmed ratio may differ from the race's."""


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


def candidate(run: Run) -> str | None:
    """What the run shipped, as a row's label."""
    if run.card is None:
        return None
    shipped = run.card["trial_id"], Variant(**run.card["variant"]).name
    mine = [row for row in rows(run.latency) if (row["trial_id"], row["variant"]) == shipped]
    return label(mine[0]) if mine else None


def confirmed(run: Run, name: str) -> bool:
    """Whether the candidate's confirmed ratio is within the race's rerun interval, and within 10 % of its ratio."""
    named = [row for row in rows(select(run.latency, run.latency["ratio"].notna())) if label(row) == name]
    race, fresh = (next((row for row in named if row["stage"] == stage), None) for stage in ("race", "confirm"))
    if race is None or fresh is None:
        return False
    near = abs(fresh["ratio"] / race["ratio"] - 1) <= AGREES
    return near and race["rerun_low"] <= fresh["ratio"] <= race["rerun_high"]


def disturbance(run: Run) -> str:
    """The rows of race and confirmation that others disturbed, as recorded."""
    raced = rows(select(run.latency, run.latency["stage"].isin(["race", "confirm"])))
    marked = [row for row in raced if row["contended"]]
    worst = max((row["foreign_cpu"] or 0.0 for row in raced), default=0.0)
    return f"{len(marked)} of {len(raced)} rows disturbed, at most {worst:.2f} cores by others"


def tied_text(run: Run) -> str:
    """The run's own justification, which names the rows that it cannot tell from the candidate."""
    return choose(rivals_of(run.latency, run.test_images), run.min_accuracy, run.latency_budget_ms).text


def report(runs: list[Run], least: int) -> bool:
    """Print what each run chose; whether enough were confirmed and agree."""
    names = [candidate(run) for run in runs]
    held = [name is not None and confirmed(run, name) for run, name in zip(runs, names, strict=True)]
    texts = [tied_text(run) for run in runs]
    for run, name, sure in zip(runs, names, held, strict=True):
        verdict = "confirmed" if sure else "NOT confirmed"
        print(f"{run.path.name}: {name or 'no candidate'}, {verdict}; {disturbance(run)}")
    most = Counter(name for name in names if name is not None).most_common(1)
    usual = most[0][0] if most else "none"
    agreeing = [name == usual or usual in text for name, text in zip(names, texts, strict=True)]
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
