"""What a worker takes for pictures that are bombs, and for pictures of others: measured at its process."""

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.bombs import BOMBS
from tests.workers.test_child import Child
from vipsrv.errors import RequestError, TooLarge, WorkerDied

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory and CPU are read from Linux' /proc")

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
MEBIBYTE = 1 << 20
MOST_MEMORY = 512 * MEBIBYTE
TICK = 0.01
"""Seconds: the step of the CPU times in /proc."""

# Seconds of CPU time, six times what is measured.
REFUSED_WITHIN = 0.3
DONE_WITHIN = 3.0

CONFIG = {"max_pixels": 5_000_000_000, "job_memory": MOST_MEMORY - 64 * MEBIBYTE, "max_expansion": 250}


@dataclass(frozen=True)
class Taken:
    """What a job took: its refusal if there was one, peak and growth of memory in bytes, CPU in seconds."""

    error: RequestError | None
    peak: int
    growth: int
    cpu: float


class Measured:
    """A worker that is measured at each job."""

    def __init__(self) -> None:
        self.child = Child(CONFIG)
        self.child.start()

    def run(self, picture: bytes) -> Taken:
        proc = Path(f"/proc/{self.child.process.pid}")
        (proc / "clear_refs").write_text("5")  # the peak starts anew (man 5 proc)
        before, cpu = self._memory("VmRSS"), self._cpu()
        self.child.send_resize(picture, options=json.dumps({"width": 320, "height": 240}).encode())
        try:
            head, _ = self.child.reply(image_size=len(picture))
            error = head.error
        except Exception:  # noqa: BLE001 - whatever the reply lacked
            assert self.child.process.wait(60) != 0
            return Taken(WorkerDied("the worker died"), 0, 0, 0)
        peak = self._memory("VmHWM")
        return Taken(error, peak, peak - before, self._cpu() - cpu)

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self.child.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name)) * 1024

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self.child.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK


@pytest.fixture(scope="module")
def measured() -> Iterator[Measured]:
    one = Measured()
    yield one
    one.child.close()


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_a_bomb_is_refused_before_it_is_decoded(name: str, measured: Measured) -> None:
    bomb = BOMBS[name]()
    taken = measured.run(bomb)
    assert isinstance(taken.error, TooLarge), taken
    # The upload itself lies in the worker's memory, too.
    assert taken.growth < len(bomb) + 32 * MEBIBYTE, taken
    assert taken.cpu < REFUSED_WITHIN, taken
    measured.child.works()


@pytest.mark.skipif(
    not (CORPUS / "index.csv").is_file(), reason="the corpus is not beside the repository (../shared/corpus)"
)
def test_no_picture_of_others_takes_too_much(measured: Measured) -> None:
    with (CORPUS / "index.csv").open(newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    assert len(paths) > 900
    bombs = 0
    for path in paths:
        taken = measured.run((CORPUS / path).read_bytes())
        assert not isinstance(taken.error, WorkerDied), path
        assert taken.peak < MOST_MEMORY, (path, taken)
        assert taken.cpu < DONE_WITHIN, (path, taken)
        if isinstance(taken.error, TooLarge):
            bombs += 1
            assert taken.cpu < REFUSED_WITHIN, (path, taken)
    assert bombs > 10
