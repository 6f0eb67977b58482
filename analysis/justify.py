"""The justification of a choice, in sentences with figures (R16). The rules themselves are in `decide` and `choose`."""

from __future__ import annotations

from analysis.frames import Row, label, variant_of
from analysis.markdown import MISSING
from analysis.paired import standard_error
from analysis.race import Confirmation, Figure, key_of
from analysis.rivals import Rejection, Rivals
from cifar_tune.blocks import CONFIDENCE
from cifar_tune.config import REFERENCE, TEACHER_ARM

NO_SAMPLES = "This table holds no raw samples, so nothing is said about ties, probabilities and paired intervals."
_SHOWN_REJECTIONS = 5
_WHENCE = {
    "confirm": "These figures come from new processes after the choice.",
    "race": "These figures come from the race, which also made the choice. No new processes have confirmed them.",
}


def chosen(
    best: Row,
    tied: list[Row],
    rivals: Rivals,
    rejected: dict[int, Rejection],
    min_accuracy: float,
    refuted: Row | None = None,
) -> str:
    """Why `best` is the candidate among `rivals`.

    Args:
        tied: other candidates that cannot be told from it.
        rejected: see `choose.rejections`.
        refuted: the row that was chosen first, which its confirmation left slower than another.
    """
    figure = rivals.figure(best)
    latency = _screened(best, rivals) if figure.kind == "screen" else _in_blocks(best, figure, rivals)
    sentences = [
        _head(best, rivals),
        _accuracy(best, rivals.images),
        *latency,
        _again(refuted, rivals),
        _certainty(best, min_accuracy, rivals),
        _speed(best, rivals.rows, figure),
        NO_SAMPLES if not rivals.sampled and not rivals.race.raced else _tie_text(tied, rivals),
        _rejected_text(best, rivals, rejected),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def _head(best: Row, rivals: Rivals) -> str:
    """The first sentence: the candidate, and whether new processes confirm it."""
    found = rivals.race.confirmation(key_of(best))
    if found is None:
        return f"The candidate is {label(best)}."
    if found.agrees:
        return f"The candidate is {label(best)}, and new processes confirm it."
    return f"The candidate {label(best)} is not confirmed: {unconfirmed(found)}."


def unconfirmed(found: Confirmation) -> str:
    """Why a confirmation does not agree with the race, as a clause."""
    if found.after is None:
        return f"its new processes gave no figure ({found.lost})"
    if found.lost is not None:
        return f"its new processes did not finish ({found.lost})"
    said = f"the race gave {found.before:.3f} times the baseline's latency, new processes give {found.after:.3f} times"
    disturbed, blocks = found.disturbed
    return f"{said}; others used the machine in {disturbed} of these {blocks} blocks" if disturbed else said


def _in_blocks(best: Row, figure: Figure, rivals: Rivals) -> list[str]:
    """What blocks of fresh processes say of the candidate."""
    floor = "" if figure.floor_ms is None else f" Its best block took {figure.floor_ms:.3f} ms."
    typical = f"At batch 1 it typically takes {figure.ms:.3f} ms{between(figure.low_ms, figure.high_ms)}.{floor}"
    baseline = rivals.baseline
    if figure.ratio is None or baseline is None or baseline["index"] == best["index"]:
        return [typical, _WHENCE[figure.kind]]
    times = (
        f"That is {figure.ratio:.3f} times{between(figure.ratio_low, figure.ratio_high)} the latency of the baseline, "
        f"{label(baseline)}: it is {1 / figure.ratio:.2f} times as fast."
    )
    return [typical, times, _WHENCE[figure.kind]]


def _screened(best: Row, rivals: Rivals) -> list[str]:
    tail = "" if best["p95_ms"] is None else f" and p95 {best['p95_ms']:.3f} ms"
    sentences = [f"At batch 1 its latency is p50 {best['p50_ms']:.3f} ms{tail}."]
    if best["contended"]:
        sentences.append("Other processes used the machine while it was measured.")
    if rivals.race.raced:
        sentences.append("No row that raced can be chosen. So the choice and these figures rest on the screen.")
    return sentences


def _again(refuted: Row | None, rivals: Rivals) -> str:
    """That the choice was made again, and why; empty where it was made once."""
    found = None if refuted is None else rivals.race.confirmation(key_of(refuted))
    if refuted is None or found is None or found.after is None:
        return ""
    return (
        f"The choice was made again. First it fell on {label(refuted)}, at {found.before:.3f} times the baseline's "
        f"latency in the race. New processes then gave {found.after:.3f} times, slower than another row that raced."
    )


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


def _certainty(row: Row, min_accuracy: float, rivals: Rivals) -> str:
    bound = rivals.accuracy_low(row)
    lower = f"the lower 95 % bound of its accuracy is {percent(bound)}"
    if rivals.level > CONFIDENCE:
        lower += f", corrected for the choice among {rivals.answers} sets of answers"
    if bound >= min_accuracy:
        return f"It holds the constraint of {percent(min_accuracy)}: {lower}."
    return f"It reaches {percent(min_accuracy)} on this test set. That is not certain: {lower}."


def _speed(best: Row, rivals: list[Row], figure: Figure) -> str:
    """What the screen says of the speed; against the teacher only where nothing better does."""
    sentences: list[str] = []
    teacher = next((r for r in rivals if r["arm"] == TEACHER_ARM and variant_of(r) == REFERENCE), None)
    if figure.kind == "screen" and teacher is not None and teacher["index"] != best["index"]:
        ratio = teacher["paired_ms"] / best["paired_ms"]
        sentences.append(
            f"It is {ratio:.2f} times as fast as the FP32 teacher {teacher['model']}: {best['paired_ms']:.3f} ms "
            f"against {teacher['paired_ms']:.3f} ms, with the machine's drift removed."
        )
    if best["speedup"] and variant_of(best) != REFERENCE:
        where = "paired rounds" if figure.kind == "screen" else "the screen's paired rounds"
        sentences.append(f"In {where} it is {speedup_text(best)} as fast as FP32 eager of the same weights.")
    return " ".join(sentences)


def _tie_text(tied: list[Row], rivals: Rivals) -> str:
    if not tied:
        return ""
    raced = all(key_of(row) in rivals.race.raced for row in tied)
    others = [f"{label(row)} ({_figure_text(row, rivals) if raced else _p50(row)})" for row in tied]
    return f"The {'race' if raced else 'measurements'} cannot tell it from {'; '.join(others)}."


def _figure_text(row: Row, rivals: Rivals) -> str:
    return f"{rivals.race.level(key_of(row)):.3f} times the baseline"


def _p50(row: Row) -> str:
    return f"{row['p50_ms']:.3f} ms"


def _rejected_text(best: Row, rivals: Rivals, rejected: dict[int, Rejection]) -> str:
    """Rows that are faster and were rejected, each compared with the best by the best kind of figure that both have."""
    faster: list[tuple[Figure, Row]] = []
    for row in rivals.rows:
        own, of_best = rivals.alike([row, best])
        if row["index"] in rejected and own.ms < of_best.ms:
            faster.append((own, row))
    faster.sort(key=lambda pair: pair[0].ms)
    named = [f"{label(row)} ({_named(row, own)}): {rejected[row['index']].reason}" for own, row in faster]
    if not named:
        return "No rejected variant is faster."
    shown = [f"{clause}." for clause in named[:_SHOWN_REJECTIONS]]
    more = len(named) - _SHOWN_REJECTIONS
    rest = [f"So are {more} more."] if more > 0 else []
    return " ".join(["These variants are faster, but rejected.", *shown, *rest])


def _named(row: Row, figure: Figure) -> str:
    where = {"race": "in the race", "confirm": "in new processes"}
    return _p50(row) if figure.kind == "screen" else f"{figure.ms:.3f} ms {where[figure.kind]}"
