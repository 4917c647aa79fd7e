"""Standard input, output and error when they are full or closed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

LAST_STANDARD_DESCRIPTOR = 2


@contextmanager
def output_named_in_errors() -> Iterator[None]:
    """Name standard output in an error of writing to it, so that nobody takes it for a disk of the results.

    ``BrokenPipeError`` passes as it is: it has a message of its own.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


def discard_unwritable_output() -> None:
    """Discard unwritable standard output; otherwise the flush at exit fails and changes the exit code."""
    _discard_unwritable(sys.stdout)


def discard_unwritable_errors() -> None:
    """Discard unwritable standard error, for the same reason."""
    _discard_unwritable(sys.stderr)


def _discard_unwritable(stream: TextIO | None) -> None:
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def open_missing_descriptors() -> None:
    """Open /dev/null as descriptor 0, 1 or 2 if it is closed, as after ``<&-``.

    Otherwise the event loop gets that number for its own descriptor; libuv treats this as a bug and aborts.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= LAST_STANDARD_DESCRIPTOR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
