"""The candidate's folder: what it holds, how it is used, and what a check of it found."""

from __future__ import annotations

from typing import Any

from analysis.justify import percent


def text(card: dict[str, Any] | None) -> str:
    """Where the candidate lies, and what was found when it was checked; empty where there is none."""
    if card is None:
        return ""
    return (
        "## Take it\n\nThe folder `candidate/` holds the model as it was measured: weights, preprocessing, class "
        "names and a model card. Its example needs only the packages in its `requirements.txt`:\n\n"
        "```\npip install -r candidate/requirements.txt\npython candidate/example.py IMAGE...\n```\n\n"
        f"{verification(card)}"
    )


def verification(card: dict[str, Any]) -> str:
    """What the written candidate answered when a fresh process opened it."""
    found = card["verification"]
    if found["accuracy"] is None or found["agreement"] is None:
        return f"It could not be verified: {found['problem']}."
    verdict = "Verified: " if found["ok"] else f"NOT verified, {found['problem']}: "
    return (
        f"{verdict}a fresh process without this package opened it. Its accuracy is {percent(found['accuracy'])} on "
        f"{found['images']:,} test images. On {percent(found['agreement'])} of them it gives the same class as FP32 "
        "eager."
    )
