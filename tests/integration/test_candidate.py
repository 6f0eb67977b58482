"""The candidate's folder, for every runtime: it works without this package, and what it does not do is found."""

from __future__ import annotations

import dataclasses
import html
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from analysis_data import latency
from markdown_it import MarkdownIt
from shipped import CLASSES, CPU, PIXELS, VERIFIED, shipment, source

from cifar_tune.config import Variant
from cifar_tune.models.outside import make_model
from cifar_tune.models.registry import build_model
from cifar_tune.models.weights import load_weights, save_weights
from cifar_tune.records import LatencyRecord
from cifar_tune.shipping.candidate import (
    CheckImages,
    deploy,
    is_shipped,
    make_candidate,
    note_verification,
    verify,
    write_candidate,
)
from cifar_tune.shipping.templates import model_card, plain_text
from cifar_tune.store import sha256_file


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_weights(build_model("resnet_tiny", len(CLASSES), seed=1), path)
    return path


@pytest.fixture(scope="module")
def fp32(weights: Path) -> np.ndarray:
    """The classes that FP32 eager gives."""
    model = make_model("resnet_tiny", len(CLASSES)).eval()
    load_weights(model, weights, sha256_file(weights))
    images = (torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        return model(images).argmax(1).numpy()


def check(fp32: np.ndarray) -> CheckImages:
    return CheckImages(pixels=PIXELS, labels=fp32, fp32=fp32)


def ship(folder: Path, weights: Path, fp32: np.ndarray, variant: Variant) -> LatencyRecord:
    shipped = shipment(weights, fp32, variant)
    write_candidate(folder, shipped)
    deploy(source(folder, weights, variant), folder)
    return shipped.row


@pytest.mark.parametrize("variant", [*CPU, Variant(compile="default")], ids=lambda v: v.name)
def test_folder_answers_as_the_model_does_without_the_package(
    tmp_path: Path, weights: Path, fp32: np.ndarray, variant: Variant
) -> None:
    row = ship(tmp_path / "candidate", weights, fp32, variant)
    found = verify(tmp_path / "candidate", row, check(fp32))
    assert found.accuracy is not None, found
    assert found.accuracy >= (1.0 if variant.precision == "fp32" else 0.9), found


def test_a_folder_with_other_weights_is_not_verified(tmp_path: Path, weights: Path, fp32: np.ndarray) -> None:
    other = tmp_path / "other.safetensors"
    save_weights(build_model("resnet_tiny", len(CLASSES), seed=2), other)
    row = ship(tmp_path / "candidate", other, fp32, Variant(runtime="onnxruntime"))
    found = verify(tmp_path / "candidate", row, check(fp32))
    assert (found.ok, found.problem is None) == (False, False)


def test_a_folder_that_does_not_open_is_not_verified(tmp_path: Path, weights: Path, fp32: np.ndarray) -> None:
    row = ship(tmp_path / "candidate", weights, fp32, Variant(runtime="onnxruntime"))
    (tmp_path / "candidate" / "model.onnx").write_bytes(b"cut off")
    found = verify(tmp_path / "candidate", row, check(fp32))
    assert found.accuracy is None
    assert "model.onnx" in str(found)


def test_slow_models_are_checked_on_fewer_images(tmp_path: Path, weights: Path, fp32: np.ndarray) -> None:
    row = ship(tmp_path / "candidate", weights, fp32, Variant(runtime="onnxruntime"))
    slow = dataclasses.replace(row, p50_ms=5_000.0)
    assert verify(tmp_path / "candidate", slow, check(fp32)).images == 12


def test_candidate_is_shipped_once_it_is_checked(tmp_path: Path, weights: Path, fp32: np.ndarray) -> None:
    shipped, folder = shipment(weights, fp32, Variant()), tmp_path / "candidate"
    write_candidate(folder, shipped)
    assert not is_shipped(folder, shipped)
    note_verification(folder, shipped, VERIFIED)
    assert is_shipped(folder, shipped)
    assert not is_shipped(folder, dataclasses.replace(shipped, row=dataclasses.replace(shipped.row, precision="fp16")))


def test_candidate_whose_figures_were_measured_again_is_made_again(
    tmp_path: Path, weights: Path, fp32: np.ndarray
) -> None:
    shipped, folder = shipment(weights, fp32, Variant()), tmp_path / "candidate"
    write_candidate(folder, shipped)
    note_verification(folder, shipped, VERIFIED)
    fresh = dataclasses.replace(shipped.row, stage="confirm", typical_ms=1.9, floor_ms=1.8, ratio=0.5)
    assert not is_shipped(folder, dataclasses.replace(shipped, fresh=fresh, is_confirmed=True))


def test_candidate_that_was_not_verified_is_made_again(tmp_path: Path, weights: Path, fp32: np.ndarray) -> None:
    shipped, folder = shipment(weights, fp32, Variant()), tmp_path / "candidate"
    write_candidate(folder, shipped)
    note_verification(folder, shipped, dataclasses.replace(VERIFIED, ok=False))
    assert not is_shipped(folder, shipped)


@pytest.mark.parametrize("card", ["", "[]", "{}"])
def test_candidate_with_a_damaged_card_is_made_again(
    tmp_path: Path, weights: Path, fp32: np.ndarray, card: str
) -> None:
    (tmp_path / "candidate.json").write_text(card)
    assert not is_shipped(tmp_path, shipment(weights, fp32, Variant()))


def test_candidate_takes_the_place_of_an_earlier_one(tmp_path: Path, weights: Path, fp32: np.ndarray) -> None:
    folder, variant = tmp_path / "candidate", Variant(runtime="onnxruntime")
    folder.mkdir()
    (folder / "model.engine").write_text("of an earlier choice")
    shipped = shipment(weights, fp32, variant)
    found = make_candidate(folder, shipped, source(folder, weights, variant), check(fp32))
    assert found.ok, found
    assert is_shipped(folder, shipped)
    assert {p.name for p in folder.iterdir()} >= {"model.onnx", "model.safetensors", "MODEL_CARD.md", "example.py"}
    assert not {"model.engine", "__pycache__"} & {p.name for p in folder.iterdir()}


def test_candidate_that_cannot_be_exported_is_there_with_the_reason(
    tmp_path: Path, weights: Path, fp32: np.ndarray
) -> None:
    folder, variant = tmp_path / "candidate", Variant(runtime="onnxruntime")
    (tmp_path / "artifact").write_text("a file where the artifact's folder should be")
    found = make_candidate(folder, shipment(weights, fp32, variant), source(folder, weights, variant), check(fp32))
    assert not found.ok
    assert "FileExistsError" in str(found.problem)
    assert "NOT verified" in (folder / "MODEL_CARD.md").read_text()


def test_requirements_are_those_of_the_runtime(tmp_path: Path, weights: Path, fp32: np.ndarray) -> None:
    write_candidate(tmp_path / "candidate", shipment(weights, fp32, Variant(runtime="onnxruntime")))
    names = [line.split("==")[0] for line in (tmp_path / "candidate" / "requirements.txt").read_text().splitlines()]
    assert names == ["numpy", "pillow", "onnxruntime"]


def test_requirements_can_be_installed_from_an_index(tmp_path: Path, weights: Path, fp32: np.ndarray) -> None:
    """The mark of a local build, +cpu, is in no index."""
    write_candidate(tmp_path / "candidate", shipment(weights, fp32, Variant()))
    assert "+" not in (tmp_path / "candidate" / "requirements.txt").read_text()


def test_opset_in_the_card_is_that_of_the_file(tmp_path: Path, weights: Path, fp32: np.ndarray) -> None:
    folder = tmp_path / "candidate"
    ship(folder, weights, fp32, Variant(runtime="onnxruntime"))
    opsets = {o.domain: o.version for o in pytest.importorskip("onnx").load(folder / "model.onnx").opset_import}
    assert json.loads((folder / "candidate.json").read_text())["onnx_opset"] == opsets[""]


@pytest.mark.parametrize(
    "said",
    [
        "cat, dog, ship", "animals and ships", "learning rate 0.05", "95 % interval 80.00% to 100.00%", "p50 2.000 ms",
        "Test CPU", "not calibrated", "python sweeps/distill_search.py --preset quick", "verified in a fresh process",
    ],
)  # fmt: skip
def test_model_card_says(weights: Path, fp32: np.ndarray, said: str) -> None:
    assert said in model_card(shipment(weights, fp32, Variant()), VERIFIED)


FRESH = dataclasses.replace(
    latency(stage="confirm", block=1), ratio=0.25, ratio_low=0.24, ratio_high=0.26, typical_ms=2.5, typical_low_ms=2.4,
    typical_high_ms=2.6, floor_ms=2.3,
)  # fmt: skip


@pytest.mark.parametrize(
    "said", ["Typically 2.500 ms (2.400 to 2.600)", "at best 2.300 ms", "0.250 times the baseline"]
)
def test_model_card_states_what_new_processes_gave(weights: Path, fp32: np.ndarray, said: str) -> None:
    card = model_card(shipment(weights, fp32, Variant(), fresh=FRESH, is_confirmed=True), VERIFIED)
    assert said in card
    assert "NOT confirmed" not in card


def test_cards_say_that_the_candidate_is_not_confirmed(tmp_path: Path, weights: Path, fp32: np.ndarray) -> None:
    refuted = shipment(weights, fp32, Variant(), fresh=FRESH, is_confirmed=False)
    assert "NOT confirmed" in model_card(refuted, VERIFIED)
    write_candidate(tmp_path / "candidate", refuted)
    card = json.loads((tmp_path / "candidate" / "candidate.json").read_text())
    assert (card["figure"], card["confirmed"], card["p50_ms"]) == ("confirm", False, 2.5)


def test_model_card_of_given_weights_does_not_make_a_recipe_up(weights: Path, fp32: np.ndarray) -> None:
    card = model_card(shipment(weights, fp32, Variant(), recipe=None), VERIFIED)
    assert "weights were given" in card


def test_class_names_from_data_stay_data(tmp_path: Path, weights: Path, fp32: np.ndarray) -> None:
    hostile = ('"; import os', "</script>", "../x")
    write_candidate(tmp_path / "candidate", shipment(weights, fp32, Variant(), classes=hostile))
    assert json.loads((tmp_path / "candidate" / "candidate.json").read_text())["classes"] == list(hostile)


@pytest.mark.parametrize("words", ["<img src=x>", "[x](http://evil)", "a\n# b", "a|b", "`c`"])
def test_words_from_data_are_no_markup_in_the_model_card(words: str) -> None:
    shown = MarkdownIt("commonmark").enable("table").render(plain_text(words))
    assert shown == f"<p>{html.escape(' '.join(words.split()))}</p>\n"
