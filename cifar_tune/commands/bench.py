"""One measurement of one variant at batch 1.

    python -m cifar_tune bench --model mobilenet_v3_small --compile default

Installed, it is `cifar-tune bench`.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cifar_tune.commands.shared import run_command
from cifar_tune.config import Device, LatencyConfig, Variant, check
from cifar_tune.data.datasets import random_images
from cifar_tune.device import environment, resolve_device
from cifar_tune.errors import DeviceTakenError, DisturbedError, UnsupportedError
from cifar_tune.measuring.build import exported
from cifar_tune.measuring.measurement import measured
from cifar_tune.measuring.processes import in_fresh_process, prepare_fresh_processes
from cifar_tune.measuring.target import GridSettings, MeasurementCell, Target, load_target
from cifar_tune.models.outside import try_once
from cifar_tune.models.weights import checkpoint_classes
from cifar_tune.records import LatencyRecord
from cifar_tune.runs.locks import exclusive_device
from cifar_tune.runtimes import RUNTIMES
from cifar_tune.runtimes.quantisation import calibration_data
from cifar_tune.settings import part
from cifar_tune.store import sha256_file


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """Measure one variant of one model at batch 1; prints the statistics of its latency."""

    model: str = "mobilenet_v3_small"
    """Architecture, or `module:function` of your own."""
    checkpoint: str | None = None
    """Safetensors file; None: random weights, which take as long."""
    input_shape: tuple[int, int, int] = (3, 32, 32)
    """Channels, height and width of an image."""
    variant: Variant = field(default_factory=Variant, metadata=part())
    iterations: int = 500
    """Latency samples of each repeat, at least, within the time limit."""
    latency: LatencyConfig = field(
        default_factory=lambda: LatencyConfig(fresh_processes=False),
        metadata=part(hidden=("iterations", "max_iterations", "fresh_processes")),
    )
    device: Device = "auto"
    """Where to measure."""


def run(options: Bench) -> str:
    """Measure; returns the line to print."""
    device = resolve_device(options.device)
    variant = options.variant
    check(variant.runtime in RUNTIMES, "runtime", variant.runtime, ", ".join(RUNTIMES))
    RUNTIMES[variant.runtime].check_variant(variant)
    protocol, target = _protocol(options), _target(options)
    cell = MeasurementCell(target=target, variant=variant)
    with tempfile.TemporaryDirectory() as cache, user_errors(variant):
        settings = GridSettings(
            run="bench",
            device=device,
            threads=1,
            latency=protocol,
            cache=cache,
            input_shape=options.input_shape,
            environment=environment(device),
        )
        try_once(load_target(target), options.input_shape)
        prepare_fresh_processes(compiles=variant.compile != "none")
        with exclusive_device(device, wait=not protocol.strict, purpose="(bench)"):
            if RUNTIMES[variant.runtime].export is not None:
                calibration = calibration_data(random_images(options.input_shape))
                in_fresh_process(exported, cell, settings, calibration)
            row = measured(cell, settings, random_images(options.input_shape))
    return f"{options.model} {variant.name} on {device}, {_figures(row)}"


def _protocol(options: Bench) -> LatencyConfig:
    most = max(options.latency.max_iterations, options.iterations)
    return replace(options.latency, iterations=options.iterations, max_iterations=most)


def _target(options: Bench) -> Target:
    """The model that the flags name. ValueError where its weights are not there."""
    own = ":" in options.model
    if own and (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does: the function lies where the user works
    path = None if options.checkpoint is None else Path(options.checkpoint)
    check(path is None or path.is_file(), "checkpoint", str(path), "an existing safetensors file")
    return Target(
        trial_id="bench",
        model=options.model,
        arm="given",
        checkpoint=options.checkpoint,
        checkpoint_sha256="random" if path is None else sha256_file(path),
        classes=10 if path is None or own else checkpoint_classes(path),
    )


def _figures(row: LatencyRecord) -> str:
    """What was measured, in words."""
    assert row.samples_ms is not None
    names = ("mean_ms", "p50_ms", "p95_ms", "p99_ms", "std_ms", "spread")
    figures = "  ".join(f"{name} {_figure(name, getattr(row, name))}" for name in names)
    beside = f"speedup over FP32 eager {row.speedup:.2f} ({row.speedup_low:.2f} to {row.speedup_high:.2f})"
    beside += f"  {row.status.upper()}: {row.error}" if row.error else ""
    note = f"  CONTENDED: {row.foreign_cpu:.1f} cores were used by others" if row.contended else ""
    return f"{sum(map(len, row.samples_ms))} samples: {figures}  {beside}{note}"


@contextlib.contextmanager
def user_errors(variant: Variant) -> Iterator[None]:
    """What cannot run here, or is refused, in the words of a usage error."""
    try:
        yield
    except (UnsupportedError, DeviceTakenError, DisturbedError) as error:
        raise ValueError(f"{variant.name} cannot be measured here: {error}") from error


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "not bounded"
    return f"{value:.1%}" if name == "spread" else f"{value:.3f}"


def main(argv: Sequence[str], prog: str = "python -m cifar_tune bench") -> None:
    """The command."""
    run_command(Bench, run, argv, prog)
