"""Sampling a value in a thread while something else runs."""

import threading
from collections.abc import Callable, Sequence
from typing import Self

from bench.measuring.processes import anonymous_bytes

_PEAK_SECONDS = 0.005


class Sampler:
    """Calls ``sample`` every ``seconds`` while the ``with`` lasts, or until it fails with ``error``.

    The end of the ``with`` raises that error, unless another one has ended it.
    """

    def __init__(self, sample: Callable[[], None], seconds: float) -> None:
        self._sample = sample
        self._seconds = seconds
        self.error: Exception | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self.error is not None and kind is None:
            raise self.error

    def _run(self) -> None:
        try:
            while not self._over.wait(self._seconds):
                self._sample()
        except Exception as error:  # noqa: BLE001 - raised by the thread that waits for this one
            self.error = error


class Peak(Sampler):
    """``bytes`` is the most memory that these processes held together while the ``with`` lasted.

    ``memory_of`` gives that of one process, by default its anonymous memory. ``samples`` is how often it was
    read so far.
    """

    def __init__(
        self,
        pids: Sequence[int],
        seconds: float = _PEAK_SECONDS,
        *,
        memory_of: Callable[[int], int] = anonymous_bytes,
    ) -> None:
        super().__init__(self._note, seconds)
        self._pids = pids
        self._memory_of = memory_of
        self.bytes = 0
        self.samples = 0

    def _note(self) -> None:
        self.samples += 1
        self.bytes = max(self.bytes, sum(map(self._memory_of, self._pids)))
