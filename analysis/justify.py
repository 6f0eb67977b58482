"""The justification of a choice, in sentences with figures (R16). The rules themselves are in `decide` and `choose`."""

from __future__ import annotations

from analysis.frames import Row, label, variant_of
from analysis.markdown import MISSING
from analysis.paired import lower_bound, standard_error
from analysis.rivals import Rejection, Rivals
from cifar_tune.config import REFERENCE, TEACHER_ARM

NO_SAMPLES = "This table holds no raw samples, so nothing is said about ties, probabilities and paired intervals."
_SHOWN_REJECTIONS = 5


def chosen(best: Row, tied: list[Row], rivals: Rivals, rejected: dict[int, Rejection], min_accuracy: float) -> str:
    """Why `best` is the candidate among `rivals`; `tied` are other candidates that cannot be told from it."""
    sentences = [
        _what(best, rivals.images),
        _certainty(best, min_accuracy, rivals.images),
        _speed(best, rivals.rows),
        _tie_text(tied) if rivals.draws is not None else NO_SAMPLES,
        _rejected_text(best, rivals.rows, rejected),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def speedup_cell(row: Row) -> str:
    """Speedup over FP32 eager with its interval, for a table."""
    if row["speedup"] is None:
        return MISSING
    return f"{row['speedup']:.2f}{between(row['speedup_low'], row['speedup_high'], '.2f')}"


def speedup_text(row: Row) -> str:
    """A paired speedup with its interval, where there is one."""
    return f"{row['speedup']:.2f} times{between(row.get('speedup_low'), row.get('speedup_high'), '.2f')}"


def between(low: float | None, high: float | None, form: str = ".3f") -> str:
    """An interval in brackets, to stand behind its figure; empty where there is none."""
    return "" if low is None or high is None else f" ({low:{form}} to {high:{form}})"


def percent(fraction: float) -> str:
    """A fraction as text, in percent."""
    return f"{100 * fraction:.2f} %"


def none_chosen(rivals: Rivals, measured: list[Row], rejected: dict[int, Rejection], min_accuracy: float) -> str:
    """Why there is no candidate, and what comes nearest; `measured` have a latency, `rivals` an accuracy as well."""
    if not measured:
        return "There is no candidate: no variant of the grid was measured."
    if not rivals.rows:
        fastest = min(measured, key=lambda row: row["p50_ms"])
        speed = f"It is {speedup_text(fastest)} as fast as its FP32 eager." if fastest["speedup"] else ""
        return (
            "There is no candidate: without labelled test images, accuracy is unknown. "
            f"The fastest variant is {label(fastest)}, with a p50 of {fastest['p50_ms']:.3f} ms. {speed}"
        ).rstrip()
    best = max(rivals.rows, key=lambda row: (row["test_accuracy"], -row["p50_ms"]))
    nearest = (
        f"The most accurate variant is {label(best)}. {_accuracy(best, rivals.images)} "
        f"Its p50 is {best['p50_ms']:.3f} ms."
    )
    if best["test_accuracy"] < min_accuracy:
        short = 100 * (min_accuracy - best["test_accuracy"])
        missed = f"no variant reaches an accuracy of {percent(min_accuracy)}"
        return f"There is no candidate: {missed}. {nearest} It is {short:.2f} points short."
    why = rejected[best["index"]].reason
    broken = f"every variant that reaches {percent(min_accuracy)} breaks another rule"
    return f"There is no candidate: {broken}. {nearest} It is rejected: {why}."


def _accuracy(row: Row, images: int) -> str:
    error = 100 * standard_error(row["test_accuracy"], images)
    figure = f"{100 * row['test_accuracy']:.2f} ± {error:.2f} %"
    return f"Its test accuracy is {figure} (standard error, {images:,} images)."


def _what(row: Row, images: int) -> str:
    tail = "" if row["p95_ms"] is None else f" and p95 {row['p95_ms']:.3f} ms"
    latency = f"At batch 1 its latency is p50 {row['p50_ms']:.3f} ms{tail}."
    disturbed = " Other processes used the machine while it was measured." if row["contended"] else ""
    return f"The candidate is {label(row)}. {_accuracy(row, images)} {latency}{disturbed}"


def _certainty(row: Row, min_accuracy: float, images: int) -> str:
    bound = lower_bound(row["test_accuracy"], images)
    lower = f"the lower 95 % bound of its accuracy is {percent(bound)}"
    if bound >= min_accuracy:
        return f"It holds the constraint of {percent(min_accuracy)}: {lower}."
    return f"It reaches {percent(min_accuracy)} on this test set. That is not certain: {lower}."


def _speed(best: Row, rivals: list[Row]) -> str:
    sentences: list[str] = []
    teacher = next((r for r in rivals if r["arm"] == TEACHER_ARM and variant_of(r) == REFERENCE), None)
    if teacher is not None and teacher["index"] != best["index"]:
        ratio = teacher["paired_ms"] / best["paired_ms"]
        sentences.append(
            f"It is {ratio:.2f} times as fast as the FP32 teacher {teacher['model']}: {best['paired_ms']:.3f} ms "
            f"against {teacher['paired_ms']:.3f} ms, with the machine's drift removed."
        )
    if best["speedup"] and variant_of(best) != REFERENCE:
        sentences.append(f"In paired rounds it is {speedup_text(best)} as fast as FP32 eager of the same weights.")
    return " ".join(sentences)


def _tie_text(tied: list[Row]) -> str:
    others = [f"{label(row)} ({row['p50_ms']:.3f} ms)" for row in tied]
    return f"The measurements cannot tell it from {'; '.join(others)}." if others else ""


def _rejected_text(best: Row, rivals: list[Row], rejected: dict[int, Rejection]) -> str:
    faster = sorted((r for r in rivals if r["paired_ms"] < best["paired_ms"]), key=lambda row: row["paired_ms"])
    named = [
        f"{label(row)} ({row['p50_ms']:.3f} ms): {rejected[row['index']].reason}"
        for row in faster
        if row["index"] in rejected
    ]
    if not named:
        return "No rejected variant is faster."
    shown = [f"{clause}." for clause in named[:_SHOWN_REJECTIONS]]
    more = len(named) - _SHOWN_REJECTIONS
    rest = [f"So are {more} more."] if more > 0 else []
    return " ".join(["These variants are faster, but rejected.", *shown, *rest])
