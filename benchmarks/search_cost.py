"""What a distillation search costs, as ratios in one run. Each part prints its figures and targets.

    python benchmarks/search_cost.py epoch      # a distillation epoch beside a plain one, and beside an online teacher
    python benchmarks/search_cost.py search     # 8 trials beside the way everyone writes it (benchmarks/usual_way.py)
    python benchmarks/search_cost.py sooner     # time to the same best validation accuracy, 32 trials
    python benchmarks/search_cost.py overhead   # what Tune adds to a trial
    python benchmarks/search_cost.py memory     # one copy of the data; what a trial holds
    python benchmarks/search_cost.py growth     # time against the number of trials and of images

CIFAR-10 comes from --data (a Parquet folder); it exits with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import torch
from common import Target, alternate, finish, parser, spread
from ray import tune
from usual_way import train_usual

from cifar_tune.config import DataConfig, RecipeConfig, TrainConfig, ViewConfig, ViewSettings
from cifar_tune.data.datasets import ImageData, load, subset
from cifar_tune.device import usable_cpus
from cifar_tune.models.weights import save_weights
from cifar_tune.presets import PRESETS
from cifar_tune.records import EpochRecord, TrialRecord
from cifar_tune.runs.ledger import Ledger
from cifar_tune.store import sha256_file
from cifar_tune.study import StudyConfig
from cifar_tune.training.loop import train
from cifar_tune.training.teacher import CachedTeacher, OnlineTeacher, TeacherRef, load_model
from cifar_tune.tuning.cluster import cluster
from cifar_tune.tuning.context import RunContext
from cifar_tune.tuning.progress import StudyView
from cifar_tune.tuning.slots import Slots
from cifar_tune.tuning.stages import search
from cifar_tune.tuning.trainables import Training, TrainTask

Timeline = list[tuple[float, float]]
"""Unix time and best validation accuracy at the start and at the end of each epoch."""
STUDENT, TEACHER = "mobilenet_v3_small", "resnet18"
CACHED_EPOCH, FIRST_EPOCH = Target("at most", 1.05), Target("at most", 1.0)
WHOLE_SEARCH, STEADY = Target("at least", 4.0), Target("at least", 6.0)
SOONER = Target("at least", 8.0)
ORDERS = 1000
JUDGES = 1 / 3
"""Share of few images that validate: a tenth of them would tell no trials apart."""
OVERHEAD = Target("at most", 0.3, unit=" s")
TRIAL = Target("at most", 1.5 * 1024, unit=" MiB")


def teacher_of(data: ImageData, folder: Path, epochs: int = 1) -> TeacherRef:
    """A teacher that knows a little."""
    config = TrainConfig(model=TEACHER, arm="teacher", epochs=epochs, lr=0.05, threads=usable_cpus())
    path = folder / "teacher.safetensors"
    for epoch in train(config, data):
        save_weights(epoch.model, path)
    return TeacherRef(model=TEACHER, checkpoint=str(path), sha256=sha256_file(path))


def epoch_config(arm: str, batch: int) -> TrainConfig:
    alpha = 0.7 if arm == "distill" else 0.0
    return TrainConfig(
        model=STUDENT, arm=arm, epochs=1, lr=0.05, alpha=alpha, batch_size=batch, threads=usable_cpus(),
        views=ViewConfig(),
    )  # fmt: skip


def epoch(args: argparse.Namespace, folder: Path) -> bool:
    """Epochs of one training each, alternated: plain, distilled from a full cache, with an empty one, FP32 online."""
    data = subset(load(DataConfig(source=args.data)), args.images, 0)
    ref = teacher_of(subset(data, 512, 0), folder)
    full = CachedTeacher(folder / "full", ref, data, ViewConfig())
    online = OnlineTeacher(ref, data, ViewConfig())
    online.model, online.precision = load_model(ref.model, len(data.classes), ref.checkpoint), "fp32"  # as usual
    list(train(epoch_config("distill", args.batch), data, full))
    numbers = itertools.count()

    def seconds(arm: str, teacher: CachedTeacher | OnlineTeacher | None) -> float:
        started = time.perf_counter()
        list(train(epoch_config(arm, args.batch), data, teacher))
        return time.perf_counter() - started

    turns = {
        "plain": lambda: seconds("plain", None),
        "cached": lambda: seconds("distill", full),
        "first": lambda: seconds("distill", CachedTeacher(folder / f"fresh{next(numbers)}", ref, data, ViewConfig())),
        "online": lambda: seconds("distill", online),
    }
    cached, first = [], []
    for took in alternate(turns, args.rounds, "shuffled"):
        cached.append(took["cached"] / took["plain"])
        first.append(took["first"] / took["online"])
        print(f"round {len(cached)}: " + ", ".join(f"{k} {v:.1f} s" for k, v in took.items()), flush=True)
    print(
        f"{STUDENT}, {len(data.train_labels)} images of CIFAR-10, teacher {TEACHER}, medians of {args.rounds} rounds:"
    )
    verdicts = [
        CACHED_EPOCH.judge("cached / plain epoch", spread(cached)),
        FIRST_EPOCH.judge("first, which computes the logits / online FP32 epoch", spread(first)),
    ]
    return all(verdicts)


# --- whole searches ---------------------------------------------------------------------------------------------


def study_of(args: argparse.Namespace, folder: Path, **changes: Any) -> StudyConfig:
    cpu = PRESETS["cpu"]
    return dataclasses.replace(
        cpu, data=DataConfig(source=args.data), storage=str(folder), epochs=args.epochs, num_samples=args.trials,
        early_stopping=False, dashboard=False, recipe=RecipeConfig(batch_size=args.batch),
        space=dataclasses.replace(cpu.space, lr_range=(0.02, 0.1)), views=ViewSettings(crop_padding=4), **changes,
    )  # fmt: skip


def ours(study: StudyConfig, data: ImageData, ref: TeacherRef | None, run: Path) -> tuple[float, list[TrialRecord]]:
    """Seconds of a whole search, from starting Ray to the last record, and its trials."""
    run.mkdir()
    arm = "plain" if ref is None else "distill"
    started = time.perf_counter()
    with cluster(study) as info, StudyView() as view:
        slots = Slots(concurrent=info.cpus, cpus=1, gpus=0.0)
        task = TrainTask(
            study=study,
            stage=arm,
            template=Training(arm=arm, model=STUDENT, sample={}, seed=study.seed, epochs=study.epochs),
            device="cpu",
            threads=1,
            teacher=ref,
            teacher_folder=str(run / "teacher_logits"),
            data=ray.put(data),
        )
        context = RunContext(
            study=study, run=run, dataset=data.label, device="cpu", ledger=Ledger(run), view=view, info=info
        )
        trials = search(context, task, study.num_samples, slots)
        return time.perf_counter() - started, trials


def usual(
    study: StudyConfig, data: ImageData, ref: TeacherRef, points: Sequence[dict[str, Any]], workers: int, run: Path
) -> tuple[float, list[Timeline]]:
    """Seconds of the same points trained in the usual way, as many trials at a time, and when each got how far."""
    settings = {
        "model": STUDENT,
        "seed": 0,
        "batch": study.recipe.batch_size,
        "epochs": study.epochs,
        "workers": workers,
    }
    name = f"usual{workers}-{len(points)}"
    started = time.perf_counter()
    ray.init(address="local", num_cpus=usable_cpus(), include_dashboard=False, log_to_driver=False)
    try:
        results = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(train_usual, data=data, teacher=(ref.model, ref.checkpoint), settings=settings),
                {"cpu": 1},
            ),
            param_space={"point": tune.grid_search(list(points))},
            run_config=tune.RunConfig(storage_path=str(run.absolute()), name=name, verbose=0),
        ).fit()
        return time.perf_counter() - started, [r.metrics["timeline"] for r in results]
    finally:
        ray.shutdown()


def whole_search(args: argparse.Namespace, folder: Path) -> bool:
    """The same points both ways; the usual way with whichever number of loader workers is fastest."""
    data = load(DataConfig(source=args.data, train_images=args.images))
    ref = teacher_of(data, folder)
    study = study_of(args, folder)
    seconds, trials = ours(study, data, ref, folder / "ours")
    points = [{n: getattr(t, n) for n in ("lr", "schedule", "temperature", "alpha")} for t in trials]
    images = len(data.train_labels) * args.epochs
    workers = fastest_loading(args, study, data, ref, points, folder)
    theirs, timelines = usual(study, data, ref, points, workers, folder)
    accuracies = [timeline[-1][1] for timeline in timelines]
    ends = [(t.started_at or 0.0) + (t.train_seconds or 0.0) for t in trials]
    steady, theirs_steady = steady_rate(ends, images), steady_rate([line[-1][0] for line in timelines], images)
    own = [t.val_accuracy or 0.0 for t in trials]
    print(f"{args.trials} trials, {args.epochs} epochs, {len(data.train_labels)} images of CIFAR-10, {STUDENT}:")
    # the same points on both sides, so in pairs: what the points do to the accuracy is no noise
    differences = np.array(own) - np.array(accuracies)
    noise = 2 * float(differences.std(ddof=1) / np.sqrt(len(differences)))
    same = abs(differences.mean()) <= noise
    rates = [len(points) * images / s for s in (seconds, theirs)]
    each = "{:.0f} and {:.0f} images/s, times as many"
    verdicts = [
        WHOLE_SEARCH.judge(f"whole search: {each.format(*rates)}", rates[0] / rates[1], ".2f"),
        STEADY.judge(f"steady: {each.format(steady, theirs_steady)}", steady / theirs_steady, ".2f"),
    ]
    print(f"validation accuracy: mean {np.mean(own):.3f} and {np.mean(accuracies):.3f}, "
          f"best {max(own):.3f} and {max(accuracies):.3f}")  # fmt: skip
    print(f"in pairs {differences.mean():+.3f}, two standard errors {noise:.3f}: {'the' if same else 'not the'} same")
    return same and all(verdicts)


def fastest_loading(
    args: argparse.Namespace, study: StudyConfig, data: ImageData, ref: TeacherRef, points: Sequence[dict[str, Any]],
    folder: Path,
) -> int:  # fmt: skip
    """Loader workers with which the usual way is fastest, by an epoch of as many trials as cores, on a quarter."""
    quarter, once = subset(data, len(data.train_labels) // 4, 0), dataclasses.replace(study, epochs=1)
    probe = {w: usual(once, quarter, ref, points[: usable_cpus()], w, folder)[0] for w in args.workers}
    print("usual way, loader workers: " + ", ".join(f"{w}: {s:.0f} s" for w, s in probe.items()), flush=True)
    return min(probe, key=lambda w: probe[w])


def sooner(args: argparse.Namespace, folder: Path) -> bool:
    """Seconds until the validation accuracy that every search reaches: ours with ASHA, that way without.

    Which trial is the lucky one is chance: ours is searched with several seeds, and the usual way's trials, which know
    nothing of one another, are replayed in random orders. Its points are those of our first search: it has no better.
    """
    data = load(DataConfig(source=args.data, train_images=args.images, validation_fraction=JUDGES))
    ref = teacher_of(data, folder, epochs=4)
    study = dataclasses.replace(study_of(args, folder), early_stopping=True, grace_epochs=1)
    searches = [
        timed_search(dataclasses.replace(study, seed=seed), data, ref, folder / f"ours{seed}")
        for seed in range(args.rounds)
    ]
    points = [{n: getattr(t, n) for n in ("lr", "schedule", "temperature", "alpha")} for t in searches[0].trials]
    workers = fastest_loading(args, study, data, ref, points, folder)
    seconds, timelines = usual(study, data, ref, points, workers, folder)
    own = [max(accuracy for _, accuracy in s.line) for s in searches]
    theirs = max(line[-1][1] for line in timelines)
    goal = min(*own, theirs)
    noise = 2 * float(np.sqrt(2 * goal * (1 - goal) / len(data.validation_labels)))
    reached = [min(at for at, accuracy in s.line if accuracy >= goal) for s in searches]
    replayed = [until(goal, timelines, seconds, order) for order in range(ORDERS)]
    ratio = float(np.mean(replayed) / np.mean(reached))
    low, high = np.percentile(replayed, [5, 95])
    print(f"{args.trials} trials, {args.epochs} epochs, {len(data.train_labels)} images of CIFAR-10, {STUDENT}:")
    print(f"best validation accuracy {', '.join(f'{a:.3f}' for a in own)} (ours, by seed) and {theirs:.3f}; two "
          f"standard errors {noise:.3f}; {goal:.3f} after {', '.join(f'{s:.0f}' for s in reached)} s and, over "
          f"{ORDERS} orders, {np.mean(replayed):.0f} s (90 % of them {low:.0f} to {high:.0f})")  # fmt: skip
    whole = seconds / float(np.mean([s.seconds for s in searches]))
    print(f"whole searches: {', '.join(f'{s.seconds:.0f}' for s in searches)} and {seconds:.0f} s, {whole:.2f} times")
    met = SOONER.judge("times sooner", ratio, ".2f")
    return met and float(np.mean(own)) >= theirs - noise


@dataclasses.dataclass(frozen=True)
class TimedSearch:
    """One search of ours: its seconds, and each epoch's end, in seconds from its start, with its accuracy."""

    seconds: float
    trials: list[TrialRecord]
    line: Timeline


def timed_search(study: StudyConfig, data: ImageData, ref: TeacherRef, run: Path) -> TimedSearch:
    began = time.time()
    seconds, trials = ours(study, data, ref, run)
    epochs: dict[str, list[EpochRecord]] = {}
    for record in Ledger(run).read(EpochRecord):
        epochs.setdefault(record.trial_id, []).append(record)
    line = [
        ((t.started_at or 0.0) + float(sum(e.seconds for e in epochs[t.trial_id][:n])) - began, e.val_accuracy)
        for t in trials
        for n, e in enumerate(epochs[t.trial_id], start=1)
    ]
    return TimedSearch(seconds, trials, line)


def until(goal: float, timelines: Sequence[Timeline], seconds: float, order: int) -> float:
    """Seconds until the usual way reaches a goal with its trials in a random order, each as long as it was.

    Args:
        seconds: of the whole search; what of it no trial accounts for surrounds each of them alike.
    """
    cores = usable_cpus()
    surrounds = (seconds * cores - sum(line[-1][0] - line[0][0] for line in timelines)) / len(timelines)
    free, reached = [0.0] * cores, []
    for number in np.random.default_rng(order).permutation(len(timelines)):
        line, core = timelines[number], int(np.argmin(free))
        reached += [free[core] + surrounds + at - line[0][0] for at, accuracy in line if accuracy >= goal][:1]
        free[core] += surrounds + line[-1][0] - line[0][0]
    return min(reached)


def steady_rate(ends: Sequence[float], images: int) -> float:
    """Images a second of all trials, from when each ended: once the first have, start-up and teacher are done."""
    cores, ordered = usable_cpus(), sorted(ends)
    return (len(ordered) - cores) * images / (ordered[-1] - ordered[cores - 1])


# --- overhead, memory, growth -----------------------------------------------------------------------------------


def trivial_study(args: argparse.Namespace, folder: Path, trials: int, **changes: Any) -> StudyConfig:
    return dataclasses.replace(study_of(args, folder, **changes), num_samples=trials, epochs=1)


def overhead(args: argparse.Namespace, folder: Path) -> bool:
    """Trials of one step each: a search of 100 less one of 4, so that Ray's start is left out."""
    data = load(DataConfig(source="digits", train_images=40, test_images=10))
    few, many = (ours(trivial_study(args, folder, n), data, None, folder / f"trivial{n}")[0] for n in (4, 100))
    each = (many - few) / 96
    print(f"100 trials of one step: {many:.1f} s, 4 trials: {few:.1f} s")
    return OVERHEAD.judge(f"a trial on {usable_cpus()} cores", each)


def memory(args: argparse.Namespace, folder: Path) -> bool:
    """Proportional set size of each training worker, the teacher's answers included, and of the mapping that holds the
    images, on all of CIFAR-10."""
    data = load(DataConfig(source=args.data))
    ref = teacher_of(subset(data, 512, 0), folder)
    size = data.train_images.nbytes / 2**20
    worst: dict[str, float] = {"trial": 0.0, "shared": 0.0}
    with watched(worst):
        ours(dataclasses.replace(study_of(args, folder), num_samples=2, epochs=1), data, ref, folder / "memory")
    verdicts = [
        TRIAL.judge("largest proportional set size of a trial", worst["trial"], ".0f"),
        Target("at least", size, ".0f", " MiB").judge("shared by all processes, one copy", worst["shared"], ".0f"),
        Target("below", 2 * size, ".0f", " MiB").judge("and not two", worst["shared"], ".0f"),
    ]
    return worst["trial"] > 0 and all(verdicts)


@contextlib.contextmanager
def watched(worst: dict[str, float]) -> Iterator[None]:
    """Sample the workers of this process each second."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(1.0):
            shared = 0.0
            driver = psutil.Process()  # it put the images there: pages that no worker has read are its own
            for child in (driver, *driver.children(recursive=True)):
                with contextlib.suppress(psutil.Error, OSError):
                    maps = child.memory_maps(grouped=False)
                    shared += sum(m.pss for m in maps if m.path.startswith("/dev/shm")) / 2**20
                    if " ".join(child.cmdline()).startswith("ray::ImplicitFunc.train"):
                        worst["trial"] = max(worst["trial"], sum(m.pss for m in maps) / 2**20)
            worst["shared"] = max(worst["shared"], shared)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def growth(args: argparse.Namespace, folder: Path) -> bool:
    """Seconds against trials (of one step) and against images (two plain trials of one epoch), with the exponent."""
    digits = load(DataConfig(source="digits", train_images=40, test_images=10))
    counts = (8, 32, 128)
    by_trials = [ours(trivial_study(args, folder, n), digits, None, folder / f"trials{n}")[0] for n in counts]
    images = (4000, 16000, 50000)
    by_images = []
    for count in images:
        data = load(DataConfig(source=args.data, train_images=count))
        by_images.append(ours(trivial_study(args, folder, 2), data, None, folder / f"images{count}")[0])
    for name, xs, ys in (("trials", counts, by_trials), ("images", images, by_images)):
        exponent = float(np.polyfit(np.log(xs), np.log(ys), 1)[0])
        print(
            f"{name}: "
            + ", ".join(f"{x}: {y:.1f} s" for x, y in zip(xs, ys, strict=True))
            + f"; exponent {exponent:.2f}"
        )
    return True


PARTS = {
    "epoch": epoch,
    "search": whole_search,
    "sooner": sooner,
    "overhead": overhead,
    "memory": memory,
    "growth": growth,
}


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("part", choices=PARTS)
    flags.add_argument("--data", default="data/cifar10")
    flags.add_argument("--images", type=int, default=4096)
    flags.add_argument("--trials", type=int, help="8; of `sooner` 32")
    flags.add_argument("--epochs", type=int, default=2)
    flags.add_argument("--batch", type=int, default=128, help="images of a step; fewer where few images must teach")
    flags.add_argument("--rounds", type=int, default=5)
    flags.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="loader workers of the usual way")
    args = flags.parse_args()
    args.data = str(Path(args.data).absolute())
    args.trials = args.trials or (32 if args.part == "sooner" else 8)
    torch.set_num_threads(usable_cpus())
    with tempfile.TemporaryDirectory() as folder:
        met = PARTS[args.part](args, Path(folder))
    finish(met=met, runs=args.rounds if args.part in ("epoch", "sooner") else 1)


if __name__ == "__main__":
    main()
