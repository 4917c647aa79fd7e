"""Buffers that are reused, and the budget that bounds them."""

import pytest

from vipsrv.storage.budget import Holding
from vipsrv.storage.chunk_pool import (
    CHUNK_SIZES,
    KEPT_FREE,
    LARGE_CHUNK_SIZE,
    SMALL_CHUNK_SIZE,
    Chunk,
    ChunkPool,
)

KIB = 1024
MANY = 1 << 30


def take(pool: ChunkPool, holding: Holding, *, received: int = 0, missing: int = 10) -> Chunk:
    return pool.take(holding, received=received, missing=missing, own=holding.size)


def test_a_chunk_that_was_given_back_is_used_again() -> None:
    pool, holding = ChunkPool(SMALL_CHUNK_SIZE), Holding()
    chunk = take(pool, holding)
    assert holding.size == SMALL_CHUNK_SIZE
    pool.give_back(holding, [chunk])
    assert holding.size == 0
    again = take(pool, holding)
    assert again.buffer.obj is chunk.buffer.obj
    assert again.filled == 0


def test_a_budget_can_be_changed_while_chunks_are_out() -> None:
    pool, holding, other = ChunkPool(4 * SMALL_CHUNK_SIZE), Holding(), Holding()
    chunks = [take(pool, holding), take(pool, holding)]
    pool.resize(SMALL_CHUNK_SIZE)
    assert pool.budget_left == -SMALL_CHUNK_SIZE
    assert not pool.has_room(other, 0)
    pool.give_back(holding, chunks)
    assert pool.budget_left == SMALL_CHUNK_SIZE
    assert pool.has_room(other, 0)
    pool.resize(2 * SMALL_CHUNK_SIZE)
    assert pool.budget_left == 2 * SMALL_CHUNK_SIZE


@pytest.mark.parametrize(
    ("budget", "received", "missing", "size"),
    [
        (MANY, 0, MANY, 64 * KIB),
        (MANY, 64 * KIB, MANY, 128 * KIB),
        (MANY, 192 * KIB, MANY, 256 * KIB),
        (MANY, 448 * KIB, MANY, 512 * KIB),
        (MANY, 32 << 20, MANY, 512 * KIB),
        (MANY, 32 << 20, 64 * KIB, 64 * KIB),
        (MANY, 32 << 20, 64 * KIB + 1, 128 * KIB),
        (512 * KIB - 1, 32 << 20, MANY, 256 * KIB),
        (0, 32 << 20, MANY, 64 * KIB),
    ],
)
def test_the_size_of_a_chunk_follows_from_what_came_what_is_missing_and_what_is_left(
    budget: int, received: int, missing: int, size: int
) -> None:
    pool = ChunkPool(budget)
    chunk = take(pool, Holding(), received=received, missing=missing)
    assert len(chunk.buffer) == size
    assert size in CHUNK_SIZES
    assert pool.budget_left == budget - size


def test_after_a_burst_only_so_many_bytes_are_kept() -> None:
    pool, holding = ChunkPool(2 * KEPT_FREE), Holding()
    count = KEPT_FREE // LARGE_CHUNK_SIZE
    chunks = [take(pool, holding, received=MANY, missing=MANY) for _ in range(count + 1)]
    pool.give_back(holding, chunks)
    again = {id(take(pool, holding, received=MANY, missing=MANY).buffer.obj) for _ in range(count + 1)}
    assert len(again & {id(chunk.buffer.obj) for chunk in chunks}) == count


def test_a_chunk_offers_what_is_free_and_shows_what_is_filled() -> None:
    chunk = take(ChunkPool(SMALL_CHUNK_SIZE), Holding())
    chunk.room(10)[:] = b"0123456789"
    chunk.filled += 10
    assert bytes(chunk.view) == b"0123456789"
    assert len(chunk.room(SMALL_CHUNK_SIZE)) == SMALL_CHUNK_SIZE - 10
    assert not chunk.full


def test_a_chunk_with_little_room_left_is_full_unless_that_is_enough() -> None:
    chunk = take(ChunkPool(SMALL_CHUNK_SIZE), Holding())
    chunk.filled = SMALL_CHUNK_SIZE - 100
    assert chunk.full
    assert not chunk.holds(101)
    assert chunk.holds(100)
