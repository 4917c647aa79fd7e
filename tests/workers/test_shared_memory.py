"""The memory that the gateway shares with one worker."""

import mmap
import os

import pytest

from vipsrv.worker_config import IN_MEMORY_SIZE
from vipsrv.workers.shared_memory import SharedMemory, attach

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only Linux can seal memory")


@pytest.fixture
def shared() -> SharedMemory:
    memory = SharedMemory.create()
    assert memory is not None
    return memory


def test_the_worker_sees_what_the_gateway_puts(shared: SharedMemory) -> None:
    other_end = attach(shared.descriptor)
    shared.put([memoryview(b"one, "), memoryview(b"two")])
    assert bytes(other_end[:8]) == b"one, two"
    shared.put([memoryview(b"three")])
    assert bytes(other_end[:5]) == b"three"
    assert len(other_end) == IN_MEMORY_SIZE


def test_the_worker_can_neither_shrink_nor_grow_it(shared: SharedMemory) -> None:
    for size in (0, IN_MEMORY_SIZE - 1, IN_MEMORY_SIZE + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(shared.descriptor, size)


def test_pages_that_were_never_written_take_no_room(shared: SharedMemory) -> None:
    shared.put([memoryview(b"x")])
    assert os.fstat(shared.descriptor).st_blocks * 512 <= mmap.PAGESIZE


def test_the_mapping_outlives_the_descriptor(shared: SharedMemory) -> None:
    shared.close_descriptor()
    shared.put([memoryview(b"x")])
    shared.close()
