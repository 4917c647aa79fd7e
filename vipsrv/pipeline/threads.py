"""How many threads libvips computes a job with: one, unless the gateway has cores to spare."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyvips


@contextmanager
def several_threads(count: int) -> Iterator[None]:
    """All pipelines that run within have ``count`` threads each; what follows has as many as before.

    libvips looks at the number whenever a pipeline starts to run. Its threads serve one pipeline after
    another, and end by themselves when there was nothing to do for some 15 s.
    """
    before = pyvips.concurrency_get()
    pyvips.concurrency_set(count)
    try:
        yield
    finally:
        pyvips.concurrency_set(before)
