"""The turns of a race against synthetic clocks and processes."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from analysis_data import latency

from cifar_tune.blocks import modes, ratio
from cifar_tune.errors import ProcessDiedError
from cifar_tune.measuring.drain import LIMIT_SECONDS, drain
from cifar_tune.measuring.race import MOST_CALLS, TURN_MS, WARM_UP, Rounds, Turn, rounds_from, take_rounds
from cifar_tune.measuring.target import ROUNDS as DEFAULT_ROUNDS
from cifar_tune.records import LatencyRecord

SPIN_SECONDS = 0.025
ROUNDS = 10


class Machine:
    """A clock that calls and waits move, a speed that drifts, and threads that spin after calls."""

    def __init__(self, drift: float = 0.0) -> None:
        self.now, self.drift, self.spins_until = 0.0, drift, 0.0

    def call(self, milliseconds: float, *, spins: bool) -> float:
        """What a call takes that has the machine to itself for so long."""
        slower = (1 + self.drift * self.now) * (1.3 if self.now < self.spins_until else 1.0)
        self.now += milliseconds * slower / 1e3
        if spins:
            self.spins_until = self.now + SPIN_SECONDS
        return milliseconds * slower

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def drained(self) -> bool:
        return drain(lambda: self.now < self.spins_until, lambda: self.now, self.sleep)


class Fake:
    """A contender's process: all its calls take the same time on a machine at rest."""

    def __init__(self, machine: Machine, milliseconds: float, *, spins: bool = False, drains: bool = True) -> None:
        self.machine, self.milliseconds, self.spins, self.drains = machine, milliseconds, spins, drains
        self.asked: list[int] = []

    def turn(self, calls: int) -> Turn:
        self.asked.append(calls)
        samples = [self.machine.call(self.milliseconds, spins=self.spins) for _ in range(max(1, calls))]
        if self.drains:
            self.machine.drained()
        return Turn(samples_ms=samples)


class Dies(Fake):
    """Dies in its third turn, the warm-up counted."""

    def turn(self, calls: int) -> Turn:
        if len(self.asked) == 2:
            raise ProcessDiedError("the process died")
        return super().turn(calls)


def block(players: Sequence[Fake], seed: int = 0) -> Rounds:
    return take_rounds(players, ROUNDS, np.random.default_rng(seed))


def medians(rounds: Rounds) -> list[float]:
    return [float(np.median(lane.samples_ms)) for lane in rounds.lanes]


def race(blocks: int, speeds: Callable[[np.random.Generator], Sequence[float]], drift: float = 0.0) -> np.ndarray:
    """Medians of blocks on one machine that drifts, whose processes have speeds of their own: (contenders, blocks)."""
    machine, rng = Machine(drift), np.random.default_rng(1)
    return np.array([medians(block([Fake(machine, ms) for ms in speeds(rng)], seed)) for seed in range(blocks)]).T


def test_a_turn_is_as_many_calls_as_its_time_holds() -> None:
    slow, fast, tiny = Fake(Machine(), 100.0), Fake(Machine(), 1.0), Fake(Machine(), 0.01)
    block([slow, fast, tiny])
    wanted = [[WARM_UP, *[calls] * ROUNDS] for calls in (1, round(TURN_MS), MOST_CALLS)]
    assert [player.asked for player in (slow, fast, tiny)] == wanted


def test_the_order_of_turns_is_drawn_anew_in_each_round() -> None:
    firsts: list[int] = []

    class Notes(Fake):
        def turn(self, calls: int) -> Turn:
            firsts.append(players.index(self))
            return super().turn(calls)

    players = [Notes(Machine(), 1.0) for _ in range(4)]
    take_rounds(players, 200, np.random.default_rng(0))
    begins = firsts[4::4]
    assert all(30 < begins.count(i) < 70 for i in range(4))


def test_ratio_survives_a_machine_that_drifts() -> None:
    found = race(5, lambda _: (2.0, 1.0), drift=0.1)
    assert found[0, -1] > 1.2 * found[0, 0]  # that it drifts
    assert ratio(found[1], found[0]).middle == pytest.approx(0.5, rel=0.01)


def test_processes_that_differ_widen_the_interval_of_the_ratio() -> None:
    alike = race(5, lambda _: (2.0, 1.0))
    unlike = race(5, lambda rng: (2.0, float(np.exp(rng.normal(0, 0.05)))))
    widths = [found.high / found.low - 1 for found in (ratio(t[1], t[0]) for t in (alike, unlike))]
    assert widths[0] < 0.001 < 0.05 < widths[1]


def test_a_contender_with_two_speeds_shows_both_over_the_blocks() -> None:
    found = race(10, lambda rng: (2.0, float(rng.choice([1.0, 1.6]))))
    assert modes(found[1]) == pytest.approx((1.0, 1.6))


@pytest.mark.parametrize(("drains", "slowest"), [(True, 1.0), (False, 1.3)])
def test_a_neighbour_that_spins_on_is_in_no_sample_once_it_is_waited_for(drains: bool, slowest: float) -> None:
    machine = Machine()
    found = block([Fake(machine, 5.0, spins=True, drains=drains), Fake(machine, 1.0)])
    assert max(found.lanes[1].samples_ms) == pytest.approx(slowest)


def test_the_wait_for_a_thread_that_never_sleeps_ends() -> None:
    machine = Machine()
    machine.spins_until = np.inf
    assert not machine.drained()
    assert machine.now < 2 * LIMIT_SECONDS


def test_a_contender_that_dies_is_out_and_the_others_go_on() -> None:
    machine = Machine()
    lanes = block([Fake(machine, 10.0), Dies(machine, 10.0), Fake(machine, 10.0)]).lanes
    assert [str(lane.error) for lane in lanes] == ["None", "the process died", "None"]
    assert [len(lane.samples_ms) for lane in (lanes[0], lanes[2])] == [3 * ROUNDS] * 2


def test_without_the_baseline_the_block_ends() -> None:
    machine = Machine()
    other = Fake(machine, 10.0)
    found = block([Dies(machine, 10.0), other])
    assert (str(found.lanes[0].error), found.kept) == ("the process died", 1)
    assert len(other.asked) <= 3


class Disturbed:
    """Says of the first rounds that others used the device."""

    def __init__(self, rounds: int) -> None:
        self.left = rounds

    def start(self) -> None:
        pass

    def disturbed(self) -> bool:
        self.left -= 1
        return self.left >= 0


@pytest.mark.parametrize(("disturbed", "contended"), [(1, 0), (3, 2)])
def test_a_disturbed_round_is_taken_again_once(disturbed: int, contended: int) -> None:
    machine = Machine()
    players = [Fake(machine, 10.0), Fake(machine, 10.0)]
    found = take_rounds(players, ROUNDS, np.random.default_rng(0), Disturbed(disturbed), retries=1)
    assert (found.kept, found.discarded, found.contended) == (ROUNDS, 1, contended)
    assert len(found.lanes[0].samples_ms) == 3 * ROUNDS


def noisy_row(rng: np.random.Generator, within: float, between: float) -> LatencyRecord:
    """A row of a block whose process took as long as its ten rounds."""
    level, calls = float(rng.normal(0, between)), 5
    own = np.exp(level + np.repeat(rng.normal(0, within, 10), calls))
    seconds = 2 * float(own.sum()) / 1e3
    return latency(
        stage="race", samples_ms=[own.tolist()], reference_ms=[[1.0] * 50], round_calls=calls, measure_seconds=seconds
    )


@pytest.mark.parametrize(("within", "between", "rounds"), [(0.001, 0.05, 5), (0.1, 0.02, 16), (0.1, 0.0, 30)])
def test_rounds_follow_from_the_variances_within_their_bounds(within: float, between: float, rounds: int) -> None:
    rng = np.random.default_rng(0)
    assert rounds_from([noisy_row(rng, within, between) for _ in range(400)]) == pytest.approx(
        rounds, abs=4 if rounds == 16 else 0
    )


def test_without_two_blocks_nothing_is_known_of_variances() -> None:
    assert rounds_from([noisy_row(np.random.default_rng(0), 0.1, 0.1)]) == DEFAULT_ROUNDS
