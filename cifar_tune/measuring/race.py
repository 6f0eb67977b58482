"""One block of a race: fresh processes, one a contender, that take turns. Knows no Ray.

All are alive, and all are asleep but one. In each round every contender has a turn, in an order that is drawn anew.
So a machine that drifts meets all of them alike, and the ratio of two stays. This is duet benchmarking (Bulej et al.,
arXiv 2001.05811); on few cores the two alternate instead of running at the same time.

Processes differ more than calls, so a race is made of blocks. How many rounds a process is worth follows from the
variances (Kalibera and Jones, "Rigorous benchmarking in reasonable time", 2013).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from cifar_tune.data.datasets import ImageData
from cifar_tune.device import (
    DeviceWatch,
    ForeignLoad,
    Gpu,
    GpuState,
    free_memory,
    measured_cores,
    own_seconds,
    slept_seconds,
)
from cifar_tune.errors import DisturbedError, failed_status, failure
from cifar_tune.measuring.drain import drain
from cifar_tune.measuring.latency import NoWatch, Repeat, Timer, Watch, warm_up
from cifar_tune.measuring.measurement import About, Measured, figures, get_ready, latency_skeleton, refuse_disturbed
from cifar_tune.measuring.processes import TurnTaker, take_turns
from cifar_tune.measuring.target import ROUNDS, Cell, GridSettings, RaceCell
from cifar_tune.records import LatencyRecord
from cifar_tune.rounds import round_medians

TURN_MS = 30.0
"""Of timed calls in a turn."""
MOST_CALLS = 200
"""Of a turn: a call of less than 0.15 ms needs no 30 ms, and its samples are kept."""
WARM_UP_MS = 400.0
"""That a contender may warm up; a quarter is enough once the least calls are made."""
READY_SECONDS = 180.0
"""That a contender may load and check its answers."""
TURN_SECONDS = 120.0
"""That a turn may take: far more than one does, of the slowest model too."""
SLEPT_SECONDS = 1.0
"""That the machine may sleep in a block."""
ROUND_BOUNDS = (5, 30)
WARM_UP = 0
"""Calls that are asked for where a contender is to warm up."""


# --- a contender's process --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What a contender says when it is ready."""

    about: About
    cpu_seconds: float
    """That its process has used so far."""
    gpu_for_one: bool
    """Whether the GPU refuses a second process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What a contender answers when its turn is over and its threads sleep."""

    samples_ms: list[float]
    """Of a warm-up: the median of its last calls."""
    settled: bool = True
    """Whether the warm-up became stable."""
    cpu_seconds: float = 0.0
    """That its process has used so far."""
    gpu_states: tuple[GpuState, ...] = ()
    gpu_uuid: str | None = None


def contend(cell: Cell, settings: GridSettings, data: ImageData) -> None:
    """Load a contender in this fresh process, check its answers, then take its turns."""
    ready = get_ready(cell, settings, data)
    about = ready.about()
    gpu = Gpu.open() if settings.device == "cuda" else None
    timer = Timer(ready.timed, time.perf_counter)
    drain()
    entry = Entry(about=about, cpu_seconds=own_seconds(), gpu_for_one=gpu is not None and gpu.for_one_process())
    take_turns(entry, functools.partial(_turn, timer, settings, gpu))


def _turn(timer: Timer, settings: GridSettings, gpu: Gpu | None, calls: int) -> Turn:
    settled, states = True, [] if gpu is None else [gpu.state()]
    if calls == WARM_UP:
        settled, last_ms = warm_up(timer, settings.latency.warmup, WARM_UP_MS)
        samples = [last_ms]
    else:
        samples = timer.samples(calls)
    if gpu is not None:
        states.append(gpu.state())
    return Turn(
        samples_ms=samples,
        settled=settled,
        cpu_seconds=own_seconds(),
        gpu_states=tuple(states),
        gpu_uuid=None if gpu is None else gpu.uuid,
    )


# --- turns ------------------------------------------------------------------------------------------------------


class Player(Protocol):
    """A contender, as whoever gives the turns sees it."""

    def turn(self, calls: int) -> Turn:
        """Have it make so many timed calls, or warm up; whatever it raises puts it out of the block."""
        ...


@dataclass(slots=True)
class Lane:
    """What a contender has done in the rounds."""

    calls: int = 0
    """Of a turn."""
    samples_ms: list[float] = field(default_factory=list)
    settled: bool = True
    error: Exception | None = None
    """What put it out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounds:
    """What contenders did in one block."""

    lanes: list[Lane]
    kept: int
    discarded: int
    """Rounds taken again because others used the device."""
    contended: int
    """Rounds kept although they did."""


def take_rounds(
    players: Sequence[Player], rounds: int, rng: np.random.Generator, watch: Watch | None = None, retries: int = 1
) -> Rounds:
    """Let players warm up, then have a turn each in every round, in an order that is drawn anew.

    A player that fails is out, and the others go on; without the first one, the baseline, it ends.

    Args:
        retries: rounds that are taken again where the watch finds them disturbed.
    """
    watch = watch or NoWatch()
    lanes = [Lane() for _ in players]
    for i, turn in _turns(players, lanes, rng).items():
        lanes[i].settled = turn.settled
        lanes[i].calls = int(np.clip(round(TURN_MS / max(turn.samples_ms[0], 1e-6)), 1, MOST_CALLS))
    kept = discarded = contended = 0
    while kept < rounds and lanes[0].error is None:
        watch.start()
        turns = _turns(players, lanes, rng)
        disturbed = watch.disturbed()
        if lanes[0].error is not None:
            break
        if disturbed and discarded < retries:
            discarded += 1
            continue
        kept, contended = kept + 1, contended + disturbed
        for i, turn in turns.items():
            lanes[i].samples_ms += turn.samples_ms
    return Rounds(lanes=lanes, kept=kept, discarded=discarded, contended=contended)


def _turns(players: Sequence[Player], lanes: Sequence[Lane], rng: np.random.Generator) -> dict[int, Turn]:
    """A turn of each player that is not out, in random order, by its number; ends where the baseline is out."""
    taken: dict[int, Turn] = {}
    for i in rng.permutation([i for i, lane in enumerate(lanes) if lane.error is None]).tolist():
        try:
            taken[i] = players[i].turn(lanes[i].calls)
        except Exception as error:  # noqa: BLE001 - whatever puts a contender out becomes its row
            lanes[i].error = error
            if i == 0:
                break
    return taken


# --- a block ----------------------------------------------------------------------------------------------------


def raced(cell: RaceCell, settings: GridSettings, data: ImageData) -> list[LatencyRecord]:
    """A row for each contender of one block, in their order, accuracy aside.

    A contender that dies or hangs is a row that says so. Without the baseline all rows fail, and so they do where the
    machine slept. Where memory does not hold all contenders at the same time, they race in groups, each with the
    baseline, which has the row of its first group. On a GPU that takes one process at a time, they race one by one.

    Args:
        data: need hold only the first test images.
    """
    slept = slept_seconds()
    rows: dict[int, LatencyRecord] = {}
    waiting, groups = list(range(1, len(cell.contenders))), 0
    while 0 not in rows or waiting:
        found = _Group(cell, settings, data, waiting).raced()
        waiting = [i for i in waiting if i not in found]
        if found[0].status != "ok":
            failed = f"the baseline failed: {found[0].error}"
            found, waiting = {**{i: _failed(cell, i, settings, failed) for i in waiting}, **found}, []
        rows, groups = {**found, **rows}, groups + 1
    if (asleep := slept_seconds() - slept) > SLEPT_SECONDS:
        rows = {i: _failed(cell, i, settings, f"the machine slept for {asleep:.0f} s") for i in rows}
    if groups > 1:
        said = f"raced in {groups} groups, each with the baseline: memory does not hold all contenders"
        rows = {i: _noted(row, said) for i, row in rows.items()}
    return [rows[i] for i in range(len(cell.contenders))]


def _failed(cell: RaceCell, number: int, settings: GridSettings, why: str | Exception) -> LatencyRecord:
    skeleton = latency_skeleton(cell.singles[number], settings)
    if isinstance(why, str):
        return dataclasses.replace(skeleton, status="failed", error=why)
    return dataclasses.replace(skeleton, status=failed_status(why), error=failure(why))


def _noted(row: LatencyRecord, said: str) -> LatencyRecord:
    return dataclasses.replace(row, note="; ".join(filter(None, (row.note, said))))


class _Seat:
    """A contender's process among those of its group."""

    def __init__(self, number: int, process: TurnTaker, entry: Entry) -> None:
        self.number, self.process, self.entry = number, process, entry
        self.cpu_seconds = entry.cpu_seconds
        self.watch: DeviceWatch | None = None

    def turn(self, calls: int) -> Turn:
        """See `Player`."""
        turn: Turn = self.process.turn(calls, TURN_SECONDS)
        self.cpu_seconds = turn.cpu_seconds
        if self.watch is not None:
            self.watch.saw(turn.gpu_states, turn.gpu_uuid)
        return turn


class _Group:
    """The baseline and those that race beside it at the same time."""

    def __init__(self, cell: RaceCell, settings: GridSettings, data: ImageData, waiting: Sequence[int]) -> None:
        self._cell, self._settings, self._data = cell, settings, data
        self._waiting = waiting
        self._rows: dict[int, LatencyRecord] = {}

    def raced(self) -> dict[int, LatencyRecord]:
        """Rows by the number of the contender: the baseline's, and those of as many others as memory holds."""
        with contextlib.ExitStack() as ends:
            seats = self._enter(ends)
            if seats and not seats[0].entry.gpu_for_one:
                self._race(seats)
            elif seats:
                self._one_by_one(seats[0], ends)
        return self._rows

    def _enter(self, ends: contextlib.ExitStack) -> list[_Seat]:
        """Start contenders one after another, as far as memory goes; one that cannot get ready has its row."""
        seats: list[_Seat] = []
        held = largest = 0
        allowed = self._allowed()
        for number in (0, *self._waiting):
            if len(seats) > 1 and held + largest > allowed:
                break
            with contextlib.ExitStack() as trial:
                seat = self._seat(number, trial)
                if seat is not None:
                    memory = seat.process.memory
                    if len(seats) > 1 and held + memory > allowed:
                        break  # it ends, and is of the next group
                    held, largest = held + memory, max(largest, memory)
                    seats.append(seat)
                    ends.push(trial.pop_all())
            if not seats or seats[0].entry.gpu_for_one:
                break
        return seats

    def _allowed(self) -> float:
        """Bytes that the contenders may hold at the same time."""
        limit = self._settings.race.memory_gb
        return min(free_memory(), math.inf if limit is None else limit * 1e9)

    def _seat(self, number: int, ends: contextlib.ExitStack) -> _Seat | None:
        """Start one; None where it cannot get ready, which is its row."""
        try:
            call = functools.partial(contend, self._cell.contenders[number], self._settings, self._data)
            process = ends.enter_context(TurnTaker(call))
            return _Seat(number, process, process.get_ready(READY_SECONDS))
        except Exception as error:  # noqa: BLE001 - whatever it was becomes its row
            self._rows[number] = _failed(self._cell, number, self._settings, error)
            return None

    def _race(self, seats: Sequence[_Seat], baseline: Lane | None = None) -> Lane:
        """Give them their turns, and write their rows; returns the first one's lane.

        Args:
            baseline: where it is none of them.
        """
        cores = measured_cores(self._settings.measurement_threads)
        own: Callable[[], float] = lambda: own_seconds() + sum(seat.cpu_seconds for seat in seats)  # noqa: E731 - one line says it
        watch = DeviceWatch(self._settings.device, load=lambda: ForeignLoad(cores, own))
        for seat in seats:
            seat.watch = watch
        rounds = take_rounds(
            seats, self._cell.rounds, np.random.default_rng(), watch, retries=self._settings.latency.retries
        )
        beside = baseline or rounds.lanes[0]
        for seat, lane in zip(seats, rounds.lanes, strict=True):
            self._rows[seat.number] = self._row(seat, lane, beside, rounds, watch)
        return rounds.lanes[0]

    def _one_by_one(self, baseline: _Seat, ends: contextlib.ExitStack) -> None:
        """Race on a GPU that takes one process at a time: each begins when the one before has ended."""
        beside = self._race([baseline])
        ends.close()
        for number in self._waiting:
            with contextlib.ExitStack() as end:
                seat = self._seat(number, end)
                if seat is not None:
                    self._race([seat], beside)
        said = "the GPU takes one process at a time, so the contenders ran one after another"
        self._rows = {number: _noted(row, said) for number, row in self._rows.items()}

    def _row(self, seat: _Seat, lane: Lane, beside: Lane, rounds: Rounds, watch: DeviceWatch) -> LatencyRecord:
        try:
            refuse_disturbed(watch, self._settings, contended=rounds.contended > 0)
        except DisturbedError as error:
            return _failed(self._cell, seat.number, self._settings, lane.error or error)
        if lane.error is not None:
            return _failed(self._cell, seat.number, self._settings, lane.error)
        if beside.error is not None:
            return _failed(self._cell, seat.number, self._settings, f"the baseline failed: {failure(beside.error)}")
        repeat = Repeat(
            samples_ms=lane.samples_ms,
            reference_ms=beside.samples_ms,
            anchor_ms=[],
            settled=lane.settled,
            reference_settled=beside.settled,
            windows=rounds.kept,
            discarded=rounds.discarded,
            contended=rounds.contended,
        )
        part = Measured(about=seat.entry.about, repeats=[repeat], blind=watch.blind, evidence=watch.evidence())
        skeleton = latency_skeleton(self._cell.singles[seat.number], self._settings)
        return figures(skeleton, [part], lane.calls, self._settings)


# --- how many rounds --------------------------------------------------------------------------------------------


def rounds_from(rows: Sequence[LatencyRecord]) -> int:
    """Rounds of the blocks to come, from the blocks so far: sqrt(cost of a process / of a round * within / between).

    Within is the variance of a round's log-ratio to the baseline, between that of processes (Kalibera and Jones, 2013).
    Of the contenders' own answers it is the median, at least 5 and at most 30; ROUNDS before there are two blocks.

    Args:
        rows: of a race, with `measure_seconds`; the baseline's and failed ones do not count.
    """
    ran: dict[tuple[str, str], list[LatencyRecord]] = {}
    for row in rows:
        if row.status == "ok" and row.samples_ms != row.reference_ms:
            ran.setdefault((row.checkpoint_sha256, row.variant), []).append(row)
    wanted = [_rounds_of(blocks) for blocks in ran.values() if len(blocks) > 1]
    return int(np.clip(round(float(np.median(wanted))), *ROUND_BOUNDS)) if wanted else ROUNDS


def _rounds_of(blocks: Sequence[LatencyRecord]) -> float:
    """Of one contender."""
    logs = [
        np.log(np.divide(*round_medians(_only(b.samples_ms), _only(b.reference_ms), b.round_calls or 1)))
        for b in blocks
    ]
    within = float(np.mean([np.var(of_block, ddof=1) for of_block in logs]))
    taken = float(np.mean([len(of_block) for of_block in logs]))
    between = max(float(np.var([of_block.mean() for of_block in logs], ddof=1)) - within / taken, 1e-12)
    round_seconds = float(
        np.mean([sum(_only(b.samples_ms)) / 1e3 / len(of) for b, of in zip(blocks, logs, strict=True)])
    )
    process_seconds = float(np.mean([b.measure_seconds or 0.0 for b in blocks])) - taken * round_seconds
    return math.sqrt(max(process_seconds, 0.0) / round_seconds * within / between)


def _only(repeats: Sequence[Sequence[float]] | None) -> Sequence[float]:
    assert repeats is not None, "a row that is ok has samples"
    return repeats[0]
