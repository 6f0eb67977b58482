"""From the grid to the candidate: its finalists race, one is chosen, and new processes confirm it (R16).

A trial of Tune is a block of fresh processes (`cifar_tune.measuring.race`). A resumed run goes
on after the last one that is whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from analysis.race import baseline_row, contenders, needs_second_choice, race_is_over

from analysis.choose import choose
from analysis.frames import Row, Run, rows, variant_of
from analysis.report import Report, write_report
from analysis.rivals import rivals_of
from cifar_tune.blocks import LOOKS
from cifar_tune.measuring.measurement import latency_skeleton
from cifar_tune.measuring.target import Cell, MeasurementCell, RaceCell, Target
from cifar_tune.records import LatencyRecord
from cifar_tune.runs.ledger import latency_key
from cifar_tune.tuning.metrics import row_measured
from cifar_tune.tuning.proxies import race_block
from cifar_tune.tuning.slots import exclusive_bundle
from cifar_tune.tuning.stages import CellStep, run_cells
from cifar_tune.tuning.workbench import RaceTask
from sweeps.steps.grid import Preparations, grid_settings, with_accuracy, with_build
from sweeps.steps.job import Job

CHOICES = 2
"""The choice is made again once, where its confirmation leaves another contender faster."""
ATTEMPTS = 2
"""Times that a block is taken in which the baseline failed, or the machine slept."""

Tables = Callable[[], Run]
"""Writes the run's tables from its ledger, and reads them."""


def decide(work: Job, targets: Sequence[Target], tables: Tables) -> Report:
    """Race, choose, confirm; the report that says what came of it."""
    race(work, targets, tables)
    for number in range(CHOICES):
        run = tables()
        chosen = choose(rivals_of(run.latency, run.test_images), run.min_accuracy, run.latency_budget_ms)
        if chosen.index is None:
            break
        confirm(work, targets, run, chosen.index, number)
        if not needs_second_choice(tables()):
            break
    tables()
    return write_report(work.run)


def race(work: Job, targets: Sequence[Target], tables: Tables) -> None:
    """Blocks of fresh processes, until one finalist is the fastest beyond doubt or the time is up."""
    run = tables()
    field = contenders(run, work.study.race.contenders)
    if field.cut:
        work.view.say(field.cut)
    raced = [_cell(row, targets) for row in field.rows]
    for look in LOOKS if len(raced) > 1 else ():
        run_blocks(work, "race", raced, range(1, look + 1))
        if race_is_over(tables(), look) or _seconds_raced(work) >= work.study.race.time_limit:
            return


def confirm(work: Job, targets: Sequence[Target], run: Run, index: int, number: int) -> None:
    """Candidate and baseline in blocks of new processes, beside each other.

    Args:
        index: of the candidate's row in the latency table.
        number: of the choice, counted from 0: each has blocks of its own.
    """
    blocks = work.study.race.confirm_blocks
    (candidate,) = rows(run.latency.loc[[index]])
    cells = dict.fromkeys(_cell(row, targets) for row in (baseline_row(run), candidate))
    run_blocks(work, "confirm", list(cells), range(number * blocks + 1, (number + 1) * blocks + 1))


def _cell(row: Row, targets: Sequence[Target]) -> Cell:
    target = next(t for t in targets if t.trial_id == row["trial_id"])
    return Cell(target=target, variant=variant_of(row))


def run_blocks(work: Job, stage: str, cells: Sequence[Cell], blocks: Sequence[int]) -> None:
    """The blocks that the ledger does not hold; every contender of each ends as a row.

    Args:
        stage: race or confirm.
        cells: the contenders, the baseline first.
    """
    prepared = Preparations(work)

    def keep(cell: RaceCell, measured: list[LatencyRecord] | None, error: str | None) -> str:
        records = measured or _dead(work, cell, error)
        for contender, record in zip(cell.contenders, records, strict=True):
            row = with_build(with_accuracy(record, contender, prepared), contender, prepared)
            work.ledger.put_latency(row)
            row_measured(row)
        times = [r.p50_ms for r in records if r.p50_ms is not None]
        return f"block {cell.block}: {len(times)} of {len(records)} measured" + (
            f", {min(times):.3f} ms the fastest" if times else ""
        )

    step = CellStep(title=stage, trainable=race_block, bundle=exclusive_bundle(work.info, work.device))
    for attempt in range(ATTEMPTS):
        due = [cell for cell in _blocks(stage, cells, blocks) if _is_due(work, cell, again=attempt > 0)]
        run_cells(work, step, RaceTask(cells=tuple(due), settings=grid_settings(work), data=work.data), keep)


def _blocks(stage: str, cells: Sequence[Cell], blocks: Sequence[int]) -> list[RaceCell]:
    return [RaceCell(stage=stage, block=block, contenders=tuple(cells)) for block in blocks]


def _is_due(work: Job, cell: RaceCell, *, again: bool) -> bool:
    """Whether a block is yet to be measured.

    Args:
        again: it has been tried; a contender that failed beside a baseline that did not has failed.
    """
    done = work.ledger.latency_keys(work.study.latency.protocol)
    wanted = cell.contenders[:1] if again else cell.contenders
    return not {_key(cell, contender) for contender in wanted} <= done


def _key(cell: RaceCell, contender: Cell) -> str:
    return latency_key(cell.stage, contender.target.checkpoint_sha256, contender.variant.name, cell.block)


def _dead(work: Job, cell: RaceCell, error: str | None) -> list[LatencyRecord]:
    """The rows of a block whose worker died."""
    settings = grid_settings(work)
    return [
        dataclasses.replace(
            latency_skeleton(
                MeasurementCell(target=c.target, variant=c.variant, stage=cell.stage, block=cell.block), settings
            ),
            error=error,
        )
        for c in cell.contenders
    ]


def _seconds_raced(work: Job) -> float:
    """What the blocks of the race took so far, those before an interruption with it."""
    taken: dict[int, float] = {}
    for row in work.ledger.read(LatencyRecord):
        if row.stage == "race":
            taken[row.block] = max(taken.get(row.block, 0.0), row.measure_seconds or 0.0)
    return sum(taken.values())
