"""The justification of a choice, in sentences with figures (R16). The rules themselves are in `decide`."""

from __future__ import annotations

from analysis.frames import Row, label, variant_of
from analysis.markdown import MISSING
from analysis.paired import lower_bound, standard_error
from cifar_tune.config import REFERENCE, TEACHER_ARM

_SHOWN_REJECTIONS = 5


def chosen(
    best: Row, tied: list[Row], *, rivals: list[Row], rejected: dict[int, str], min_accuracy: float, images: int
) -> str:
    """Why `best` is the candidate among `rivals`; `tied` are other candidates that cannot be told from it."""
    sentences = [
        _what(best, images),
        _certainty(best, min_accuracy, images),
        _speed(best, rivals),
        _tie_text(tied),
        _rejected_text(best, rivals, rejected),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def speedup_cell(row: Row) -> str:
    """Speedup over FP32 eager with its interval, for a table."""
    if row["speedup"] is None:
        return MISSING
    low, high = row["speedup_low"], row["speedup_high"]
    return f"{row['speedup']:.2f}" + ("" if low is None or high is None else f" ({low:.2f} to {high:.2f})")


def speedup_text(row: Row) -> str:
    """A paired speedup with its interval, where there is one."""
    text = f"{row['speedup']:.2f} times"
    return f"{text} ({row['speedup_low']:.2f} to {row['speedup_high']:.2f})" if row.get("speedup_low") else text


def percent(fraction: float) -> str:
    """A fraction as text, in percent."""
    return f"{100 * fraction:.2f} %"


def _accuracy(row: Row, images: int) -> str:
    error = 100 * standard_error(row["test_accuracy"], images)
    return f"{100 * row['test_accuracy']:.2f} ± {error:.2f} % test accuracy (standard error, {images:,} images)"


def none_chosen(
    rivals: list[Row], measured: list[Row], rejected: dict[int, str], min_accuracy: float, images: int
) -> str:
    """Why there is no candidate, and what comes nearest; `measured` have a latency, `rivals` an accuracy as well."""
    if not measured:
        return "No candidate: no variant of the grid was measured."
    if not rivals:
        fastest = min(measured, key=lambda row: row["p50_ms"])
        speed = f", {speedup_text(fastest)} its FP32 eager" if fastest["speedup"] else ""
        return (
            "Latency alone: without labelled images there is no accuracy, and no candidate. "
            f"The fastest is {label(fastest)}: p50 {fastest['p50_ms']:.3f} ms{speed}."
        )
    best = max(rivals, key=lambda row: (row["test_accuracy"], -row["p50_ms"]))
    nearest = f"The most accurate is {label(best)}: {_accuracy(best, images)}, p50 {best['p50_ms']:.3f} ms."
    if best["test_accuracy"] < min_accuracy:
        short = 100 * (min_accuracy - best["test_accuracy"])
        return f"No candidate: none reaches {percent(min_accuracy)}. {nearest} It is {short:.2f} points short."
    why = rejected[best["index"]]
    return f"No candidate: the variants that reach {percent(min_accuracy)} are rejected. {nearest} Rejected: {why}."


def _what(row: Row, images: int) -> str:
    disturbed = " Other processes used the machine while it was measured." if row["contended"] else ""
    tail = "" if row["p95_ms"] is None else f" and p95 {row['p95_ms']:.3f} ms"
    return f"{label(row)}: {_accuracy(row, images)}, p50 {row['p50_ms']:.3f} ms{tail} at batch 1.{disturbed}"


def _certainty(row: Row, min_accuracy: float, images: int) -> str:
    bound = lower_bound(row["test_accuracy"], images)
    lower = f"lower 95 % bound of its accuracy is {percent(bound)}"
    if bound >= min_accuracy:
        return f"It holds the constraint of {percent(min_accuracy)}: the {lower}."
    return f"It reaches {percent(min_accuracy)} on this test set, but not for certain: the {lower}."


def _speed(best: Row, rivals: list[Row]) -> str:
    parts: list[str] = []
    reference = [row for row in rivals if row["arm"] == TEACHER_ARM and variant_of(row) == REFERENCE]
    if reference and reference[0]["index"] != best["index"]:
        teacher = reference[0]
        ratio = teacher["paired_ms"] / best["paired_ms"]
        free = f"{teacher['paired_ms']:.3f} for {best['paired_ms']:.3f} ms, free of the drift between rows"
        parts.append(f"{ratio:.2f} times the speed of the FP32 teacher ({teacher['model']}; {free})")
    if best["speedup"] and variant_of(best) != REFERENCE:
        parts.append(f"{speedup_text(best)} that of its own FP32 eager, in paired rounds")
    return f"It runs at {' and '.join(parts)}." if parts else ""


def _tie_text(tied: list[Row]) -> str:
    others = [f"{label(row)} ({row['p50_ms']:.3f} ms)" for row in tied]
    return f"Neither latency nor accuracy tells it from {'; '.join(others)}." if others else ""


def _rejected_text(best: Row, rivals: list[Row], rejected: dict[int, str]) -> str:
    faster = sorted((r for r in rivals if r["paired_ms"] < best["paired_ms"]), key=lambda row: row["paired_ms"])
    named = [f"{label(r)} ({r['p50_ms']:.3f} ms): {rejected[r['index']]}" for r in faster if r["index"] in rejected]
    if not named:
        return "No variant that was rejected is faster."
    more = len(named) - _SHOWN_REJECTIONS
    return f"Faster but rejected: {'; '.join(named[:_SHOWN_REJECTIONS])}{f'; and {more} more' if more > 0 else ''}."
