"""A database of sqlite in a temporary file: for more keys than memory holds."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from vipsrv.errors import StorageFailed

_CACHE_KIB = 16_384
"""Pages in memory. The rest is in the file, and in as much of the system's cache as is free."""

_DIGEST = 16
"""Bytes of a digest in place of a key: at 10⁷ keys, two have the same one with a probability of 10⁻²⁵."""


def temporary_database() -> sqlite3.Connection:
    """Open an empty database, whose file has no name and is gone when this process ends, however it does.

    Any one thread at a time may use it.
    """
    database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    for pragma in (
        "journal_mode=OFF",
        "synchronous=OFF",
        f"cache_size=-{_CACHE_KIB}",
        "temp_store=FILE",
    ):
        database.execute(f"PRAGMA {pragma}")
    database.execute("BEGIN")  # one transaction for all: nobody else reads the file
    return database


def key_digest(*texts: str) -> bytes:
    """Return what stands for a key, or for several texts together, in the database."""
    text = "\0".join(texts)
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=_DIGEST).digest()


@contextmanager
def full_disk_told() -> Iterator[None]:
    """Raise ``StorageFailed`` if the temporary file cannot be written."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StorageFailed(
            "the folder for temporary files",
            f"{error}: the index of what is done needs about 100 bytes for each image; name another folder "
            "in TMPDIR",
        ) from None
