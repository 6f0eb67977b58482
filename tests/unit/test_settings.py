"""Settings: the flags that there are, what a resume may change, and `study.json` of today and of older versions."""

import dataclasses
import json
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cifar_tune import cli
from cifar_tune.commands.bench import Bench
from cifar_tune.commands.evaluate import Evaluate
from cifar_tune.commands.train import Train
from cifar_tune.config import DataConfig, LatencyConfig, RecipeConfig, TrainConfig, ViewSettings
from cifar_tune.presets import PRESETS
from cifar_tune.settings import made, nested, part, settings_of
from cifar_tune.study import FLAT_FORMAT, STUDY_FORMAT, Preset, StudyConfig, read_content, study_from
from sweeps.serve_candidate import ServeConfig
from sweeps.variant_grid import GridConfig

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
STUDY_FLAGS = """
preset data data-dir name storage teacher teacher-checkpoint teacher-answers teacher-seeds
teacher-from-other-data students num-samples
teacher-samples epochs teacher-epochs teacher-progressive search-images final-top final-seeds final-epochs prune
magnitude prune-epochs pretrained warm-start batch-size optimizer lr-range teacher-lr-range schedules temperature-range
alpha-range momentum weight-decay weight-decay-range whitening dirac fixed-norm-scale norm-bias-rate norm-momentum
lookahead logit-scale label-smoothing mixup distill-loss class-weights crop-padding flip cutout trivial-augment
distinct-views
image-size train-images test-images validation-fraction unlabelled skip-unreadable
precision compile-step distill min-accuracy
early-stopping grace-epochs concurrent-trials gpus-per-trial latency-warmup latency-iterations latency-max-iterations
latency-repeats latency-fresh-processes latency-time-limit latency-threads strict race-time-limit race-contenders
compiled-variants runtimes variants
latency-budget-ms device address measure-on seed dashboard resume log verbose
"""
GRID_FLAGS = """
run checkpoint model input-shape data data-dir test-images image-size mean std min-accuracy preset runtimes variants
device strict name resume storage dashboard verbose
"""
SERVE_FLAGS = "run storage host port replicas batch queue timeout p95-ms users seconds stay"
TRAIN_FLAGS = """
data data-dir image-size train-images test-images skip-unreadable model epochs batch-size optimizer lr schedule
momentum weight-decay whitening dirac fixed-norm-scale norm-bias-rate norm-momentum lookahead logit-scale
label-smoothing mixup distill-loss teacher teacher-checkpoint temperature alpha seed precision device run trial out
"""
EVALUATE_FLAGS = "data data-dir image-size train-images test-images skip-unreadable model checkpoint device"
BENCH_FLAGS = """
model checkpoint input-shape runtime precision compile channels-last single-thread zeroed zeroed-by-layer warmup
iterations repeats time-limit threads strict device
"""


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (StudyConfig, STUDY_FLAGS), (GridConfig, GRID_FLAGS), (ServeConfig, SERVE_FLAGS), (Train, TRAIN_FLAGS),
        (Evaluate, EVALUATE_FLAGS), (Bench, BENCH_FLAGS),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)  # fmt: skip
def test_a_command_has_these_flags(command: type, flags: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse(command, ["--help"], prog="command", description="")
    shown = re.findall(r"(?m)^[^\w-]*--(?:no-)?([a-z][\w-]*)", capsys.readouterr().out)
    assert sorted(shown) == sorted(flags.split())


@pytest.mark.parametrize("kind", [StudyConfig, GridConfig, Train, Evaluate, Bench], ids=lambda kind: kind.__name__)
def test_no_two_settings_share_a_flag(kind: type) -> None:
    flags = [s.flag for s in settings_of(kind) if s.flag is not None]
    assert len(flags) == len(set(flags))


def test_every_flag_of_a_study_is_explained() -> None:
    assert [s.flag for s in settings_of(StudyConfig) if s.flag and not cli.helptext(s)] == []


def test_a_flag_sets_what_lies_in_a_part_and_leaves_the_rest_to_the_preset() -> None:
    argv = ["--latency-time-limit", "2", "--distinct-views", "6", "--data-dir", "here"]
    study = cli.parse(StudyConfig, argv, default=PRESETS["quick"], prog="", description="")
    quick = PRESETS["quick"]
    assert study.latency == dataclasses.replace(quick.latency, time_limit=2.0)
    assert study.views == dataclasses.replace(quick.views, distinct=6)
    assert study.data == dataclasses.replace(quick.data, data_dir="here")


def test_what_no_flag_sets_stays_as_in_the_default() -> None:
    default = StudyConfig(latency=LatencyConfig(window=0.25))
    assert cli.parse(StudyConfig, ["--latency-repeats", "4"], default=default, prog="", description="").latency == (
        LatencyConfig(window=0.25, repeats=4)
    )


def test_one_seed_seeds_the_views_and_the_finalists() -> None:
    study = StudyConfig(seed=7)
    assert study.view_config().seed == 7
    assert list(study.finalist_seeds) == [8, 9, 10]


def test_the_presets_are_those_that_the_flag_allows() -> None:
    assert tuple(PRESETS) == typing.get_args(Preset)
    assert all(study.preset == name for name, study in PRESETS.items())


def test_a_recipe_is_the_trainings() -> None:
    study = StudyConfig(recipe=RecipeConfig(batch_size=7, label_smoothing=0.1))
    assert study.train_config("m", "plain", {"lr": 0.2}) == TrainConfig(
        model="m", arm="plain", epochs=20, lr=0.2, batch_size=7, label_smoothing=0.1
    )


def test_a_protocol_is_all_that_a_figure_depends_on() -> None:
    expected = (
        '{"warmup": 50, "iterations": 500, "max_iterations": 2000, "median_interval": 0.01, "repeats": 3, '
        '"fresh_processes": true, "round_calls": 10, "reference_calls": 3, "window": 0.5, "retries": 1, '
        '"time_limit": 6.0, "threads": 0, "drained": true}'
    )
    assert StudyConfig(latency=LatencyConfig(strict=True)).latency.protocol == expected


# --- resuming ---------------------------------------------------------------------------------------------------


def test_a_resume_may_change_these_settings_only() -> None:
    changeable = {s.flag for s in settings_of(StudyConfig) if s.changeable and s.flag is not None}
    assert changeable == {
        "resume", "name", "verbose", "log", "num_samples", "teacher_samples", "final_top", "final_seeds", "prune",
        "prune_epochs", "magnitude", "warm_start", "students", "address", "measure_on", "dashboard", "storage",
        "concurrent_trials", "gpus_per_trial", "preset", "data_dir", "runtimes", "variants",
        "compiled_variants",
        "latency_warmup", "latency_iterations", "latency_max_iterations", "latency_repeats",
        "latency_fresh_processes", "latency_time_limit", "latency_threads", "latency_budget_ms", "min_accuracy",
        "race_time_limit", "race_contenders", "strict",
    }  # fmt: skip


# --- study.json -------------------------------------------------------------------------------------------------


def as_json(value: object) -> Any:
    return json.loads(json.dumps(value))


def read(content: object) -> dict[str, Any]:
    return read_content(json.dumps(content), "study.json")


@pytest.mark.parametrize("study", PRESETS.values(), ids=PRESETS)
def test_a_study_comes_back_from_its_file(study: StudyConfig) -> None:
    content = {"format": STUDY_FORMAT, "config": dataclasses.asdict(study)}
    assert study_from(read(content)["config"]) == study


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*/study.json")), ids=lambda file: file.parent.name)
def test_a_published_study_has_the_settings_that_it_had(file: Path) -> None:
    content = json.loads(file.read_text())
    study = study_from(read(content)["config"])
    flat = {s.flag: as_json(s.of(study)) for s in settings_of(StudyConfig)}
    values = flat if content["format"] == FLAT_FORMAT else as_json(dataclasses.asdict(study))
    assert what_it_had(values, content["config"]) == content["config"]


def what_it_had(values: Any, before: Any) -> Any:
    """Of today's settings those that a study had: newer ones were not there."""
    if not isinstance(before, dict):
        return values
    return {name: what_it_had(values[name], value) for name, value in before.items()}


def test_a_flat_study_is_nested_where_its_settings_lie_in_parts() -> None:
    flat = {"format": 1, "config": {"latency_warmup": 5, "strict": True, "data": "digits", "students": ["a"]}}
    assert read(flat) == {
        "format": STUDY_FORMAT,
        "config": {"latency": {"warmup": 5, "strict": True}, "data": {"source": "digits"}, "students": ["a"]},
    }


@pytest.mark.parametrize("value", [None, "1", 0])
def test_an_unknown_format_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=f"has format {value!r}; this version reads {STUDY_FORMAT} and older"):
        read({"format": value, "config": {}})


@pytest.mark.parametrize("content", [[], 5, {"format": 1, "config": []}])
def test_what_is_no_study_is_refused(content: object) -> None:
    with pytest.raises(ValueError, match=r"study\.json is not what a run writes"):
        read(content)


@pytest.mark.parametrize("config", [{"colour": 1}, {"latency": {"colour": 1}}, {"latency": 5}, {"epochs": 0}])
def test_settings_that_are_none_of_this_version_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"colour|latency is 5|epochs is 0"):
        study_from(config)


# --- parts ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    data: DataConfig = dataclasses.field(default_factory=DataConfig, metadata=part("of_", hidden=("test_images",)))


def test_a_hidden_setting_has_no_flag_and_a_prefix_goes_before_the_names() -> None:
    flags = {s.path[-1]: s.flag for s in settings_of(Command)}
    assert (flags["test_images"], flags["train_images"], flags["source"]) == (None, "of_train_images", "data")


def test_values_by_flag_make_the_configuration() -> None:
    by_flag = {"data": "digits", "of_train_images": 9}
    expected = Command(data=DataConfig(source="digits", train_images=9))
    assert made(Command, nested(Command, by_flag)) == expected


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (lambda: DataConfig(image_size=4), "image size is 4; allowed is 8 pixels or more"),
        (lambda: DataConfig(train_images=0), "train images is 0; allowed is 1 or more"),
        (lambda: ViewSettings(crop_padding=-1), "crop padding is -1; allowed is 0 or more"),
        (lambda: ViewSettings(distinct=3), "distinct views is 3; allowed is 1 or an even number"),
        (lambda: LatencyConfig(round_calls=0), "latency round calls is 0; allowed is 1 or more"),
        (lambda: RecipeConfig(batch_size=0), "batch size is 0; allowed is 1 or more"),
    ],
)
def test_a_wrong_value_is_refused_where_it_is_set(wrong: Callable[[], object], line: str) -> None:
    with pytest.raises(ValueError, match=re.escape(line)):
        wrong()
