"""What the data path costs, and which arithmetic trains fastest here, as ratios in one run.

    python benchmarks/train_step.py [--model mobilenet_v3_small] [--size 32] [--rounds 7] [--compile] [--device cuda]

First: images/s of training through views, batcher and epoch bookkeeping, relative to a loop over one fixed batch
with the same settings. The two alternate, so that a drifting machine moves both; the ratio of each pair counts.
Then: images/s of FP32 and bf16, contiguous and channels_last, for dense and depthwise models.

With --compile instead: steps with `--compile-step` against eager ones, in alternated rounds, what compiling takes, and
from how many steps it is repaid.
"""

import statistics
import time
from typing import Any

import numpy as np
import torch
from common import about, alternate, parser, spread
from torch._inductor.utils import fresh_inductor_cache

from cifar_tune.config import TrainConfig, ViewConfig
from cifar_tune.data.augment import Batcher, as_tensor, draw_views
from cifar_tune.data.datasets import ImageData
from cifar_tune.models.registry import MODELS, build_model, place
from cifar_tune.training.loop import Stepper, to_device

IMAGES = 4096


def random_data(size: int) -> ImageData:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, size, size, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, IMAGES)
    return ImageData(
        name="random", label="random", classes=tuple("0123456789"), train_images=images, train_labels=labels,
        validation_images=images[:10], validation_labels=labels[:10], test_images=images[:10], test_labels=labels[:10],
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), fingerprint="", skipped=0, flip=True,
    )  # fmt: skip


def make_stepper(model: str, data: ImageData, batch: int, **settings: Any) -> Stepper:
    config = TrainConfig(
        model=model, arm="plain", epochs=1000, lr=1e-3, batch_size=batch, threads=torch.get_num_threads(), **settings
    )
    layout = torch.channels_last if config.channels_last else torch.contiguous_format
    network = place(build_model(model, 10), torch.device(config.device), layout).train()
    return Stepper(config, network, data, steps_per_epoch=100)


def data_path_round(stepper: Stepper, data: ImageData, steps: int, batch: int) -> tuple[float, float]:
    """Seconds of `steps` steps through the data path, and of as many on one fixed batch."""
    batcher = Batcher(data.train_images, data.mean, data.std)
    labels = as_tensor(data.train_labels)
    started = time.perf_counter()
    views = draw_views(ViewConfig(), 1, len(labels))
    for indices in torch.randperm(len(labels)).split(batch)[:steps]:
        stepper.step(batcher.views(indices, views), labels[indices], None)
    stepper.finish_epoch()
    middle = time.perf_counter()
    fixed = batcher.views(torch.arange(batch), views)
    fixed_labels = labels[:batch]
    started_fixed = time.perf_counter()
    for _ in range(steps):
        stepper.step(fixed, fixed_labels, None)
    stepper.finish_epoch()
    return middle - started, time.perf_counter() - started_fixed


def seconds_of(stepper: Stepper, data: ImageData, steps: int, size: int | None = None) -> float:
    """Seconds of `steps` steps on one fixed batch, of `size` images or the stepper's own, waited for."""
    size = size or stepper.config.batch_size
    device = torch.device(stepper.config.device)
    batcher = Batcher(data.train_images, data.mean, data.std, device)
    drawn = to_device(draw_views(ViewConfig(), 1, len(data.train_labels)), device)
    images = batcher.views(torch.arange(size, device=device), drawn)
    labels = as_tensor(data.train_labels[:size]).to(device)
    started = time.perf_counter()
    for _ in range(steps):
        stepper.step(images, labels, None)
    stepper.finish_epoch()
    return time.perf_counter() - started


def repaid(model: str, data: ImageData, batch: int, rounds: int, device: str) -> None:
    """Print what compiling the step costs and gains."""
    steps = 12
    eager, whole = (make_stepper(model, data, batch, device=device, compile_step=c) for c in (False, True))
    sizes = batch, batch // 2  # an epoch's last batch is another shape
    seconds_of(eager, data, 3)
    with fresh_inductor_cache():
        compiling = sum(seconds_of(whole, data, 1, size) - seconds_of(eager, data, 1, size) for size in sizes)
    turns = {n: lambda s=s: seconds_of(s, data, steps) for n, s in (("eager", eager), ("compiled", whole))}
    pairs = list(alternate(turns, rounds))
    gain = spread([s["eager"] / s["compiled"] for s in pairs])
    saved = statistics.median((s["eager"] - s["compiled"]) / steps for s in pairs)
    step = statistics.median(s["eager"] / steps for s in pairs)
    after = f"repaid after {compiling / saved:,.0f} steps" if saved > 0 else "never repaid"
    print(
        f"{model}, batch {batch}, {device}, {eager.precision}: a step takes {1000 * step:.1f} ms, times as fast "
        f"compiled {gain:.2f}, {rounds} paired rounds; "
        f"{compiling:.0f} s of compiling, {after}"
    )


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument("--model", default="mobilenet_v3_small", choices=MODELS)
    flags.add_argument("--size", type=int, default=32)
    flags.add_argument("--batch", type=int, default=128)
    flags.add_argument("--rounds", type=int, default=7)
    flags.add_argument("--compile", action="store_true")
    flags.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="of --compile")
    args = flags.parse_args()
    data = random_data(args.size)
    if args.compile:
        repaid(args.model, data, args.batch, args.rounds, args.device)
        print(about(args.rounds, args.device))
        return

    stepper, steps = make_stepper(args.model, data, args.batch), 12
    data_path_round(stepper, data, 2, args.batch)
    ratios, rates = [], []
    for _ in range(args.rounds):
        through, fixed = data_path_round(stepper, data, steps, args.batch)
        ratios.append(fixed / through)
        rates.append(steps * args.batch / through)
    print(
        f"{args.model} {args.size}x{args.size} batch {args.batch}, {torch.get_num_threads()} threads: "
        f"{spread(rates):.0f} images/s; rate through the data path / raw step rate {spread(ratios):.3f}, "
        f"{args.rounds} paired rounds",
        flush=True,
    )
    print(f"\n{'model':<22}{'fp32':>8}{'fp32 cl':>9}{'bf16':>8}{'bf16 cl':>9}   images/s, one round of 4 steps")
    for model in MODELS:
        row = []
        for precision, layout in (("fp32", False), ("fp32", True), ("bf16", False), ("bf16", True)):
            stepper = make_stepper(model, data, args.batch, precision=precision, channels_last=layout)
            data_path_round(stepper, data, 1, args.batch)
            row.append(4 * args.batch / data_path_round(stepper, data, 4, args.batch)[0])
        print(f"{model:<22}{row[0]:8.0f}{row[1]:9.0f}{row[2]:8.0f}{row[3]:9.0f}", flush=True)
    print(about(args.rounds))


if __name__ == "__main__":
    main()
