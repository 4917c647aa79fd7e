"""Rows from an event loop to the thread that iterates, and the room that images take."""

import asyncio
import threading

import pytest

from tests.support.batch_rows import failed_row, outputs
from vipsrv.batch import row_queue
from vipsrv.batch.room import Room
from vipsrv.batch.row_queue import RowQueue
from vipsrv.batch.rows import Row

MOST = 10
OUTPUTS = outputs()


@pytest.fixture(autouse=True)
def woken_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_queue, "WAKE_ROWS", MOST // 2)


def row(number: int) -> Row:
    return failed_row(f"{number}.jpg", OUTPUTS)


def in_thread(
    queue: RowQueue, count: int, put: list[int], error: BaseException | None = None
) -> threading.Thread:
    """Put rows in an event loop in another thread, and note how many were put."""

    async def work() -> None:
        for number in range(count):
            await queue.put(row(number))
            put.append(number)

    def main() -> None:
        asyncio.run(work())
        queue.end(error)

    thread = threading.Thread(target=main)
    thread.start()
    return thread


def test_all_rows_come_in_their_order_and_then_the_end() -> None:
    queue = RowQueue(MOST)
    thread = in_thread(queue, 1000, [])
    keys = []
    while (one := queue.get()) is not None:
        keys.append(one.key)
    thread.join()
    assert keys == [f"{number}.jpg" for number in range(1000)]
    assert queue.get() is None


def test_an_error_comes_after_the_rows_once() -> None:
    queue = RowQueue(MOST)
    in_thread(queue, 3, [], KeyError("the end")).join()
    assert [one.key for one in (queue.get(), queue.get(), queue.get()) if one] == ["0.jpg", "1.jpg", "2.jpg"]
    with pytest.raises(KeyError):
        queue.get()
    assert queue.get() is None


def test_the_loop_waits_for_the_thread() -> None:
    queue = RowQueue(MOST)
    put: list[int] = []
    thread = in_thread(queue, 1000, put)
    for number in range(500):
        assert queue.get() == row(number)
        assert len(put) <= number + 1 + MOST
    queue.drop()  # and then for nobody
    thread.join()
    assert len(put) == 1000


async def test_a_room_has_seats_and_bytes() -> None:
    room = Room(2, 100)
    large = await room.enter(500)  # a single one of any size
    waiting = asyncio.create_task(room.enter(10))
    await asyncio.sleep(0)
    assert not waiting.done()
    large.holds(90)
    second = await waiting
    assert (room.taken, room.bytes) == (2, 100)
    waiting = asyncio.create_task(room.enter(0))
    await asyncio.sleep(0)
    assert not waiting.done()  # no seat
    second.leave()
    third = await waiting
    large.holds(1000)  # a result may exceed the room
    third.leave()
    large.leave()
    assert (room.taken, room.bytes) == (0, 0)
