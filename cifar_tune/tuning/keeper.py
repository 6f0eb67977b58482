"""Training trials become records, and their weights are kept, as they end."""

from __future__ import annotations

import errno
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cifar_tune.device import environment
from cifar_tune.records import Environment, EpochRecord, TrialRecord
from cifar_tune.runs.ledger import Ledger
from cifar_tune.store import replace_file, sha256_file
from cifar_tune.tuning.context import RunContext
from cifar_tune.tuning.metrics import epoch_ended, trial_ended
from cifar_tune.tuning.progress import StepView, TrialEnd, TrialWatch
from cifar_tune.tuning.trainables import TrainTask
from cifar_tune.tuning.unfinished import BEST, LAST, METRIC


def ranked(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials that have weights, best first: by validation accuracy, those that ran to their end before others.

    Among equals the name decides, not the order they are given in: as trials end, it says whose weights are kept, and
    later whose are used.
    """
    scored = [t for t in trials if t.val_accuracy is not None and t.checkpoint and t.status != "failed"]
    return sorted(scored, key=lambda t: (t.status != "ok", -(t.val_accuracy or 0.0), t.trial_id))


def searched(ledger: Ledger, task: TrainTask) -> list[TrialRecord]:
    """The trials of a task's search that have ended."""
    assert task.template is not None, "a search has a template"
    return ledger.trials(task.template.arm, task.template.model, task.teacher_sha256(task.template))


class TrialKeeper:
    """Turns training trials into records, and keeps their weights, as they end."""

    def __init__(self, context: RunContext, task: TrainTask, view: StepView) -> None:
        self._context, self._task, self._view = context, task, view
        self._run, self._ledger = context.run, context.ledger
        self._epochs: dict[str, int] = {}
        before = searched(context.ledger, task) if task.template is not None else []
        self._best = max((t.val_accuracy or 0.0 for t in before), default=0.0)
        self._weights_of = before
        """The trials of this search whose weights are kept."""
        self._forget_losers()

    def watch(self) -> TrialWatch:
        """As what Tune calls."""
        return TrialWatch(self._report, self._end)

    def _report(self, tune_id: str, trial_config: dict[str, Any], metrics: dict[str, Any]) -> None:
        """Show an epoch of a trial."""
        before = self._epochs.get(tune_id, 0)
        # a worker that died before its checkpoint was kept reports that epoch again
        self._epochs[tune_id] = max(before, metrics["epoch"])
        self._best = max(self._best, metrics[METRIC])
        self._view.advance(self._epochs[tune_id] - before, best=f"best val {self._best:.1%}")
        if metrics["note"]:
            self._view.say_once(metrics["note"])
        config = self._task.training(trial_config)
        for row in metrics["rows"][-1:]:
            epoch_ended(self._run.name, self._task.stage, config.model, self._task.trial_id(config), row)

    def _end(self, trial: TrialEnd) -> None:
        """Make a trial that has ended durable; what it left to go on from goes only then."""
        if trial.metrics.get("disk_full"):  # no fault of the trial's, which is to run again
            raise OSError(errno.ENOSPC, trial.metrics["failure"])
        trial_id = self._task.trial_id(self._task.training(trial.config))
        epochs = [EpochRecord(trial_id=trial_id, **row) for row in trial.metrics.get("rows", [])]
        record = self._record(trial_id, trial, epochs)
        if record.status == "failed":
            self._keep_traceback(trial_id, trial)
        self._ledger.put_trial(record, epochs)
        trial_ended(record)
        if trial.checkpoint is not None:
            shutil.rmtree(trial.checkpoint, ignore_errors=True)
        self._weights_of.append(record)
        self._forget_losers()

    def _record(self, trial_id: str, trial: TrialEnd, epochs: list[EpochRecord]) -> TrialRecord:
        task, metrics = self._task, trial.metrics
        training = task.training(trial.config)
        there = metrics.get("environment")  # of the node that trained; none where it never said a word
        error = trial.error or metrics.get("failure")
        # what the worker was told, so that its defaults are recorded too
        config = training.config(task.study)
        checkpoint = self._keep_weights(trial_id, trial.checkpoint)
        return TrialRecord(
            run=self._run.name,
            trial_id=trial_id,
            stage=task.stage,
            arm=config.arm,
            model=config.model,
            dataset=self._context.dataset,
            status="failed" if error else "ok" if len(epochs) == config.epochs else "pruned",
            error=error,
            note=metrics.get("note"),
            optimizer=config.optimizer,
            lr=config.lr,
            schedule=config.schedule,
            temperature=config.temperature if config.distils else None,
            alpha=config.alpha,
            weight_decay=config.weight_decay,
            batch_size=config.batch_size,
            epochs=config.epochs,
            epochs_run=len(epochs),
            seed=config.seed,
            val_accuracy=max((e.val_accuracy for e in epochs), default=None),
            started_at=metrics.get("started_at"),
            train_seconds=metrics.get("train_seconds"),
            precision=metrics.get("precision"),
            parameters=metrics.get("parameters"),
            checkpoint=str(checkpoint.relative_to(self._run)) if checkpoint else None,
            checkpoint_sha256=sha256_file(checkpoint) if checkpoint else None,
            teacher_sha256=task.teacher_sha256(training),
            start_sha256=training.start_sha256,
            environment=Environment(**there) if there else environment(task.device),
        )

    def _keep_weights(self, trial_id: str, source: Path | None) -> Path | None:
        """Copy the best and the last weights from Tune's folder into the run's."""
        if source is None:
            return None
        folder = weights_folder(self._run, trial_id)
        for name in (BEST, LAST):
            replace_file(folder / name, lambda temporary, name=name: shutil.copyfile(source / name, temporary))
        return folder / BEST

    def _keep_traceback(self, trial_id: str, trial: TrialEnd) -> None:
        """The whole of what the row says in a line, and how to see it again."""
        command = f"python -m cifar_tune train --run {shlex.quote(str(self._run))} --trial {trial_id}"
        text = f"Only this trial:\n\n    {command}\n\n{trial.traceback or trial.metrics.get('traceback')}\n"
        replace_file(self._run / "errors" / f"{trial_id}.txt", lambda temporary: Path(temporary).write_text(text))

    def _forget_losers(self) -> None:
        """Remove the weights of a search's trials that can no longer become a finalist or the teacher."""
        if self._task.template is None:
            return
        best = ranked(self._weights_of)[: self._task.study.kept_trials(self._task.stage)]
        for trial in self._weights_of:
            if trial not in best:
                shutil.rmtree(weights_folder(self._run, trial.trial_id), ignore_errors=True)
        self._weights_of = best


def weights_folder(run: Path, trial_id: str) -> Path:
    """Where a trial's weights are kept."""
    return run / "checkpoints" / trial_id
