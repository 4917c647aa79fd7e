"""Memory and CPU that a worker takes for decompression bombs and for public test files."""

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.bombs import BOMBS
from tests.workers.child.child_process import ChildProcess
from vipsrv.errors import RequestError, TooLarge, WorkerDied

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory and CPU are read from Linux' /proc")

CORPUS = Path(__file__).parents[4] / "shared" / "corpus"
MEBIBYTE = 1 << 20
MOST_MEMORY = 512 * MEBIBYTE
TICK = 0.01
"""Seconds: the step of the CPU times in /proc."""

# Seconds of CPU time, six times what is measured.
REFUSED_WITHIN = 0.3
DONE_WITHIN = 3.0

CONFIG = {"max_pixels": 5_000_000_000, "job_memory": MOST_MEMORY - 64 * MEBIBYTE, "max_expansion": 250}


@dataclass(frozen=True)
class Cost:
    """The cost of a job: its error if any, peak and growth of memory in bytes, CPU time in seconds."""

    error: RequestError | None
    peak: int
    growth: int
    cpu: float


class Measured:
    """A worker whose memory and CPU time are read after each job."""

    def __init__(self) -> None:
        self.child = ChildProcess(CONFIG)
        self.child.start()

    def run(self, image: bytes) -> Cost:
        proc = Path(f"/proc/{self.child.process.pid}")
        (proc / "clear_refs").write_text("5")  # reset the peak (man 5 proc)
        before, cpu = self._memory("VmRSS"), self._cpu()
        self.child.send_resize(image, options=json.dumps({"width": 320, "height": 240}).encode())
        try:
            head, _ = self.child.reply(image_size=len(image))
            error = head.error
        except Exception:  # noqa: BLE001 - whatever was wrong with the reply
            assert self.child.process.wait(60) != 0
            return Cost(WorkerDied("the worker died"), 0, 0, 0)
        peak = self._memory("VmHWM")
        return Cost(error, peak, peak - before, self._cpu() - cpu)

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
    # The upload itself is in the worker's memory as well.
    assert taken.growth < len(bomb) + 32 * MEBIBYTE, taken
    assert taken.cpu < REFUSED_WITHIN, taken
    measured.child.check_that_it_works()


@pytest.mark.skipif(
    not (CORPUS / "index.csv").is_file(), reason="the corpus is not beside the repository (../shared/corpus)"
)
def test_no_public_test_file_takes_too_much(measured: Measured) -> None:
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
