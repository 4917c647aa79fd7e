"""Close what a worker inherited, except for its channel."""

import os
from pathlib import Path

_STANDARD = 3  # input, output, error


def open_null() -> int:
    """Open ``/dev/null`` while this process may still open files."""
    return os.open(os.devnull, os.O_RDWR)


def keep_only(channel: int, null: int) -> None:
    """Close all descriptors except ``channel`` and standard error; input and output become ``null``.

    Standard error stays until ``close_standard_error``, for the reason if a worker cannot start. Raises
    ``ValueError`` if ``channel`` is a standard stream.
    """
    if channel < _STANDARD:
        raise ValueError(f"the channel is descriptor {channel}, one of the standard streams")
    os.dup2(null, 0)
    os.dup2(null, 1)
    for descriptor in _open_descriptors():
        if descriptor >= _STANDARD and descriptor != channel:
            _close(descriptor)


def close_standard_error() -> None:
    """Make standard error ``/dev/null``; what libraries print must not reach the file of a later job."""
    os.dup2(0, 2)


def _open_descriptors() -> list[int]:
    # A limit may be 10⁹ descriptors, and without close_range (before Linux 5.9, or forbidden) trying each
    # of them takes minutes.
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return [int(entry.name) for entry in Path(folder).iterdir()]
        except OSError:
            continue
    most = 65_536  # without /proc: the gateway passes only low numbers
    return list(range(min(os.sysconf("SC_OPEN_MAX"), most)))


def _close(descriptor: int) -> None:
    os.closerange(descriptor, descriptor + 1)  # ignores numbers that are not open, as the listing's own
