"""The error text of libvips, made short and printable."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyvips
from pyvips import vips_lib

_MAX_LINES = 1000


def forget_errors() -> None:
    """Empty libvips' error buffer. It is shared by the whole process and would carry one job's errors into
    the next.
    """
    vips_lib.vips_error_clear()


@contextmanager
def unlogged() -> Iterator[None]:
    """Log no errors of libvips meanwhile: for work on something else than the image of the job.

    The text of a ``pyvips.Error`` is not logged either.
    """
    vips_lib.vips_error_freeze()
    try:
        yield
    finally:
        vips_lib.vips_error_thaw()


def logged_errors() -> list[str]:
    """Return the errors that libvips logged since ``forget_errors``, one a line: it continues after some."""
    text = pyvips.ffi.string(vips_lib.vips_error_buffer()).decode("utf-8", "replace")
    return [_first_line(line) for line in text.splitlines() if line.strip()][:_MAX_LINES]


def logged_error() -> str | None:
    """Return the first of the ``logged_errors``."""
    return next(iter(logged_errors()), None)


def text_of(error: pyvips.Error) -> str:
    """Return everything that libvips says about the failure of a call, which may be nothing."""
    return error.detail if isinstance(error.detail, str) else ""


def reason(error: pyvips.Error) -> str:
    """Return the reason why a call of libvips failed, in one line."""
    return _first_line(text_of(error)) or _first_line(error.message)


def _first_line(text: str) -> str:
    return printable(next((line.strip() for line in text.splitlines() if line.strip()), ""))


def printable(line: str) -> str:
    """Return short, printable text, because libvips may quote from a hostile file."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in line)[:120]
