"""What the pictures show: shapes, fills, labels and axes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import get_args

import analysis_data as data
import pandas as pd
import pytest

from analysis.frames import Row, rows
from analysis.labels import Box, around, place
from analysis.plots import COMPILED, FILLS, MOST_KINDS, SHAPES, ZEROED, kind_of, shape_of
from analysis.sections.front_file import draw_front
from analysis.sections.front_page import figures
from analysis.sections.front_view import View, view_of
from cifar_tune.config import Precision, Variant
from cifar_tune.runtimes import RUNTIMES

MAGNITUDE = Path(__file__).resolve().parents[2] / "docs" / "results" / "magnitude" / "latency.parquet"
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def front(*changes: dict[str, object]) -> pd.DataFrame:
    """Rows as `front_table` gives them: the first is on the front and the candidate."""
    lines = [
        {**row, "place_ms": row["p50_ms"], "place_low_ms": 0.9 * row["p50_ms"], "place_high_ms": 1.1 * row["p50_ms"],
         "accuracy_low": row["test_accuracy"] - 0.01, "front_probability": 0.5, "feasible": True,
         "on_front": n == 0, "candidate": n == 0, "figure": "screen", **change}
        for n, change in enumerate(changes) for row in data.frame(data.latency()).to_dict("records")
    ]  # fmt: skip
    return pd.DataFrame(lines)


def accurate(*accuracies: float, **change: object) -> pd.DataFrame:
    """Rows with these accuracies."""
    return front(*({"test_accuracy": a, "place_ms": 1.0 + n, **change} for n, a in enumerate(accuracies)))


def test_no_two_runtimes_share_a_shape() -> None:
    for looks in ([s.marker for s in SHAPES.values()], [s.symbol for s in SHAPES.values()]):
        assert len(set(looks)) == len(looks)


def test_no_two_precisions_share_a_fill() -> None:
    for looks in ([f.style for f in FILLS.values()], [(f.symbol, f.alpha) for f in FILLS.values()]):
        assert len(set(looks)) == len(looks)


def test_every_runtime_and_precision_has_a_look() -> None:
    assert set(SHAPES) == {*RUNTIMES, COMPILED, ZEROED}
    assert set(FILLS) == set(PRECISIONS)


def test_kinds_of_a_published_run_look_unlike() -> None:
    columns = ["runtime", "precision", "compile", "zeroed"]
    found = rows(pd.read_parquet(MAGNITUDE, columns=columns).drop_duplicates())
    looks = {kind_of(row): (SHAPES[shape_of(row)].marker, FILLS[row["precision"]].style) for row in found}
    assert len(looks) > 8
    assert len(set(looks.values())) == len(looks)


def test_the_y_axis_shows_the_points_and_not_a_constraint_far_below() -> None:
    figure = draw_front(accurate(0.97, 0.98, 0.99), 0.85, "title")
    low, high = figure.axes[0].get_ylim()
    assert 90 < low < 97
    assert 99 < high < 101
    assert any("constraint 85 % lies below" in text.get_text() for text in figure.axes[0].texts)


def test_the_page_has_the_same_y_axis() -> None:
    (picture,) = figures(accurate(0.97, 0.98, 0.99), 0.85, 1000)
    assert picture.figure.layout.yaxis.range[0] > 90
    assert "constraint 85 % lies below" in picture.figure.layout.annotations[0].text


@pytest.mark.parametrize(("constraint", "shown"), [(0.965, True), (0.98, True), (0.85, False), (0.999, False)])
def test_a_constraint_near_the_points_is_drawn(constraint: float, shown: bool) -> None:
    view = view_of(accurate(0.97, 0.975, 0.99), constraint)
    assert view.shows_constraint == shown
    assert bool(view.notes) != shown


def test_weights_set_to_zero_do_not_stretch_the_axis() -> None:
    frame = pd.concat([accurate(0.97, 0.98), accurate(0.1, zeroed=0.9, on_front=False, candidate=False)])
    view = view_of(frame, 0.9)
    assert view.low > 90
    assert "1 variant with weights set to zero lies below" in view.notes[0]


def many_kinds() -> pd.DataFrame:
    """One row of each runtime and precision, the first two on the front."""
    kinds = itertools.product(("torch", "onnxruntime", "openvino"), PRECISIONS)
    return front(
        *({"runtime": runtime, "precision": precision, "place_ms": 1.0 + n, "test_accuracy": 0.9 + 0.004 * n,
           "on_front": n < 2} for n, (runtime, precision) in enumerate(kinds))
    )  # fmt: skip


def names(view: View) -> list[Row]:
    return [row for row in view.points if not view.pale(row)]


def test_of_many_kinds_only_the_front_is_named_and_the_rest_is_pale() -> None:
    view = view_of(many_kinds(), 0.5)
    assert len({kind_of(p) for p in view.points}) > MOST_KINDS
    assert len(view.named) == len(names(view)) == 2
    written = [text.get_text() for text in draw_front(many_kinds(), 0.5, "title").axes[0].texts]
    assert {"torch FP32", "torch BF16"} <= set(written)


def test_of_few_kinds_none_is_named() -> None:
    view = view_of(accurate(0.97, 0.98), 0.9)
    assert view.named == []
    assert len(names(view)) == 2


def test_labels_cover_neither_points_nor_each_other() -> None:
    points = [(100.0 + 4 * n, 100.0 + 3 * n) for n in range(8)]
    taken = [around(x, y, 5) for x, y in points]
    boxes = place(points, [(90.0, 14.0)] * len(points), taken, Box(0, 0, 800, 500))
    assert all(a.overlap(b) == 0 for a, b in itertools.combinations(boxes, 2))
    assert all(box.overlap(point) == 0 for box in boxes for point in taken)
    assert all(box.inside(Box(0, 0, 800, 500)) for box in boxes)


def test_a_shape_of_a_compiled_or_zeroed_row_is_its_own() -> None:
    assert shape_of(rows(data.frame(data.latency(Variant(compile="default"))))[0]) == COMPILED
    assert shape_of(rows(data.frame(data.latency(Variant(zeroed=0.5))))[0]) == ZEROED
