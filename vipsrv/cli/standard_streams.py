"""Standard input, output and error when they are full or closed."""

import os
import sys

LAST_STANDARD_DESCRIPTOR = 2


def discard_unwritable_output() -> None:
    """Discard unwritable standard output; otherwise the flush at exit fails and changes the exit code."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def open_missing_descriptors() -> None:
    """Open /dev/null as descriptor 0, 1 or 2 if it is closed, as after ``<&-``.

    Otherwise the event loop gets that number for its own descriptor; libuv treats this as a bug and aborts.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= LAST_STANDARD_DESCRIPTOR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
