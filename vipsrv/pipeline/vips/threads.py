"""How many threads libvips uses for a job: one, unless the gateway has cores to spare."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyvips


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Run all libvips pipelines inside the block with ``count`` threads each; restore the number afterwards.

    libvips reads the number when a pipeline starts to run. Its threads serve one pipeline after another and
    end after some 15 s without work.
    """
    before = pyvips.concurrency_get()
    pyvips.concurrency_set(count)
    try:
        yield
    finally:
        pyvips.concurrency_set(before)
