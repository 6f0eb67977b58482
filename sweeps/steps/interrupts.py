"""Ctrl-C and SIGTERM: one stops a study in good order, a second one at once, and none is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cifar_tune import cli

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

AGAIN_AFTER = 0.5
"""Seconds after which an interrupt that was lost is sent again: by then, on a busy machine too, the finalizer and the
hook that Python calls have returned, which would drop it once more."""


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Within it SIGINT and SIGTERM raise KeyboardInterrupt in the main thread.

    Python prints and drops an exception that is raised while a finalizer runs, and Ray's have enough to do to be hit:
    an interrupt that went that way is sent again, as SIGTERM, since a shell's background jobs ignore SIGINT. Nor is
    one lost where a library fails while it cleans up after it, as Optuna's lock of its journal may.
    """
    # what a batch system or a container sends: Ray's own handler would abort
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    hook = sys.unraisablehook
    main = threading.main_thread().ident or 0
    sent_again: list[threading.Timer] = []

    def report(dropped: UnraisableHookArgs) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            hook(dropped)
            return
        # from another thread: sent here, it would be raised, and dropped, here
        sent_again.append(threading.Timer(AGAIN_AFTER, signal.pthread_kill, (main, signal.SIGTERM)))
        sent_again[-1].start()

    sys.unraisablehook = report
    try:
        yield
    except Exception as error:  # whatever a library raised as it was interrupted
        if _came_of_an_interrupt(error):
            raise KeyboardInterrupt from error
        raise
    finally:
        sys.unraisablehook = hook
        due = [timer for timer in sent_again if not timer.finished.is_set()]
        for timer in due:
            timer.cancel()
    if due:
        raise KeyboardInterrupt


def _came_of_an_interrupt(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def end_at_the_next() -> None:
    """From now on SIGINT and SIGTERM end this process at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(cli.INTERRUPTED))
