"""One measurement of a variant: the protocol on a callable, its evidence, and the row. Knows no Ray."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cifar_tune.config import REFERENCE, Variant
from cifar_tune.data.augment import Batcher
from cifar_tune.data.datasets import ImageData
from cifar_tune.device import DeviceWatch, Gpu, pin_to_cores, usable_cores
from cifar_tune.errors import DisturbedError, failure
from cifar_tune.measuring.drain import drain
from cifar_tune.measuring.latency import Repeat, Timed, measure, paired_speedup, statistics
from cifar_tune.measuring.processes import exclusive_turn, in_fresh_processes
from cifar_tune.measuring.target import Cell, GridSettings, MeasurementCell, load_target, make_source, use_compile_cache
from cifar_tune.models.registry import count_parameters
from cifar_tune.records import LatencyRecord
from cifar_tune.runtimes import RUNTIMES, Runnable

BATCH1_IMAGES = 256
"""Test images on which the measured callable, at batch 1, must answer as the large batch does."""
BATCH1_MAXIMUM_ERROR = 0.1
"""Relative error of the logits above which the callable is not the model whose accuracy the row states.

Classes would not do: half precision turns the near-ties of a badly trained model, and rightly so. Its rounding
stays near 0.01; other weights, or a wrong kernel, give about 1.
"""
BATCH1_MAXIMUM_ERROR_INT8 = 0.5
"""The same for INT8, whose answers are rounded as well as its weights: what that costs is for its accuracy to say."""
LEAST_ANSWERS = 32
"""Of those images as many at least, where the time limit ends the sampling of a slow variant."""
EVENT_SAMPLES = 100
"""Calls timed between events on a GPU, beside the host's clock."""
QUEUEING_CYCLES = 20_000_000
"""That the GPU waits while a call is launched: about 10 ms, more than an eager model's launches take."""


def latency_skeleton(cell: MeasurementCell, settings: GridSettings) -> LatencyRecord:
    """The row of a cell before anything is measured."""
    target = cell.target
    return LatencyRecord(
        run=settings.run,
        trial_id=target.trial_id,
        model=target.model,
        arm=target.arm,
        stage=cell.stage,
        block=cell.block,
        checkpoint_sha256=target.checkpoint_sha256,
        variant=cell.variant.name,
        **dataclasses.asdict(cell.variant),
        status="failed",
        protocol=settings.latency.protocol,
        checkpoint_mb=Path(target.checkpoint).stat().st_size / 1e6 if target.checkpoint else None,
        environment=settings.environment,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What a process says of the variant that it has loaded."""

    load_seconds: float
    artifact_mb: float
    note: str | None
    parameters: int
    cores: str
    batch1_agreement: float | None = None
    device_ms: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What one process measured."""

    about: About
    repeats: list[Repeat]
    blind: str | None
    """Why nothing tells whether others used the device."""
    evidence: dict[str, Any]


def measured(cell: MeasurementCell, settings: GridSettings, data: ImageData) -> LatencyRecord:
    """The row with its measurements, accuracy aside; each repeat in a fresh process, or all in one.

    R12: where the cell says why torch.compile cannot be used, or where its timing does not settle, its stand-ins are
    tried in turn, and the row says which was measured.

    Args:
        data: need hold only the first test images.
    """
    skeleton = latency_skeleton(cell, settings)
    if cell.fallback is not None:
        return _measured_instead(skeleton, cell, settings, data, cell.fallback)
    parts = _processes(cell, settings, data)
    # where not even the reference is stable, it is the machine that does not settle
    restless = all(r.reference_settled and not r.settled for part in parts for r in part.repeats)
    if cell.variant.compile != "none" and restless:
        why = "the timing of torch.compile does not settle"
        return _measured_instead(skeleton, cell, settings, data, why)
    return summary(skeleton, parts, settings)


def _measured_instead(
    skeleton: LatencyRecord, cell: MeasurementCell, settings: GridSettings, data: ImageData, why: str
) -> LatencyRecord:
    """The row of a cell that torch.compile cannot run, with the figures of the first stand-in that can be measured.

    Raises RuntimeError with every reason where none can.
    """
    reasons = why
    for name, variant in stand_ins(cell.variant).items():
        try:
            row = summary(skeleton, _processes(dataclasses.replace(cell, variant=variant), settings, data), settings)
        except Exception as error:  # noqa: BLE001 - whatever it was, the row must say every reason
            reasons += f"; {name} failed ({failure(error)})"
            continue
        return dataclasses.replace(row, status="fallback", error=f"{reasons}; {name} was measured instead")
    raise RuntimeError(reasons)


def stand_ins(variant: Variant) -> dict[str, Variant]:
    """R12: what is measured, in this order, where torch.compile cannot be used.

    Half precision first without torch.compile, then in TorchScript; FP32 in TorchScript only, since FP32 eager is the
    reference.
    """
    eager = dataclasses.replace(variant, compile="none")
    script = {"TorchScript": dataclasses.replace(eager, runtime="torchscript")}
    return script if variant.precision == "fp32" else {f"{variant.precision} without torch.compile": eager, **script}


def _processes(cell: Cell, settings: GridSettings, data: ImageData) -> list[Measured]:
    """Measure in fresh processes: one for each repeat, or one for all."""
    protocol = settings.latency
    counts = [1] * protocol.repeats if protocol.fresh_processes else [protocol.repeats]
    calls = [
        functools.partial(measure_here, cell, settings, data, count, check=number == 0)
        for number, count in enumerate(counts)
    ]
    return in_fresh_processes(calls)


def summary(skeleton: LatencyRecord, parts: Sequence[Measured], settings: GridSettings) -> LatencyRecord:
    """The row of one or more processes that measured beside the reference."""
    row = figures(skeleton, parts, settings.latency.round_calls, settings)
    assert row.samples_ms is not None
    assert row.reference_ms is not None
    protocol = settings.latency
    speedup, low, high = paired_speedup(
        row.samples_ms, row.reference_ms, protocol.round_calls, fresh=protocol.fresh_processes
    )
    return dataclasses.replace(row, speedup=speedup, speedup_low=low, speedup_high=high)


def figures(
    skeleton: LatencyRecord, parts: Sequence[Measured], round_calls: int, settings: GridSettings
) -> LatencyRecord:
    """The row of one or more measured processes without a speedup; of evidence the worst is kept."""
    about, repeats = parts[0].about, [repeat for part in parts for repeat in part.repeats]
    samples, anchor = [r.samples_ms for r in repeats], [r.anchor_ms for r in repeats]
    worst: dict[str, Any] = {}
    for name in parts[0].evidence:
        seen = [part.evidence[name] for part in parts if part.evidence[name] is not None]
        worst[name] = (min if name == "gpu_clock_mhz" else max)(seen) if seen else None
    return dataclasses.replace(
        skeleton,
        status="ok",
        batch1_agreement=about.batch1_agreement,
        samples_ms=samples,
        reference_ms=[r.reference_ms for r in repeats],
        anchor_ms=anchor if any(anchor) else None,
        round_calls=round_calls,
        **statistics(samples, fresh=settings.latency.fresh_processes),
        settled=all(r.settled for r in repeats),
        device_ms=about.device_ms,
        load_seconds=float(np.median([part.about.load_seconds for part in parts])),
        artifact_mb=about.artifact_mb,
        note="; ".join(said for said in (about.note, parts[0].blind) if said) or None,
        parameters=about.parameters,
        contended=any(r.contended for r in repeats),
        windows=sum(r.windows for r in repeats),
        windows_discarded=sum(r.discarded for r in repeats),
        threads=1 if skeleton.single_thread else settings.measurement_threads,
        cores=about.cores,
        **worst,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loaded:
    """A variant ready to be measured."""

    runnable: Runnable
    eager: nn.Module
    """The same weights, not yet changed for the variant."""
    parameters: int
    seconds: float
    """From the checkpoint to the end of the first call."""


def _loaded(cell: Cell, settings: GridSettings) -> _Loaded:
    if cell.variant.compile != "none":
        use_compile_cache(settings, cell.target.model, cell.variant)
    started = time.perf_counter()
    model = load_target(cell.target)
    parameters = count_parameters(model)
    eager = copy.deepcopy(model)
    source = make_source(model, cell, settings, settings.measurement_threads)
    runnable = RUNTIMES[cell.variant.runtime].load(source)
    runnable.first_call(source.example)
    return _Loaded(runnable=runnable, eager=eager, parameters=parameters, seconds=time.perf_counter() - started)


def _reference(eager: nn.Module, cell: Cell, settings: GridSettings, variant: Variant = REFERENCE) -> Runnable:
    """The same weights in PyTorch; `eager` is changed."""
    beside = Cell(target=cell.target, variant=variant)
    return RUNTIMES["torch"].load(make_source(eager, beside, settings, settings.measurement_threads))


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A variant that can be timed in this process."""

    cell: Cell
    settings: GridSettings
    loaded: _Loaded
    timed: Timed
    cores: list[int]
    """To which this process is pinned."""
    batcher: Batcher
    images: list[Tensor]
    answers: list[Tensor]
    """To the first of the images, as far as it was called."""

    def about(self, *, check: bool = True) -> About:
        """What there is to say of it, with what the clock of the GPU says.

        Raises RuntimeError where the callable does not answer as the same weights do at a large batch.
        """
        runnable = self.loaded.runnable
        on_events = self.settings.device == "cuda" and runnable.on_torch_stream
        with self.timed.scope():
            while len(self.answers) < min(LEAST_ANSWERS, len(self.images)):  # where the time limit came first
                self.timed.keep(self.timed.call(self.timed.inputs[len(self.answers)]))
            device_ms = event_ms(lambda: runnable.call(self.timed.inputs[0])) if on_events else None
        return About(
            load_seconds=self.loaded.seconds,
            artifact_mb=runnable.artifact_mb,
            note=runnable.note,
            parameters=self.loaded.parameters,
            cores=",".join(map(str, self.cores)),
            batch1_agreement=self._agreement() if check else None,
            device_ms=device_ms,
        )

    def _agreement(self) -> float:
        answered = torch.cat(self.answers)
        return _agreement_at_batch1(answered, self.loaded.eager, self.cell, self.settings, self.batcher)


def get_ready(cell: Cell, settings: GridSettings, data: ImageData) -> Ready:
    """Load a variant into this process, which is pinned to the measurement's cores."""
    cores = pin_to_cores(settings.measurement_threads)
    torch.set_num_threads(settings.measurement_threads)
    alone = functools.partial(on_one_core, cores[-1:])
    with alone() if cell.variant.single_thread else contextlib.nullcontext():
        loaded = _loaded(cell, settings)
    batcher = Batcher(data.test_images, data.mean, data.std, settings.device)
    images = [batcher.plain(i, i + 1) for i in range(len(data.test_images))]
    answers: list[Tensor] = []

    def keep(answer: Tensor) -> None:
        if len(answers) < len(images):
            answers.append(answer.float().clone())

    timed = as_timed(loaded.runnable, images, keep)
    return Ready(
        cell=cell,
        settings=settings,
        loaded=loaded,
        timed=on_core(timed, cores) if cell.variant.single_thread else timed,
        cores=cores,
        batcher=batcher,
        images=images,
        answers=answers,
    )


def on_core(timed: Timed, cores: Sequence[int]) -> Timed:
    """The same calls on the last of the cores, with one thread of PyTorch's."""
    scope = timed.scope

    @contextlib.contextmanager
    def alone() -> Iterator[None]:
        with on_one_core(cores[-1:]), scope():
            yield

    return dataclasses.replace(timed, scope=alone)


@contextlib.contextmanager
def on_one_core(core: Sequence[int]) -> Iterator[None]:
    """Keep this thread, and those that it starts, on a core, with one thread of PyTorch's; afterwards as before.

    PyTorch starts none meanwhile, so those of its pool keep all the cores that the process has.

    Args:
        core: none where the system cannot pin.
    """
    threads, before = torch.get_num_threads(), usable_cores()
    torch.set_num_threads(1)
    if core:
        os.sched_setaffinity(0, core)
    try:
        yield
    finally:
        if core:
            os.sched_setaffinity(0, before)
        torch.set_num_threads(threads)


def measure_here(cell: Cell, settings: GridSettings, data: ImageData, repeats: int, *, check: bool = True) -> Measured:
    """Measure in this process, which is pinned to the measurement's cores; its siblings, if any, wait meanwhile.

    Args:
        check: that the callable answers at batch 1 as the same weights do at a large batch; once a row is enough.

    Raises RuntimeError where it does not.
    """
    ready = get_ready(cell, settings, data)
    beside = as_timed(_reference(copy.deepcopy(ready.loaded.eager), cell, settings), ready.images)
    anchor = on_core(beside, ready.cores) if cell.variant.single_thread else None
    gpu = Gpu.open() if settings.device == "cuda" else None
    with exclusive_turn():
        watch = DeviceWatch(settings.device, gpu)
        taken = measure(
            ready.timed,
            beside,
            settings.latency,
            np.random.default_rng(),
            anchor=anchor,
            repeats=repeats,
            watch=watch,
        )
        refuse_disturbed(watch, settings, contended=any(repeat.contended for repeat in taken))
        about = ready.about(check=check)
    return Measured(about=about, repeats=taken, blind=watch.blind, evidence=watch.evidence())


def refuse_disturbed(watch: DeviceWatch, settings: GridSettings, *, contended: bool) -> None:
    """With --strict: DisturbedError where others used the device, or nothing tells whether they did."""
    if settings.latency.strict and contended:
        foreign = watch.evidence()["foreign_cpu"]
        raise DisturbedError(f"others used the device to the last retry ({foreign:.1f} cores)")
    if settings.latency.strict and watch.blind is not None:
        raise DisturbedError(watch.blind)


def as_timed(runnable: Runnable, images: Sequence[Tensor], keep: Callable[[Tensor], object] = lambda _: None) -> Timed:
    """A runnable on images as what the protocol times."""
    return Timed(
        call=runnable.call,
        inputs=[runnable.prepare_input(image) for image in images],
        synchronize=runnable.synchronize,
        keep=keep,
        scope=runnable.scope,
        settle=drain,
    )


def event_ms(call: Callable[[], object]) -> float:
    """Median milliseconds between two events around a call on the GPU.

    The GPU is given other work first: writes that empty its cache (as in Triton's `do_bench`), then a wait, so that all
    launches of the call queue behind it and the host's share is left out.
    """
    times: list[float] = []
    other = torch.empty(256 << 20, dtype=torch.int8, device="cuda")
    for _ in range(EVENT_SAMPLES):
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        other.zero_()
        torch.cuda._sleep(QUEUEING_CYCLES)  # noqa: SLF001 - what PyTorch's own tests keep a GPU busy with
        before.record()
        call()
        after.record()
        after.synchronize()
        times.append(before.elapsed_time(after))
    return float(np.median(times))


def _agreement_at_batch1(
    answered: Tensor, eager: nn.Module, cell: Cell, settings: GridSettings, batcher: Batcher
) -> float:
    """Share of images given the class that the same weights, precision and layout give at a large batch."""
    variant = cell.variant
    zeros = {"zeroed": variant.zeroed, "zeroed_by_layer": variant.zeroed_by_layer}
    at_once = variant.evaluated if variant.runtime == "torch" else dataclasses.replace(REFERENCE, **zeros)
    runnable = _reference(eager, cell, settings, at_once)
    with runnable.scope():
        expected = runnable.call(runnable.prepare_input(batcher.plain(0, len(answered)))).float()
    difference, size = float((answered - expected).norm()), float(expected.norm())
    most = BATCH1_MAXIMUM_ERROR_INT8 if variant.precision.startswith("int8") else BATCH1_MAXIMUM_ERROR
    if not difference <= most * size:  # untrained weights may answer 0 in half precision
        raise RuntimeError(
            f"logits at batch 1 differ from those of {at_once.name} at a large batch by {difference:.3g} of {size:.3g}"
        )
    return float((answered.argmax(1) == expected.argmax(1)).float().mean())
