"""From the grid to the candidate: its finalists race, one is chosen, and new processes confirm it (R16).

A trial of Tune is a block of fresh processes (`cifar_tune.measuring.race`). A resumed run goes
on after the last one that is whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Literal

import pandas as pd

from analysis.choose import choose
from analysis.field import contenders, needs_second_choice, race_is_over
from analysis.frames import Row, rows, variant_of
from analysis.race import frame_of
from analysis.rivals import rivals_of
from cifar_tune.blocks import LOOKS
from cifar_tune.measuring.measurement import latency_skeleton
from cifar_tune.measuring.race import rounds_from
from cifar_tune.measuring.target import Cell, RaceCell, Target
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


def decide(work: Job, targets: Sequence[Target]) -> None:
    """Race the finalists of the grid, choose one, and confirm it."""
    race(work, targets)
    for number in range(CHOICES):
        if not confirm(work, targets, number) or not needs_second_choice(*_asked(work, targets)):
            return


def race(work: Job, targets: Sequence[Target]) -> None:
    """Blocks of fresh processes, until one finalist is the fastest beyond doubt or the next look would come too late.

    A race has the blocks of the first look, whatever they take.
    """
    asked = _asked(work, targets)
    field = contenders(*asked, work.study.race.contenders)
    work.view.say(field.text)
    cells = _cells(asked[0], field.rows, targets)
    for look in LOOKS if len(cells) > 1 else ():
        run_blocks(work, "race", cells, range(1, look + 1))
        next_look = _seconds_raced(work) * (look + LOOKS[0]) / look
        if race_is_over(*_asked(work, targets)) or next_look > work.study.race.time_limit:
            return


def confirm(work: Job, targets: Sequence[Target], number: int) -> bool:
    """Candidate and baseline in blocks of new processes, beside each other; False where there is no candidate.

    A block in which others used the machine is taken again once. That is decided before its figures are looked at.

    Args:
        number: of the choice, counted from 0: each has blocks of its own.
    """
    latency, images, min_accuracy, budget_ms = _asked(work, targets)
    rivals = rivals_of(latency, images)
    chosen = choose(rivals, min_accuracy, budget_ms).index
    if chosen is None or rivals.baseline is None:
        return False
    blocks = work.study.race.confirm_blocks
    cells = _cells(latency, [rivals.baseline["index"], chosen], targets)
    first = 2 * number * blocks + 1
    run_blocks(work, "confirm", cells, range(first, first + blocks))
    again = len(_disturbed(work, range(first, first + blocks)))
    run_blocks(work, "confirm", cells, range(first + blocks, first + blocks + again))
    return True


def _disturbed(work: Job, blocks: Collection[int]) -> set[int]:
    """Those blocks of the confirmation in which others used the machine."""
    confirm = [row for row in work.ledger.read(LatencyRecord) if row.stage == "confirm"]
    return {row.block for row in confirm if row.block in blocks and row.contended}


def _asked(work: Job, targets: Sequence[Target]) -> tuple[pd.DataFrame, int, float, float | None]:
    """The rows of these targets so far, how many images they answered, and the constraints."""
    ids = {target.trial_id for target in targets}
    measured = [row for row in work.ledger.read(LatencyRecord) if row.trial_id in ids]
    study = work.study
    return frame_of(measured), work.test_images, study.min_accuracy, study.latency_budget_ms


def _cells(latency: pd.DataFrame, indices: Sequence[int], targets: Sequence[Target]) -> list[Cell]:
    """The cells of these rows, each once."""
    return list(dict.fromkeys(_cell(row, targets) for row in rows(latency.loc[list(indices)])))


def _cell(row: Row, targets: Sequence[Target]) -> Cell:
    target = next(t for t in targets if t.trial_id == row["trial_id"])
    return Cell(target=target, variant=variant_of(row))


def run_blocks(work: Job, stage: Literal["race", "confirm"], cells: Sequence[Cell], blocks: Sequence[int]) -> None:
    """The blocks that the ledger does not hold; every contender of each ends as a row.

    Args:
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
        rounds = rounds_from([row for row in work.ledger.read(LatencyRecord) if row.stage == "race"])
        wanted = [RaceCell(stage=stage, block=n, contenders=tuple(cells), rounds=rounds) for n in blocks]
        due = [cell for cell in wanted if _is_due(work, cell, again=attempt > 0)]
        run_cells(work, step, RaceTask(cells=tuple(due), settings=grid_settings(work), data=work.data), keep)


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
    return [dataclasses.replace(latency_skeleton(single, settings), error=error) for single in cell.singles]


def _seconds_raced(work: Job) -> float:
    """What the blocks of the race took so far, those before an interruption with it: each row has its share."""
    return sum(row.measure_seconds or 0.0 for row in work.ledger.read(LatencyRecord) if row.stage == "race")
