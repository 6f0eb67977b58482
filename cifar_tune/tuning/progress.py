"""What a person sees while a run works, and what the ledger keeps of each trial as it ends.

On a terminal: one steadily updated view, a bar a step with the best so far and the time left. Elsewhere (a log
file): one line when a step ends, and one a minute within it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune import Callback
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

LOG_INTERVAL = 60.0
"""Seconds between lines of an unfinished step where the output is no terminal."""


class StudyView:
    """Progress of the steps of a run on standard error, so that standard output ends with the report's path."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.live = self.console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description:<27}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[unit]:<6}", table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(min_width=7, no_wrap=True)),
            TextColumn("left", table_column=Column(min_width=4)),
            TimeRemainingColumn(table_column=Column(min_width=7, no_wrap=True)),
            # what is too long for the terminal is cut here, and nowhere else
            TextColumn("{task.fields[best]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            console=self.console,
            refresh_per_second=2,
            expand=True,
        )

    def __enter__(self) -> StudyView:
        if self.live:
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.live:
            self._progress.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, highlight=False, soft_wrap=True)

    def step(self, name: str, total: int, unit: str) -> StepView:
        """Open a step's bar."""
        return StepView(self, self._progress, name, total, unit)


class StepView:
    """One step's bar."""

    def __init__(self, view: StudyView, progress: Progress, name: str, total: int, unit: str) -> None:
        self._view, self._progress, self._unit = view, progress, unit
        self._name, self._total, self._done, self._best = name, total, 0, ""
        self._said: set[str] = set()
        self._started = self._spoke = time.monotonic()
        self._task: TaskID = progress.add_task(name, total=total, unit=unit, best="")

    def advance(self, steps: int = 1, best: str | None = None) -> None:
        """Move the bar; `best` is shown beside it until the next one."""
        self._done += steps
        self._best = self._best if best is None else best
        self._progress.update(self._task, completed=self._done, best=self._best)
        now = time.monotonic()
        if not self._view.live and self._done < self._total and now - self._spoke > LOG_INTERVAL:
            self._spoke = now
            left = (now - self._started) / max(self._done, 1) * (self._total - self._done)
            self._view.say(f"{self._name}: {self._done}/{self._total} {self._unit}, {left:.0f} s left  {self._best}")

    def say_once(self, text: str) -> None:
        """Print a line, unless this step has printed it before."""
        if text not in self._said:
            self._said.add(text)
            self._view.say(f"{self._name}: {text}")

    def end(self) -> None:
        """Early-stopped trials leave epochs undone: the step is finished all the same."""
        self._progress.update(self._task, completed=self._total)
        self._progress.stop_task(self._task)
        if not self._view.live:
            self._view.say(f"{self._name}: done in {time.monotonic() - self._started:.0f} s  {self._best}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialEnd:
    """How a Tune trial ended."""

    tune_id: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    """Of its last report; empty where it never reported."""
    checkpoint: Path | None
    """Folder of its last checkpoint; None: it has none."""
    error: str | None
    """Last line of its worker's traceback; None: it ended, and its metrics say how."""
    traceback: str | None
    """The whole of it."""


class TrialWatch(Callback):
    """Tells functions, where given, of each report (Tune's trial id, the trial's configuration, metrics), each trial's
    end, and now and then."""

    def __init__(
        self,
        on_report: Callable[[str, dict[str, Any], dict[str, Any]], None] | None,
        on_end: Callable[[TrialEnd], None],
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_report, self._on_end, self._on_step = on_report, on_end, on_step
        self.trouble: Exception | None = None
        """What the first of these functions that failed raised: Tune passes on only its text."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles callbacks into its own folder; nothing of ours is read back from there

    def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
        with self._noting():
            self._on_step()

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        if self._on_report is not None:
            with self._noting():
                self._on_report(trial.trial_id, trial.config, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._end(trial, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        text = Path(trial.error_file).read_text().strip() if trial.error_file else ""
        self._end(trial, text or "the worker died")

    def _end(self, trial: Any, traceback: str | None) -> None:
        end = TrialEnd(
            tune_id=trial.trial_id,
            config=trial.config,
            metrics=trial.last_result or {},
            checkpoint=Path(trial.checkpoint.path) if trial.checkpoint else None,
            error=None if traceback is None else traceback.splitlines()[-1],
            traceback=traceback,
        )
        with self._noting():
            self._on_end(end)

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # Tune passes on only its text; here it is kept, and raised again
            self.trouble = self.trouble or error
            raise
