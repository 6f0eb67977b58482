"""What a large study would take: a discrete-event simulation of its searches on a cluster, fed with measured costs.

    python benchmarks/simulate_cluster.py                                  # 10,000 trials on 64 nodes
    python benchmarks/simulate_cluster.py --images 5000 --nodes 16         # every cost and size is a flag
    python benchmarks/suggestion_cost.py > costs.json                      # what a suggestion costs on this machine
    python benchmarks/simulate_cluster.py --costs costs.json               # with what was measured there

The driver is one server with a queue: it suggests, hears of each epoch and keeps each result, one after another, as
Tune's loop does. A slot trains epoch by epoch, waits for the driver after each, and loses the epoch it is in when its
node is lost. ASHA stops trials by its own rule, among trials that do not get better with time. Searches follow one
another, as in the main job; finalists and the grid are not simulated. The same figures for a seed.

`heapq` is the whole machinery, and no package for simulation: the driver's queue is one number (when it is free), so
simpy's processes and resources would be a dependency more, and not a line less.
"""

from __future__ import annotations

import bisect
import dataclasses
import heapq
import itertools
import json
import math
import random
import sys
from collections import deque
from pathlib import Path

from cifar_tune import cli

CHUNK_IMAGES = 2048
"""cifar_tune/training/teacher.py: as many answers are computed by one trial at a time."""
RETRIES = 2
"""cifar_tune/tuning/stages.py: how often a trial goes on whose worker dies."""
SEARCH_START = 4.0
"""sweeps/steps/plan.py: start-up of a Tune experiment."""
SNAPSHOT_SHARE = 0.05
"""Of the driver's time, at most, for Tune's own snapshots: the bound in Ray's tune/execution/experiment_state.py."""
FILES = 12
"""Durable writes of a trial by the driver, about as many as the code has: Optuna's journal, ledger, kept weights."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """A study, the cluster it runs on, and what each step costs; times in seconds."""

    trials: int = 10_000
    searches: int = 4
    """One after another, plain and distill in turn: two students."""
    nodes: int = 64
    slots: int = 8
    """Trials at the same time on a node."""
    images: int = 45_000
    """Of an epoch."""
    epochs: int = 20
    grace: int = 2
    """Epochs before ASHA may stop a trial."""
    images_per_second: float = 720.0
    """Measured: speednet in a slot of two threads, bf16 (docs/log.md). That all slots are as fast is assumed."""
    variation: float = 0.15
    """Assumed: an epoch lasts up to this share less or more. Without it trials go in step, and queue together."""
    answers_per_second: float = 400.0
    """Measured: the teacher's answers, two cores (docs/log.md)."""
    trial_seconds: float = 0.254
    """Measured: search_cost.py overhead, two cores, local disk (docs/log.md). All of it counts as the driver's."""
    suggest_seconds: float = 0.007
    """Measured: suggestion_cost.py (docs/large_studies.md)."""
    suggest_growth: float = 26e-6
    """More for each trial that its search has. Measured: suggestion_cost.py (docs/large_studies.md)."""
    report_seconds: float = 0.02
    """Assumed: the driver's share of an epoch, old checkpoint removed."""
    file_seconds: float = 0.01
    """Assumed: a durable write on a shared file system."""
    worker_start: float = 10.0
    """Assumed: start of a worker, which then serves one trial after another."""
    replace_seconds: float = 300.0
    """Assumed: until a lost node is there again."""
    loss_per_node_hour: float = 0.02
    """Assumed: nodes lost an hour, of each."""
    price: float = 0.70
    """Assumed: USD of a training node and hour."""
    price_of_the_rest: float = 1.90
    """Assumed: USD of head and measuring node together, an hour."""
    seed: int = 0
    costs: str | None = None
    """JSON file with values of these fields, which take the place of what is given otherwise."""

    def suggestion(self, known: float) -> float:
        """The driver's time for a point, with as many trials in the search."""
        return self.suggest_seconds + self.suggest_growth * known

    @property
    def end(self) -> float:
        """The driver's time to end a trial and keep it."""
        return self.trial_seconds + FILES * self.file_seconds


@dataclasses.dataclass(slots=True, eq=False)
class Trial:
    """A trial of the simulation."""

    quality: float
    node: int = -1
    epoch: int = 0
    losses: int = 0
    begun: float = 0.0
    """The present epoch."""


class Simulation:
    """The searches of a study on a cluster, run to their end by `run`."""

    def __init__(self, cluster: Cluster) -> None:
        self.c, self.random = cluster, random.Random(cluster.seed)
        self.now = self.driver_free = self.driver_busy = self.useful = self.wasted = 0.0
        self.known = self.left = self.failed = self.lost_nodes = self.epochs_run = self.distilled = 0
        self.events: list[tuple[float, int, str, int, Trial | None, int]] = []
        self.order = itertools.count()
        self.free = [node for _ in range(cluster.slots) for node in range(cluster.nodes)]
        self.unstarted = dict.fromkeys(range(cluster.nodes), cluster.slots)
        """Of each node: slots whose worker has still to start."""
        self.running: dict[int, dict[Trial, None]] = {node: {} for node in range(cluster.nodes)}
        self.away: set[int] = set()
        self.waiting: deque[Trial] = deque()
        self.answered: dict[int, float] = {}
        """Epoch -> when the teacher's answers to it are there, for all that follow."""
        self._handlers = {
            "epoch_ended": self._epoch_ended, "slot_free": self._slot_free, "lost": self._lost, "back": self._back
        }  # fmt: skip
        for node in range(cluster.nodes):
            self._after(self._until_loss(), "lost", node)

    def _until_loss(self) -> float:
        rate = self.c.loss_per_node_hour / 3600
        return self.random.expovariate(rate) if rate else math.inf

    def _after(self, seconds: float, event: str, node: int, trial: Trial | None = None) -> None:
        attempt = trial.losses if trial else 0
        heapq.heappush(self.events, (self.now + seconds, next(self.order), event, node, trial, attempt))

    def _drive(self, seconds: float, *, next_of_all: bool = False) -> float:
        """Let the driver work on something that arrives now; how long until it is done."""
        seconds /= 1 - SNAPSHOT_SHARE
        self.driver_free = max(self.driver_free, self.now) + seconds
        self.driver_busy += seconds
        return seconds if next_of_all else self.driver_free - self.now

    def run(self) -> Simulation:
        """Itself, when all trials have ended."""
        for number in range(self.c.searches):
            self.distill, self.rungs = number % 2 == 1, milestones(self.c)
            self.left, self.known, self.now = self.c.trials // self.c.searches, 0, self.now + SEARCH_START
            self._dispatch()
            while self.left or self.waiting or any(self.running.values()):
                at, _, event, node, trial, attempt = heapq.heappop(self.events)
                self.now = max(self.now, at)
                if trial is None or trial.losses == attempt:  # else of a worker that is no more
                    self._handlers[event](node, trial)
            self.now = max(self.now, self.driver_free)
        return self

    def _dispatch(self) -> None:
        """Give the free slots what waits, trials that lost their node first; Tune does that before it hears of more."""
        driven = 0.0
        while self.free and (self.waiting or self.left):
            node = self.free.pop()
            if self.waiting:
                trial, cost = self.waiting.popleft(), self.c.trial_seconds
            else:
                trial, cost = Trial(self.random.random()), self.c.suggestion(self.known)
                self.known, self.left = self.known + 1, self.left - 1
            driven += self._drive(cost, next_of_all=True)
            start = self.c.worker_start if self.unstarted[node] else 0.0
            self.unstarted[node] = max(0, self.unstarted[node] - 1)
            trial.node, self.running[node][trial] = node, None
            self._begin_epoch(trial, driven + start)

    def _begin_epoch(self, trial: Trial, wait: float) -> None:
        trial.begun = self.now + wait
        if self.distill:
            chunks = math.ceil(self.c.images / CHUNK_IMAGES)
            turns = math.ceil(chunks / min(chunks, self.c.nodes * self.c.slots))
            there = trial.begun + turns * min(CHUNK_IMAGES, self.c.images) / self.c.answers_per_second
            trial.begun = max(trial.begun, self.answered.setdefault(trial.epoch, there))
        epoch = self.c.images / self.c.images_per_second * (1 + self.c.variation * self.random.uniform(-1, 1))
        self._after(trial.begun - self.now + epoch, "epoch_ended", trial.node, trial)

    def _epoch_ended(self, node: int, trial: Trial) -> None:
        trial.epoch, self.epochs_run = trial.epoch + 1, self.epochs_run + 1
        self.useful += self.now - trial.begun
        self.distilled += self.distill
        if trial.epoch < self.c.epochs and not self._stopped(trial):
            self._begin_epoch(trial, self._drive(self.c.report_seconds))
        else:
            del self.running[node][trial]
            self._after(self._drive(self.c.report_seconds + self.c.end), "slot_free", node)

    def _stopped(self, trial: Trial) -> bool:
        """ASHA's rule: at a milestone, below the best third of those that came there before."""
        rung = self.rungs.get(trial.epoch)
        if rung is None:
            return False
        behind = bool(rung) and trial.quality < rung[math.ceil((len(rung) - 1) * 2 / 3)]
        bisect.insort(rung, trial.quality)
        return behind

    def _slot_free(self, node: int, _: Trial | None) -> None:
        if node not in self.away and len(self.running[node]) + self.free.count(node) < self.c.slots:
            self.free.append(node)
        self._dispatch()

    def _lost(self, node: int, _: Trial | None) -> None:
        self.lost_nodes += 1
        self.away.add(node)
        self.free = [n for n in self.free if n != node]
        for trial in self.running[node]:
            self.wasted += max(0.0, self.now - trial.begun)
            trial.losses += 1
            if trial.losses <= RETRIES:
                self.waiting.append(trial)
            else:
                self.failed += 1
                self._drive(self.c.end)
        self.running[node] = {}
        self._after(self.c.replace_seconds, "back", node)
        self._dispatch()

    def _back(self, node: int, _: Trial | None) -> None:
        self.away.discard(node)
        self.unstarted[node] = self.c.slots
        self.free += [node] * self.c.slots
        self._after(self._until_loss(), "lost", node)
        self._dispatch()


def milestones(cluster: Cluster) -> dict[int, list[float]]:
    """Epochs at which ASHA decides, each with the sorted qualities of the trials that came there."""
    found, epoch = {}, cluster.grace
    while epoch < cluster.epochs:
        found[epoch], epoch = [], 3 * epoch
    return found


def report(s: Simulation) -> str:
    """The figures of a simulation that has run."""
    c, hours = s.c, s.now / 3600
    trials, slots = c.searches * (c.trials // c.searches), c.nodes * c.slots
    epochs = s.epochs_run / trials
    first, last = (
        (c.suggestion(n) + c.end + epochs * c.report_seconds) / (1 - SNAPSHOT_SHARE) for n in (0, trials / c.searches)
    )
    cost = hours * (c.nodes * c.price + c.price_of_the_rest)
    answers = c.images / c.answers_per_second / 3600
    lines = (
        f"{trials} trials in {c.searches} searches on {c.nodes} nodes of {c.slots} slots, {c.images} images",
        f"makespan {hours:.2f} h; a trial has {epochs:.1f} epochs of {c.images / c.images_per_second:.0f} s",
        f"slots in use {s.useful / (s.now * slots):.0%}, driver in use {s.driver_busy / s.now:.0%}",
        f"the driver sustains {1 / first:.2f} trials/s at a search's start and {1 / last:.2f} at its end,",
        f"  which is work for {s.useful / trials / last:.0f} slots: more would wait for it",
        f"nodes lost {s.lost_nodes}, trials failed {s.failed}, training done again {s.wasted / 3600:.2f} slot hours",
        f"teacher's answers {len(s.answered) * answers:.1f} slot hours, {s.distilled * answers:.0f} without the cache",
        f"cost {cost:.0f} USD, {1000 * cost / trials:.2f} per thousand trials",
    )
    return "\n".join(lines)


def main() -> None:
    cluster = cli.parse(Cluster, sys.argv[1:], prog="simulate_cluster.py", description=__doc__ or "")
    if cluster.costs:
        cluster = dataclasses.replace(cluster, **json.loads(Path(cluster.costs).read_text()))
    print(report(Simulation(cluster).run()))


if __name__ == "__main__":
    main()
