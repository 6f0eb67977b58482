"""Usage errors: one clear line, exit code 2, nothing written."""

import dataclasses
import importlib.util
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cifar_tune.__main__ import main as library_command
from cifar_tune.data.datasets import describe, load
from cifar_tune.device import environment
from cifar_tune.errors import UsageError
from cifar_tune.models.registry import build_model
from cifar_tune.models.weights import save_weights
from cifar_tune.presets import PRESETS
from cifar_tune.runs.locks import sole_writer
from sweeps import distill_search
from sweeps.steps.checks import parse_study, prepare
from sweeps.steps.folder import write_study

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run the main job with wrong arguments; returns the one line it says. Nothing may be written."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str, command: Callable[[list[str]], None] = distill_search.main) -> str:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as ended:
            command([str(a) for a in argv])
        out, err = capsys.readouterr()
        assert ended.value.code == 2
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before
        return err

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image folder with two classes, grey PNGs."""
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(0, 256, (10, 10), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / part / name / f"{i}.png")
    return tmp_path / "images"


QUICK = ("--preset", "quick")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--preset", "huge"), "preset 'huge' is unknown; allowed are quick, cpu, folder, gpu"),
        (
            (*QUICK, "--students", "vgg"),
            "model 'vgg' is unknown; allowed are resnet18, resnet_narrow, speednet, speednet_wide",
        ),
        ((*QUICK, "--teacher", "vgg"), "model 'vgg' is unknown; allowed are resnet18"),
        (
            (*QUICK, "--schedules", "cubic"),
            "schedule 'cubic' is unknown; allowed are cosine, step, one_cycle, linear, triangle",
        ),
        ((*QUICK, "--data", "nowhere"), "data set 'nowhere' is neither one of"),
        ((*QUICK, "--temperature-range", "0", "4"), "temperature range is (0.0, 4.0); allowed is two numbers above 0"),
        ((*QUICK, "--temperature-range", "4", "2"), "allowed is two numbers above 0, low to high"),
        ((*QUICK, "--alpha-range", "0.5", "1.5"), "alpha range is (0.5, 1.5); allowed is two numbers from 0 to 1"),
        ((*QUICK, "--alpha-range", "-0.5", "1"), "alpha range is (-0.5, 1.0)"),
        ((*QUICK, "--lr-range", "0", "1"), "learning rate range is (0.0, 1.0); allowed is two numbers above 0"),
        ((*QUICK, "--lr-range", "nan", "1"), "learning rate range is (nan, 1.0)"),
        ((*QUICK, "--epochs", "0"), "epochs is 0; allowed is 1 or more"),
        ((*QUICK, "--teacher-epochs", "-1"), "epochs is -1; allowed is 1 or more"),
        ((*QUICK, "--num-samples", "0"), "num samples is 0; allowed is 1 or more"),
        ((*QUICK, "--min-accuracy", "85"), "min accuracy is 85.0; allowed is above 0, at most 1"),
        ((*QUICK, "--epochs", "many"), "many"),
        ((*QUICK, "--epoch", "3"), "--epoch"),
        ((*QUICK, "--train-images", "5"), "5"),
        ((*QUICK, "--train-images", "100000"), "100000"),
        ((*QUICK, "--latency-iterations", "10"), "allowed is 700 or more"),
        ((*QUICK, "--name", "../elsewhere"), "name is '../elsewhere'"),
        ((*QUICK, "--resume"), "only with --name RUN"),
        ((*QUICK, "--resume", "--name", "none"), "with --resume, a run in"),
        ((*QUICK, "--teacher-checkpoint", "none.safetensors"), "allowed is an existing safetensors file"),
        ((*QUICK, "--storage", "s3://bucket/runs"), "storage is 's3://bucket/runs'"),
        ((*QUICK, "--gpus-per-trial", "2"), "gpus per trial is 2.0; allowed is above 0, at most 1"),
        ((*QUICK, "--distinct-views", "0"), "distinct views is 0; allowed is 1 or an even number"),
        ((*QUICK, "--distinct-views", "3"), "distinct views is 3; allowed is 1 or an even number"),
        ((*QUICK, "--final-seeds", "0"), "final seeds is 0; allowed is 1 or more"),
        ((*QUICK, "--final-epochs", "0"), "final epochs is 0; allowed is 1 or more"),
        ((*QUICK, "--search-images", "9"), "search images is 9; allowed is 10 to 1294"),
        ((*QUICK, "--warm-start", "none"), "run is 'none'; allowed is a path, or a run in"),
        ((*QUICK, "--students", "resnet_tiny@0.5", "--prune", "0.5"), "models is 'resnet_tiny@0.5'; allowed is whole"),
        ((*QUICK, "--prune", "1"), "prune is (1.0,); allowed is shares between 0 and 1"),
        (
            (*QUICK, "--variants", "torch-fp64"),
            "variant is 'torch-fp64'; allowed is torch-fp32, torch-fp32-channels_last",
        ),
        ((*QUICK, "--mixup", "0.2"), "mixup is 0.2; allowed is 0 beside distillation"),
        ((*QUICK, "--magnitude", "1"), "magnitude is (1.0,); allowed is shares between 0 and 1"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, tuple) else "",
)
def test_wrong_option(refused: Refused, arguments: tuple[str, ...], line: str) -> None:
    assert line in refused(*arguments)


def test_a_wrong_value_is_said_without_the_names_of_classes(refused: Refused) -> None:
    assert refused(*QUICK, "--min-accuracy", "2").startswith("error: min accuracy is 2.0; allowed is")


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed here")
def test_a_logger_whose_package_is_missing(refused: Refused) -> None:
    assert "which is not installed: pip install wandb" in refused(*QUICK, "--log", "wandb")


@pytest.mark.skipif(__import__("torch").cuda.is_available(), reason="asks for CUDA where there is none")
def test_cuda_where_there_is_none(refused: Refused) -> None:
    assert "device is 'cuda'; allowed is cpu or auto: PyTorch finds no CUDA device here" in refused(
        *QUICK, "--device", "cuda"
    )


def test_storage_that_cannot_be_written(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "a folder that can be written" in refused(*QUICK, "--storage", tmp_path / "file" / "runs")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_storage_without_permission(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "a folder that can be written" in refused(*QUICK, "--storage", tmp_path / "locked" / "runs")


def test_run_that_exists(refused: Refused, tmp_path: Path) -> None:
    begun_run(tmp_path)
    assert "run mine exists in" in refused(*QUICK, "--name", "mine")


def test_run_that_another_driver_writes(tmp_path: Path) -> None:
    with sole_writer(tmp_path / "mine"), pytest.raises(UsageError) as refused, sole_writer(tmp_path / "mine"):
        pass
    assert str(refused.value) == f"run mine is being written by process {os.getpid()} on {socket.gethostname()}"


def test_run_whose_driver_died_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "driver.lock").write_text("process 1 on elsewhere\n")
    with sole_writer(tmp_path / "mine"):
        pass


def test_resume_with_an_option_that_would_change_results(refused: Refused, tmp_path: Path) -> None:
    begun_run(tmp_path, epochs=99)
    assert "epochs was 99, is 5" in refused(*QUICK, "--name", "mine", "--resume", "--epochs", "5")


def test_resume_with_an_option_that_the_run_is_older_than(refused: Refused, tmp_path: Path) -> None:
    study = begun_run(tmp_path) / "study.json"
    content = json.loads(study.read_text())
    del content["config"]["recipe"]["compile_step"]
    study.write_text(json.dumps(content))
    assert "compile_step was False, is True" in refused(*QUICK, "--name", "mine", "--resume", "--compile-step")


def begun_run(folder: Path, **settings: object) -> Path:
    """A run as its driver leaves it that died at once."""
    study = dataclasses.replace(PRESETS["quick"], **settings)  # whose name was made, not given
    run = folder / "ray_results" / "mine"
    run.mkdir(parents=True)
    write_study(run, study, environment("cpu"), describe(load(study.data)))
    return run


@pytest.mark.parametrize(
    "options",
    [("--num-samples", "9"), ("--runtimes", "openvino"), ("--latency-repeats", "4"), ("--min-accuracy", "0.9")],
)
def test_resume_with_an_option_that_extends_the_run(
    options: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert prepare(parse_study([*QUICK, "--name", "mine", "--resume", *options], "", "")).study.resume


def test_resume_on_other_images(refused: Refused, tmp_path: Path) -> None:
    study = begun_run(tmp_path) / "study.json"
    content = json.loads(study.read_text())
    content["data"]["fingerprint"] = "f" * 64
    study.write_text(json.dumps(content))
    assert "the images' fingerprint was 'ffffffffffff'" in refused(*QUICK, "--name", "mine", "--resume")


@pytest.mark.parametrize("name", ["device_name", "torch", "cifar_tune"])
def test_resume_on_another_machine_or_version(refused: Refused, tmp_path: Path, name: str) -> None:
    study = begun_run(tmp_path) / "study.json"
    content = json.loads(study.read_text())
    content["environment"][name] = "other"
    study.write_text(json.dumps(content))
    assert f"{name} was 'other'" in refused(*QUICK, "--name", "mine", "--resume")


def test_resume_of_a_run_whose_study_is_damaged(refused: Refused, tmp_path: Path) -> None:
    study = begun_run(tmp_path) / "study.json"
    study.write_text(study.read_text()[:100])
    assert "study.json is damaged" in refused(*QUICK, "--name", "mine", "--resume")


def test_a_folder_that_is_no_run_is_not_written_to(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "ray_results" / "mine").mkdir(parents=True)
    (tmp_path / "ray_results" / "mine" / "precious").write_text("x")
    assert "run mine exists" in refused(*QUICK, "--name", "mine")


def test_a_run_that_died_before_it_began_can_be_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ray_results" / "mine").mkdir(parents=True)
    (tmp_path / "ray_results" / "mine" / "driver.lock").write_text("process 1 on elsewhere\n")
    monkeypatch.chdir(tmp_path)
    assert prepare(parse_study([*QUICK, "--name", "mine"], "", "")).run.name == "mine"


def test_no_room_for_the_run(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
    assert "has 5 MB free; the run may need" in refused(*QUICK)


def test_storage_of_an_unknown_kind(refused: Refused) -> None:
    assert "allowed is a folder, or s3://bucket/prefix" in refused(*QUICK, "--storage", "gs://bucket")


def test_cifar10_neither_here_nor_reachable(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    said = refused("--preset", "cpu", "--data-dir", "nothing-here")
    assert "nothing-here" in said
    assert "--data digits" in said


def test_folder_without_test(refused: Refused, folder: Path) -> None:
    (folder / "test").rename(folder / "other")
    assert "test" in refused(*QUICK, "--data", folder)


def test_unreadable_image_is_named(refused: Refused, folder: Path) -> None:
    (folder / "train" / "cat" / "0.png").write_bytes(b"not an image")
    said = refused(*QUICK, "--data", folder)
    assert "train/cat/0.png" in said
    assert "--skip-unreadable" in said


def test_teacher_of_other_classes(refused: Refused, tmp_path: Path) -> None:
    save_weights(build_model("resnet_narrow", 3), tmp_path / "w.safetensors")
    assert "another number of classes" in refused(*QUICK, "--teacher-checkpoint", "w.safetensors")


def test_teacher_of_other_data(refused: Refused, tmp_path: Path) -> None:
    save_weights(build_model("resnet_narrow", 10), tmp_path / "w.safetensors", trained_on="f" * 64)
    said = refused(*QUICK, "--teacher-checkpoint", "w.safetensors")
    assert "was trained on other data (fingerprint ffffffffffff)" in said
    assert "--teacher-from-other-data" in said


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("fly",), "command 'fly' is unknown; allowed are train, evaluate, bench"),
        ((), "command '' is unknown"),
        (("train", "--data", "digits", "--lr", "-1"), "learning rate is -1.0; allowed is above 0"),
        (("train", "--data", "digits", "--lr", "nan"), "learning rate is nan"),
        (("train", "--data", "digits", "--temperature", "0"), "temperature is 0.0; allowed is above 0"),
        (("train", "--data", "digits", "--alpha", "1.1"), "alpha is 1.1; allowed is 0 to 1"),
        (
            ("train", "--data", "digits", "--alpha", "1"),
            "alpha is 1.0; allowed is above 0 only with --teacher-checkpoint",
        ),
        (("train", "--data", "digits", "--epochs", "0"), "epochs is 0; allowed is 1 or more"),
        (("train", "--data", "digits", "--schedule", "cubic"), "schedule 'cubic' is unknown"),
        (("train", "--data", "digits", "--model", "vgg"), "model 'vgg' is unknown"),
        (("train", "--data", "digits", "--out", "none/here"), "a file in an existing folder"),
        (("evaluate", "--model", "resnet18", "--checkpoint", "none", "--data", "digits"), "not a readable"),
        (("bench", "--runtime", "abacus"), "runtime is 'abacus'; allowed is torch"),
        (("bench", "--iterations", "1"), "allowed is 700 or more"),
        (("bench", "--precision", "int8"), "precision of torch is 'int8'; allowed is fp32"),
        (("bench", "--runtime", "openvino", "--precision", "int8_dynamic"), "precision of openvino is 'int8_dynamic'"),
        (("bench", "--runtime", "onnxruntime", "--compile", "default"), "compile of onnxruntime is 'default'"),
        (("bench", "--zeroed", "1"), "zeroed is 1.0; allowed is 0 or more, below 1"),
        (("bench", "--model", "vit_tiny_patch8_64@0.5"), "attention is not narrowed"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, tuple) else "",
)
def test_wrong_library_command(refused: Refused, arguments: tuple[str, ...], line: str) -> None:
    assert line in refused(*arguments, command=library_command)
