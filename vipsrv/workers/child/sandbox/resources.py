"""Limit what a worker can use up: files, descriptors, memory, threads; and let the OOM killer choose it."""

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path

from vipsrv.workers.channel import MAX_THREADS

_MIB = 1 << 20

_BASE_MEMORY = 384 * _MIB
"""Bytes beyond those of a job: Python and libvips (50 MiB), buffers, and what malloc keeps."""

_DEFAULT_STACK = 8 * _MIB
"""Bytes of address space of a thread's stack, if there is no limit of stacks."""

_ADDRESS_SPACE = 64 << 30
"""Bytes of address space that a worker always has. Page tables count towards no limit, and mappings that are
only read count towards no other; at one page for each 2 MiB, these take 128 MiB of page tables."""

_DESCRIPTORS = 24
"""A worker has 4 descriptors and needs one for its job, which libvips duplicates."""

_THREADS_OF_OWN_USER = 256
_THREADS_OF_SHARED_USER = 16_384
"""The kernel counts the threads of all processes of a user. If others share the worker's user, a low limit
would fail jobs because of what they do."""

_OOM_SCORE = 500
"""Added to the score: of gateway and worker the kernel kills the worker, which costs one request."""


def limit(job_memory: int, max_upload: int, *, own_user: bool) -> None:
    """Set the limits, which cannot be raised again. Raises ``OSError`` or ``ValueError``."""
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    # The C library gives each thread a stack of this size; it has read the limit when the process started.
    stack, _ = resource.getrlimit(resource.RLIMIT_STACK)
    if stack in {0, resource.RLIM_INFINITY}:
        stack = _DEFAULT_STACK
    data = job_memory + _BASE_MEMORY + threads * stack
    _lower(resource.RLIMIT_CORE, 0)  # a core dump would write the memory, images in it, to the disk
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_NOFILE, _DESCRIPTORS)
    _lower(resource.RLIMIT_DATA, data)
    _lower(resource.RLIMIT_STACK, stack)  # the main thread's stack does not count towards RLIMIT_DATA
    # A large image is mapped by the worker and by libvips.
    _lower(resource.RLIMIT_AS, max(_ADDRESS_SPACE, 4 * data, 4 * max_upload))
    _lower(resource.RLIMIT_NPROC, _THREADS_OF_OWN_USER if own_user else _THREADS_OF_SHARED_USER)


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    value = min(value, sys.maxsize)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(limit, (value, value))


def prefer_for_oom_killer() -> None:
    """Make the kernel kill this process rather than the gateway if memory runs out; needs /proc."""
    path = Path("/proc/self/oom_score_adj")
    with suppress(OSError):  # no /proc, or a read-only one: the kernel then chooses by size
        path.write_text(f"{min(1000, int(path.read_text()) + _OOM_SCORE)}")
