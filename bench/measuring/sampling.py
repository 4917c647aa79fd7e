"""Looking again and again, in a thread, at something that happens meanwhile."""

import threading
from collections.abc import Callable, Sequence
from typing import Self

from bench.measuring.processes import anonymous_bytes

_PEAK_SECONDS = 0.005


class Sampler:
    """Calls ``look`` every ``seconds`` while the ``with`` lasts."""

    def __init__(self, look: Callable[[], None], seconds: float) -> None:
        self._look = look
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            self._look()


class Peak(Sampler):
    """``bytes``: the most anonymous memory that these processes together held while the ``with`` lasted."""

    def __init__(self, pids: Sequence[int]) -> None:
        super().__init__(self._note, _PEAK_SECONDS)
        self._pids = pids
        self.bytes = 0

    def _note(self) -> None:
        self.bytes = max(self.bytes, sum(map(anonymous_bytes, self._pids)))
