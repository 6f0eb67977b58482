"""Which ingredients of the training recipe pay: one is left out at a time, over paired seeds.

    python benchmarks/recipe_ablation.py OUT.csv [--data cifar10] [--images 10000] [--epochs 5] [--seeds 5]

A cell is one training of the student on a stratified subset of the training images; its accuracy is that of the
validation images, since the defaults are chosen by it. All cells of a seed share initialisation, views and order. Cells
run one after another, and each is written to OUT.csv when it ends: what is there is not trained again. The table gives
each ingredient's gain, recipe minus recipe without it, as a mean over seeds with a t-interval, corrected for the number
of ingredients (Bonferroni).
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, parser

from cifar_tune.between import t_quantile
from cifar_tune.config import DataConfig, TrainConfig, ViewConfig
from cifar_tune.data.datasets import ImageData, load, subset
from cifar_tune.device import usable_cpus
from cifar_tune.training.loop import train

RECIPE: dict[str, Any] = {
    "optimizer": "sgd", "lr": 0.2, "schedule": "triangle", "momentum": 0.85, "weight_decay": 1.3e-3,
    "whitening": "frozen", "dirac": True, "fixed_norm_scale": True, "norm_bias_rate": 64.0, "norm_momentum": 0.4,
    "lookahead": True, "logit_scale": 1 / 9, "label_smoothing": 0.2, "crop_padding": 2, "flip": True, "cutout": 0,
}  # fmt: skip
"""The whole recipe, for batches of 128 images."""
BEFORE: dict[str, Any] = {
    "lr": 0.1, "schedule": "one_cycle", "momentum": 0.9, "weight_decay": 5e-4, "whitening": "trained", "dirac": False,
    "fixed_norm_scale": False, "norm_bias_rate": 16.0, "norm_momentum": 0.1, "lookahead": False, "logit_scale": 1.0,
    "label_smoothing": 0.0,
}  # fmt: skip
"""The recipe of the studies before this one, with the rate that their searches found."""
CHANGES: dict[str, dict[str, Any]] = {
    "whole": {},
    "the recipe before": BEFORE,
    "whitening trained on": {"whitening": "trained"},
    "no whitening": {"whitening": "none"},
    "no dirac": {"dirac": False},
    "norm scales trained": {"fixed_norm_scale": False},
    "norm biases at 16 times": {"norm_bias_rate": 16.0},
    "slow statistics": {"norm_momentum": 0.1},
    "no lookahead": {"lookahead": False},
    "neither lookahead nor fast statistics": {"lookahead": False, "norm_momentum": 0.1},
    "logits not scaled": {"logit_scale": 1.0, "lr": 0.1},
    "no smoothing": {"label_smoothing": 0.0},
    "less decay": {"weight_decay": 5e-4},
    "one_cycle": {"schedule": "one_cycle"},
    "momentum 0.9": {"momentum": 0.9},
    "Muon": {"optimizer": "muon"},
    "half the rate": {"lr": 0.1},
    "twice the rate": {"lr": 0.4},
    "crop of 4": {"crop_padding": 4},
    "Cutout 8": {"cutout": 8},
}
"""What each cell changes: an ingredient left out, or another in its place."""
FIELDS = ("change", "seed", "accuracy", "seconds")
VIEWS = ("crop_padding", "flip", "cutout")


def cell(change: str, seed: int, data: ImageData, options: argparse.Namespace) -> dict[str, Any]:
    """Train one; its row."""
    settings = {**RECIPE, **CHANGES[change]}
    views = ViewConfig(**{name: settings.pop(name) for name in VIEWS}, seed=seed)
    config = TrainConfig(
        model=options.model, arm="plain", epochs=options.epochs, seed=seed, threads=usable_cpus(), views=views,
        **settings,
    )  # fmt: skip
    started = time.perf_counter()
    *_, last = train(config, data)
    seconds = round(time.perf_counter() - started, 1)
    return {"change": change, "seed": seed, "accuracy": last.val_accuracy, "seconds": seconds}


def kept(path: Path) -> list[dict[str, Any]]:
    """The rows that are there."""
    if not path.is_file():
        return []
    with path.open() as file:
        return [
            {**row, "seed": int(row["seed"]), "accuracy": float(row["accuracy"]), "seconds": float(row["seconds"])}
            for row in csv.DictReader(file)
        ]


def measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows; those that lack are trained, seed by seed, and written at once."""
    found = kept(options.out)
    done = {(row["change"], row["seed"]) for row in found}
    wanted = [(change, seed) for seed in range(options.seeds) for change in options.changes or CHANGES]
    due = [key for key in wanted if key not in done]
    if due:
        data = load(DataConfig(source=options.data), 0)
        data = subset(data, options.images, 0) if options.images < len(data.train_images) else data
    for change, seed in due:
        row = cell(change, seed, data, options)
        new = not options.out.is_file()
        with options.out.open("a", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(f"{change}, seed {seed}: {row['accuracy']:.2%} in {row['seconds']:.0f} s", flush=True)
        found.append(row)
    return found


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Gain of the whole recipe over each change, in points, over the seeds that both have."""
    by: dict[str, dict[int, float]] = {}
    for row in rows:
        by.setdefault(row["change"], {})[row["seed"]] = 100 * row["accuracy"]
    whole = by.get("whole", {})
    lines = ["| change | accuracy % | points lost by it | interval | seeds |", "| --- | --- | --- | --- | --- |"]
    for change, found in by.items():
        lost = np.array([whole[seed] - found[seed] for seed in found if seed in whole])
        interval = "-"
        if change != "whole" and len(lost) > 1:
            share = 1 - 0.025 / max(1, len(by) - 1)
            half = t_quantile(share, len(lost) - 1) * float(lost.std(ddof=1)) / math.sqrt(len(lost))
            interval = f"{lost.mean() - half:.2f} to {lost.mean() + half:.2f}"
        mean = f"{np.mean(list(found.values())):.2f}"
        lines.append(f"| {change} | {mean} | {lost.mean():.2f} | {interval} | {len(found)} |")
    return "\n".join(lines)


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("out", type=Path)
    flags.add_argument("--data", default="cifar10")
    flags.add_argument("--images", type=int, default=10_000)
    flags.add_argument("--epochs", type=int, default=5)
    flags.add_argument("--seeds", type=int, default=5)
    flags.add_argument("--model", default="speednet")
    flags.add_argument("--changes", nargs="*", choices=list(CHANGES))
    options = flags.parse_args()
    rows = measured(options)
    print(table(rows))
    finish(met=True, runs=len(rows))


if __name__ == "__main__":
    main()
