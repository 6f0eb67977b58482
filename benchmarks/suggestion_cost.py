"""What Optuna's next point costs the driver, as JSON for simulate_cluster.py: a line through two sizes of a search.

    python benchmarks/suggestion_cost.py > costs.json

Processor time, which does not wait for the disk, of what `cifar_tune/tuning/searcher.py` does for each trial: ask,
compare with all earlier points, tell.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import optuna
from common import about
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from cifar_tune.presets import PRESETS
from cifar_tune.space import suggest

FEW, MANY = 100, 2500
REPEATS = 7
STUDY, ARM = PRESETS["cpu"], "distill"


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    memory = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(MANY):
        trial = memory.ask()
        suggest(trial, STUDY, ARM)
        trial.report(number % 97 / 97, step=1)
        memory.tell(trial, state=TrialState.PRUNED)  # as ASHA ends most
    few, many = (seconds_with(memory.trials[:count]) for count in (FEW, MANY))
    growth = (many - few) / (MANY - FEW)
    print(json.dumps({"suggest_seconds": round(few - growth * FEW, 5), "suggest_growth": round(growth, 8)}))
    print(about(REPEATS), file=sys.stderr)


def seconds_with(known: list[optuna.trial.FrozenTrial]) -> float:
    sampler = optuna.samplers.TPESampler(multivariate=True, constant_liar=True, n_startup_trials=10, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        storage = JournalStorage(JournalFileBackend(str(Path(folder, "optuna.journal"))))
        study = optuna.create_study(sampler=sampler, storage=storage)
        study.add_trials(known)
        started = time.process_time()
        for _ in range(REPEATS):
            trial = study.ask()
            suggest(trial, STUDY, ARM)
            others = (t.params for t in study.get_trials(deepcopy=False) if t.number != trial.number)
            assert trial.params not in others
            study.tell(trial, 0.5)
        return (time.process_time() - started) / REPEATS


if __name__ == "__main__":
    main()
