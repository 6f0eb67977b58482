"""Fresh processes, in which variants are built and measured.

None inherits allocator, compiler or thread state, and one that crashes is a row, not the end of the run. They are
forked from a server that has imported PyTorch and has computed nothing: a fresh state costs milliseconds instead of the
seconds that the imports take. The processes of one row get ready beside each other and measure one after another.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from multiprocessing.connection import Connection
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

import psutil

from cifar_tune.errors import ProcessDiedError

P = ParamSpec("P")
R = TypeVar("R")

PRELOADED = ["cifar_tune.measuring.measurement", "cifar_tune.measuring.preload", "ray"]
"""What the server of fresh processes imports. Ray is not used there; the main module of its workers imports it."""
COMPILER = ["cifar_tune.measuring.preload_compiler"]
"""What it imports besides, where variants are compiled or loaded from a compiler's cache: seconds more."""
_preload = [*PRELOADED, *COMPILER]
SPIN_COUNT = 10_000
"""How often libgomp's threads look for more work before they sleep. By its own choice that is 300,000 times, 25 ms on a
Xeon, for which the next call would have to wait. What this count does to FP32 eager, `benchmarks/drained_rounds.py`
measures."""
LEAVE_SECONDS = 5.0
"""Time that a process which has answered has to end by itself."""

_environment: ContextVar[Mapping[str, str]] = ContextVar("environment of fresh processes", default={})  # noqa: B039 - never changed
"""What the fresh processes that this thread starts are given, besides the environment of their server."""

_to_parent: list[Connection[Any, Any]] = []
"""In a fresh process: the line to the one that started it."""


def prepare_fresh_processes(*, compiles: bool) -> None:
    """Say, before the first fresh process of this process, whether any of them compiles."""
    _preload[:] = [*PRELOADED, *(COMPILER if compiles else [])]


def in_fresh_process(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a module-level function in a process of its own; its exception is raised here.

    Raises:
        ProcessDiedError: it died without an answer.
    """
    return in_fresh_processes([functools.partial(function, *args, **kwargs)])[0]


def in_fresh_processes(calls: Sequence[Callable[[], R]]) -> list[R]:
    """Make each call in a process of its own, all at the same time up to `exclusive_turn`, which they take one by one.

    The first exception is raised here, and ends the others. ProcessDiedError: one died without an answer.
    """
    with contextlib.ExitStack() as ends:
        fresh: list[_Fresh[R]] = [ends.enter_context(_Fresh()) for _ in calls]
        for process, call in zip(fresh, calls, strict=True):
            process.ask(call)  # not before all have been started: a large call waits for its process to listen
        for process in fresh:
            process.get_ready()
        return [process.answer() for process in fresh]


@contextlib.contextmanager
def environment_of_fresh(**variables: str | None) -> Iterator[None]:
    """Give the fresh processes that this thread starts these environment variables; None: leave one as it is."""
    token = _environment.set({name: value for name, value in variables.items() if value is not None})
    try:
        yield
    finally:
        _environment.reset(token)


def take_turns(entry: object, turn: Callable[[Any], object]) -> NoReturn:
    """Say that this fresh process is ready, then take each turn that its `TurnTaker` asks for, until that ends it.

    Args:
        entry: what `TurnTaker.get_ready` returns.
        turn: given what was asked; what it returns is the turn's answer.
    """
    (parent,) = _to_parent
    parent.send(("ready", entry))
    while True:
        parent.send(("taken", turn(parent.recv())))  # asleep in between


@contextlib.contextmanager
def exclusive_turn() -> Iterator[None]:
    """Say that this process is ready, and wait until no sibling has its turn; outside of fresh processes none does."""
    for parent in _to_parent:
        parent.send(("ready", None))
        parent.recv()
    yield


class _Fresh(Generic[R]):
    """A fresh process, as its parent sees it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_preload)
        self._line, far_end = context.Pipe()
        self._process = context.Process(target=_answer, args=(far_end,))
        with _environment_of_server():
            self._process.start()
        far_end.close()  # else its death would not be heard
        self._said: tuple[str, Any] = ("", None)

    def __enter__(self) -> _Fresh[R]:
        return self

    def __exit__(self, hurry: object, *_: object) -> None:
        self._line.close()
        if hurry is None:
            self._process.join(LEAVE_SECONDS)
        self._process.kill()
        self._process.join()

    def ask(self, call: Callable[[], R]) -> None:
        """Send it the call."""
        with contextlib.suppress(BrokenPipeError):  # that it died is heard where its answer is awaited
            self._line.send((call, dict(_environment.get())))

    def get_ready(self) -> None:
        """Wait until it asks for its exclusive turn, or has answered."""
        self._listen()

    def taken(self, asked: object, seconds: float) -> Any:
        """Ask it for a turn, nothing at first; returns what it answers. ProcessDiedError: it took longer."""
        if asked is not None:
            with contextlib.suppress(BrokenPipeError):  # as above
                self._line.send(asked)
        self._listen(seconds)
        return self._said[1]

    @property
    def memory(self) -> int:
        """Bytes that it alone holds, and would free."""
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self._process.pid).memory_full_info().uss
        return 0

    def answer(self) -> R:
        """Give it its turn, and wait for what it returns."""
        if self._said[0] == "ready":
            self._line.send("go")
            self._listen()
        return self._said[1]

    def _listen(self, seconds: float | None = None) -> None:
        try:
            if not self._line.poll(seconds):
                self._process.kill()
                raise ProcessDiedError(f"the process gave no answer for {seconds:g} s, and was ended")
            self._said = self._line.recv()
        except (EOFError, ConnectionResetError):
            raise ProcessDiedError("the process died: out of memory, or a crash in native code") from None
        if self._said[0] == "failed":
            raise self._said[1]


class TurnTaker:
    """A fresh process that calls `take_turns`: it gets ready once, then has its turns when they are asked for.

    To be entered; when it is left, the process is ended, whatever it does.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._fresh: _Fresh[None] = _Fresh()
        self._call = call

    def __enter__(self) -> TurnTaker:
        self._fresh.ask(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        self._fresh.__exit__(True)

    def get_ready(self, seconds: float) -> Any:
        """Wait until it is ready; returns what it says of itself.

        Raises ProcessDiedError where it dies or takes longer, else whatever it raised.
        """
        return self._fresh.taken(None, seconds)

    def turn(self, asked: object, seconds: float) -> Any:
        """What it makes of its turn; it has this process's siblings asleep meanwhile. Raises as `get_ready` does."""
        return self._fresh.taken(asked, seconds)

    @property
    def memory(self) -> int:
        """Bytes that it alone holds, and would free."""
        return self._fresh.memory


@contextlib.contextmanager
def _environment_of_server() -> Iterator[None]:
    """What the server of fresh processes is to find when it starts, and nobody else: `SPIN_COUNT`.

    OpenMP reads it once, where PyTorch is imported. What the user has set for the same stays.
    """
    if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)


def _answer(parent: Connection[Any, Any]) -> None:
    """What a fresh process does."""
    _end_with_parent()
    _to_parent.append(parent)
    try:
        call, environment = parent.recv()
        os.environ.update(environment)
        parent.send(("done", call()))
    except BaseException as error:  # noqa: BLE001 - whatever it was, the parent raises it
        parent.send(("failed", _portable(error)))


def _portable(error: BaseException) -> BaseException:
    """The exception if it survives being pickled, with all that it says; else only what it says."""
    with contextlib.suppress(Exception):  # an exception's constructor may raise anything
        if str(pickle.loads(pickle.dumps(error))) == str(error):  # noqa: S301 - our own, of a moment ago
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    """A process that waits for nobody ends when its parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a fresh process has a parent"

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
