"""Buffers that are reused, and the budget that bounds them."""

import pytest

from vipsrv.storage.chunk_pool import KEPT_FREE, LARGE_CHUNK_SIZE, SMALL_CHUNK_SIZE, ChunkPool


def test_a_chunk_that_was_given_back_is_used_again() -> None:
    pool = ChunkPool(SMALL_CHUNK_SIZE)
    chunk = pool.take(10)
    pool.give_back([chunk])
    again = pool.take(10)
    assert again.buffer.obj is chunk.buffer.obj
    assert again.filled == 0


@pytest.mark.parametrize(
    ("budget", "missing", "size"),
    [
        (LARGE_CHUNK_SIZE, LARGE_CHUNK_SIZE // 2, SMALL_CHUNK_SIZE),
        (LARGE_CHUNK_SIZE, LARGE_CHUNK_SIZE // 2 + 1, LARGE_CHUNK_SIZE),
        (LARGE_CHUNK_SIZE - 1, LARGE_CHUNK_SIZE, SMALL_CHUNK_SIZE),
        (0, 10, SMALL_CHUNK_SIZE),
    ],
    ids=["few bytes missing", "many bytes missing", "little budget left", "no budget left"],
)
def test_the_size_of_a_chunk_follows_from_what_is_missing_and_what_is_left(
    budget: int, missing: int, size: int
) -> None:
    pool = ChunkPool(budget)
    chunk = pool.take(missing)
    assert len(chunk.buffer) == size
    assert pool.budget_left == budget - size


def test_after_a_burst_only_so_many_bytes_are_kept() -> None:
    pool = ChunkPool(2 * KEPT_FREE)
    count = KEPT_FREE // LARGE_CHUNK_SIZE
    chunks = [pool.take(LARGE_CHUNK_SIZE) for _ in range(count + 1)]
    pool.give_back(chunks)
    again = {id(pool.take(LARGE_CHUNK_SIZE).buffer.obj) for _ in range(count + 1)}
    assert len(again & {id(chunk.buffer.obj) for chunk in chunks}) == count


def test_a_chunk_offers_what_is_free_and_shows_what_is_filled() -> None:
    chunk = ChunkPool(SMALL_CHUNK_SIZE).take(10)
    chunk.room(10)[:] = b"0123456789"
    chunk.filled += 10
    assert bytes(chunk.view) == b"0123456789"
    assert len(chunk.room(SMALL_CHUNK_SIZE)) == SMALL_CHUNK_SIZE - 10
    assert not chunk.full
