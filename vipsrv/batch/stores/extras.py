"""Names the extra of vipsrv when a library of storage is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

from vipsrv.errors import BatchError


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn a failed import within the block into a ``BatchError`` that says what to install."""
    try:
        yield
    except ImportError as error:
        raise BatchError(f"{error.name or error} is not installed: pip install 'vipsrv[{extra}]'") from error
