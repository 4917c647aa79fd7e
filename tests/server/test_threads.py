import pytest

from vipsrv.server.threads import threads_for
from vipsrv.workers.channel import MAX_THREADS


@pytest.mark.parametrize(
    ("busy", "waiting", "threads"),
    [(0, 0, 4), (1, 0, 3), (3, 0, 1), (4, 0, 1), (9, 0, 1), (0, 1, 2), (1, 1, 1), (0, 3, 1), (0, 100, 1)],
)
def test_a_heavy_job_has_its_share_of_the_idle_cores(busy: int, waiting: int, threads: int) -> None:
    assert threads_for(100, cores=4, busy=busy, waiting=waiting, memory_left=10_000) == threads


@pytest.mark.parametrize(("left", "threads"), [(1000, 4), (400, 4), (399, 3), (100, 1), (99, 1), (-5, 1)])
def test_each_thread_has_its_memory(left: int, threads: int) -> None:
    assert threads_for(100, cores=4, busy=0, waiting=0, memory_left=left) == threads


def test_there_are_never_more_than_the_channel_can_tell() -> None:
    assert threads_for(1, cores=1000, busy=0, waiting=0, memory_left=10**9) == MAX_THREADS
