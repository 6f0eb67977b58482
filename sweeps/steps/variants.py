"""Which variants a study measures."""

from __future__ import annotations

from cifar_tune.config import REFERENCE, Variant, check, grid_variants
from cifar_tune.runtimes import RUNTIMES
from cifar_tune.study import StudyConfig


def study_variants(study: StudyConfig, device: str) -> list[Variant]:
    """What the study measures of its variants: those it names, FP32 eager first, or all."""
    known = _all_variants(study, device)
    return [v for v in known if study.variants is None or v.name in study.variants or v == REFERENCE]


def _all_variants(study: StudyConfig, device: str) -> list[Variant]:
    """The grid, FP32 eager first, then what the chosen runtimes add to it."""
    chosen = [RUNTIMES[name] for name in (RUNTIMES if study.runtimes is None else study.runtimes)]
    added = [v for runtime in chosen for v in (*runtime.variants, *(runtime.cuda_variants if device == "cuda" else ()))]
    zeroed = [Variant(zeroed=share, zeroed_by_layer=each) for share in study.magnitude for each in (False, True)]
    variants = dict.fromkeys([*grid_variants(), *added, *zeroed])
    return [v for v in variants if v.compile == "none" or study.compiled_variants]


def check_variants(study: StudyConfig, device: str) -> None:
    """ValueError lists the runtimes that there are, or the variants of those that the study takes."""
    for name in study.runtimes or ():
        check(name in RUNTIMES, "runtime", name, ", ".join(RUNTIMES))
    known = [variant.name for variant in _all_variants(study, device)]
    for name in study.variants or ():
        check(name in known, "variant", name, ", ".join(known))
