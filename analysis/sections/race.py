"""The race of the finalists: who entered, what it says of each, and who cannot be told from the fastest."""

from __future__ import annotations

from analysis.choose import contest, eligible, fastest
from analysis.field import Field
from analysis.frames import Row, Run, label
from analysis.justify import between
from analysis.markdown import MISSING, bullets, fixed, table
from analysis.race import key_of
from analysis.rivals import Rivals
from cifar_tune.blocks import Interval, modes, ratio

_HEADER = ("Contender", "Times the baseline", "Rerun", "Typical ms", "Floor ms", "Blocks", "Place")
_NOTE = """A block is one set of fresh processes, one for each contender, that take turns. Times the baseline is the
ratio to the baseline of the same block, with its 95 % interval over the blocks. Rerun is where the ratio of another
race of as many blocks will lie, at 95 %. Typical is the median of the blocks with its 95 % interval. The floor is the
best block, without one."""


def text(rivals: Rivals, run: Run, field: Field) -> str:
    """The contenders, fastest first; empty where there was no race."""
    raced = [row for row in rivals.grid if key_of(row) in rivals.race.raced]
    if not raced:
        return ""
    ties = _ties(rivals, run)
    whole = [row for row in raced if rivals.race.whole([key_of(row)])]
    whole.sort(key=lambda row: rivals.race.level(key_of(row)))
    lines = [_line(row, rivals, ties) for row in whole]
    gone = [row for row in raced if rivals.race.raced[key_of(row)].lost is not None]
    lines += [(label(row), *[MISSING] * 4, _blocks(row, rivals), "lost a block") for row in gone]
    said = [*_lost(gone, rivals), *_two_speeds(whole, rivals)]
    parts = [f"## Race\n\n{table(_HEADER, lines)}", bullets(said) if said else "", _entry(raced, field), _NOTE]
    return "\n\n".join(part for part in parts if part)


def _entry(raced: list[Row], field: Field) -> str:
    """Who entered and who was cut; empty where the race was of others than the screen would send today."""
    return field.text if {row["index"] for row in raced} == set(field.rows) else ""


def _ties(rivals: Rivals, run: Run) -> set[int]:
    """Rows that can be chosen and that the race cannot tell from the fastest of these."""
    found, _ = eligible(rivals, run.min_accuracy, run.latency_budget_ms)
    can = [row for row in found if key_of(row) in rivals.race.raced]
    return {row["index"] for row in fastest(rivals, contest(rivals, can))} if can else set()


def _line(row: Row, rivals: Rivals, ties: set[int]) -> tuple[object, ...]:
    figure, interval = rivals.race.figures(row | {"paired_ms": 1.0}, None)["race"], _interval(row, rivals)
    is_baseline = key_of(row) == rivals.race.baseline
    place = "baseline" if is_baseline else "tied with the fastest" if row["index"] in ties else ""
    return (
        label(row),
        f"{fixed(figure.ratio, 3)}{between(figure.ratio_low, figure.ratio_high)}",
        MISSING if interval is None or is_baseline else f"{interval.rerun_low:.3f} to {interval.rerun_high:.3f}",
        f"{figure.ms:.3f}{between(figure.low_ms, figure.high_ms)}",
        fixed(figure.floor_ms, 3),
        _blocks(row, rivals),
        place,
    )


def _interval(row: Row, rivals: Rivals) -> Interval | None:
    ratios = rivals.race.raced[key_of(row)].ratios
    return ratio(ratios, [1.0] * len(ratios)) if len(ratios) > 1 else None


def _blocks(row: Row, rivals: Rivals) -> int:
    return len(rivals.race.raced[key_of(row)].numbers)


def _lost(gone: list[Row], rivals: Rivals) -> list[str]:
    found = [(row, rivals.race.raced[key_of(row)].lost) for row in gone]
    return [f"{label(row)} did not finish the race, so it cannot be chosen ({why})." for row, why in found]


def _two_speeds(whole: list[Row], rivals: Rivals) -> list[str]:
    found = [(row, modes(rivals.race.raced[key_of(row)].ms)) for row in whole]
    return [
        f"{label(row)} runs at two speeds: some processes take {both[0]:.3f} ms, others {both[1]:.3f} ms."
        for row, both in found
        if both is not None
    ]
