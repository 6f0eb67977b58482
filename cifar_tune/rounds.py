"""Paired rounds: a variant and its reference are timed in turns, so a machine that drifts slows both alike.

A round is a few calls of the variant and some of the reference. What it says is the ratio of their medians.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def round_medians(samples: Any, reference: Any, round_calls: int) -> tuple[Floats, Floats]:
    """Median of the variant and median of the reference in each round: (rounds,) each.

    Args:
        samples: milliseconds of the variant's calls in the order in which they were taken, `round_calls` a round.
        reference: the same of the reference, in as many rounds. Calls at the end that fill no round are left out.
    """
    rounds = max(1, len(samples) // round_calls)

    def medians(values: Any) -> Floats:
        taken = np.asarray(values, dtype=np.float64)
        return np.median(taken[: len(taken) // rounds * rounds].reshape(rounds, -1), axis=1)

    return medians(samples), medians(reference)


def round_ratios(samples: Any, reference: Any, round_calls: int) -> Floats:
    """Median of the variant / median of the reference, in each round: (rounds,). See `round_medians`."""
    variant, beside = round_medians(samples, reference, round_calls)
    return variant / beside
