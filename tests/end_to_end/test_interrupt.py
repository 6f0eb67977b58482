"""One study is interrupted in every way, and ends as one that was not; `make chaos` does so again and again.

Ctrl-C, as a terminal sends it: to all processes of the study; SIGTERM, as a batch system sends it; and SIGKILL.
"""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from chaos import difference, kill, plant_pickles
from small_study import ROOT, Ending, Study
from watched import Watched, whole_study

from cifar_tune.cli import INTERRUPTED
from cifar_tune.config import REFERENCE
from cifar_tune.records import TrialRecord
from cifar_tune.runs.ledger import Ledger
from sweeps.steps.interrupts import interruptible

pytestmark = pytest.mark.timeout(1300)


def finished_trials(study: Study) -> int:
    return len(Ledger(study.run).read(TrialRecord)) if study.begun() else 0


def wait_for_a_trial(study: Study, process: psutil.Popen) -> None:
    """Until the study has one more than it has now."""
    before = finished_trials(study)
    while finished_trials(study) == before:
        assert process.is_running() and process.status() != psutil.STATUS_ZOMBIE, study.last_words()
        time.sleep(0.2)


def press(study: Study, *signals: signal.Signals) -> tuple[int, str]:
    """Start a study or go on with it; signal it when it has a trial more. Exit code and last words."""
    process = study.start()
    try:
        wait_for_a_trial(study, process)
        for sent in signals:
            if sent == signal.SIGTERM:
                process.terminate()
            else:
                os.killpg(process.pid, sent)
            time.sleep(0.3)
        return process.wait(60), study.last_words()
    finally:
        if process.is_running():
            process.kill()
        process.wait()


@pytest.fixture(scope="module")
def study(watched: Watched, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The same trainings, all of which may be interrupted; of its rows FP32 eager is enough."""
    scratch = tmp_path_factory.mktemp("interrupted")
    return whole_study(scratch, "interrupted", watched.images, "--variants", REFERENCE.name)


def in_fp32_eager(ending: Ending) -> Ending:
    """What a study leaves that measures nothing else."""
    measured = {key: status for key, status in ending.measured.items() if key.startswith(f"grid-{REFERENCE.name}-0-")}
    return dataclasses.replace(ending, measured=measured)


IN_A_FINALIZER = """
import os, signal, time
from sweeps.steps.interrupts import interruptible

class Interrupted:
    def __del__(self):
        os.kill(os.getpid(), signal.{sent})
        time.sleep(0.1)

signal.signal(signal.SIGINT, signal.{of_sigint})
with interruptible():
    Interrupted()
    time.sleep({seconds})
print("went on", flush=True)
"""


@pytest.mark.parametrize(
    ("sent", "of_sigint"),
    [("SIGINT", "default_int_handler"), ("SIGTERM", "default_int_handler"), ("SIGTERM", "SIG_IGN")],
)
@pytest.mark.parametrize("seconds", [0, 20])
def test_one_that_python_drops_in_a_finalizer_is_not_lost(sent: str, of_sigint: str, seconds: int) -> None:
    script = IN_A_FINALIZER.format(sent=sent, of_sigint=of_sigint, seconds=seconds)
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stdout == ""
    assert "KeyboardInterrupt" in ended.stderr


@interruptible()
def fail_to_clean_up() -> None:
    try:
        raise KeyboardInterrupt
    finally:
        raise FileNotFoundError


def test_one_that_a_library_answers_with_an_error_of_its_own_is_not_lost() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(KeyboardInterrupt):
            fail_to_clean_up()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_first_writes_the_tables_and_says_how_to_go_on(study: Study) -> None:
    code, words = press(study, signal.SIGINT)
    assert code == INTERRUPTED
    assert "--resume" in words
    assert (study.run / "trials.parquet").exists()


def test_the_second_ends_at_once_and_loses_nothing(study: Study) -> None:
    before = study.finished()
    assert before
    code, _ = press(study, signal.SIGINT, signal.SIGINT)
    assert code == INTERRUPTED
    assert {name: study.finished()[name] for name in before} == before
    assert not list(study.run.rglob("*.part"))


def test_sigterm_ends_it_as_the_first_does(study: Study) -> None:
    code, words = press(study, signal.SIGTERM)
    assert code == INTERRUPTED
    assert "--resume" in words


def test_nothing_outlives_a_driver_that_is_killed(study: Study) -> None:
    process = study.start()
    try:
        wait_for_a_trial(study, process)
        assert kill(process) is None
    finally:
        if process.is_running():
            process.kill()


def test_what_was_interrupted_ends_as_what_was_not_and_reads_no_pickle(study: Study, watched: Watched) -> None:
    assert study.begun(), "the tests above begin it"
    before, mark = study.finished(), plant_pickles(study.run)
    assert study.finish() is None
    assert difference(study, before, in_fp32_eager(watched.study.ending())) is None
    assert not mark.exists()


def test_nothing_of_it_runs_on(study: Study) -> None:
    left: list[str] = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(study.run.parent) in line and process.pid != os.getpid():
            left.append(line)
    assert left == []
