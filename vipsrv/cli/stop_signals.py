"""Ctrl-C and SIGTERM during a batch: the first lets it finish what is in flight, a second one ends it."""

import os
import signal
import threading
from collections.abc import Callable
from enum import Enum, auto
from types import FrameType, TracebackType
from typing import Any, Self

from vipsrv.cli.exit_codes import ExitCode

_EXIT_CODES = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}
_SHOW_CURSOR = b"\x1b[?25h\n"
_STANDARD_ERROR = 2


class StopState(Enum):
    """What the signals have led to."""

    STARTING = auto()
    """Nothing is in flight yet: a signal ends the block by ``Stopped``."""
    RUNNING = auto()
    """The first signal will let the work finish what is in flight."""
    FINISHING = auto()
    """It has come: the next one ends the process."""
    STOPPED = auto()
    """A signal has come while the work was starting."""


class Stopped(BaseException):
    """A signal has come before there was anything to finish. Like ``KeyboardInterrupt`` it is no error."""


class StopSignals:
    """Takes both signals within a ``with`` block, which has to be in the main thread."""

    def __init__(self) -> None:
        self.state = StopState.STARTING
        self.exit_code = ExitCode.INTERRUPTED
        """The exit code that belongs to the signal that has come."""
        self._finish: Callable[[], None] = lambda: None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def stopped(self) -> bool:
        """Whether a signal has come."""
        return self.state in (StopState.FINISHING, StopState.STOPPED)

    def running(self, finish: Callable[[], None]) -> None:
        """Call ``finish`` from another thread at the first signal from now on."""
        self._finish = finish
        self.state = StopState.RUNNING

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._take) for number in _EXIT_CODES}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        exit_code = _EXIT_CODES[signal.Signals(number)]
        match self.state:
            case StopState.STARTING:
                self.state, self.exit_code = StopState.STOPPED, exit_code
                raise Stopped
            case StopState.RUNNING:
                self.state, self.exit_code = StopState.FINISHING, exit_code
                # A handler interrupts the main thread anywhere, also where it holds a lock that this needs.
                threading.Thread(target=self._finish, name="vipsrv-batch-stop", daemon=True).start()
            case StopState.FINISHING | StopState.STOPPED:
                if os.isatty(_STANDARD_ERROR):
                    os.write(_STANDARD_ERROR, _SHOW_CURSOR)  # the screen may have hidden it
                os._exit(exit_code)
