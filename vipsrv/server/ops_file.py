"""The file with the address of the ops listener, for a health check that does not read the settings itself.

The health check of the container image must not start Python, which takes longer than the check. The file
stays when the server ends: the check then finds that nothing listens there.
"""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vipsrv.address import Address, Wire
from vipsrv.server.settings import OFF

_log = logging.getLogger(__name__)


def write_ops_file(path: Path, listening: Sequence[Address]) -> None:
    """Write where a program on this machine reaches the operator's listener among ``listening``.

    One line: ``ops://HOST:PORT``, ``ops+unix:/path`` or ``off``. If it cannot be written the server goes on
    without it, because a health check then has other ways.
    """
    found = next((address for address in listening if address.wire is Wire.OPS), None)
    text = OFF if found is None else str(found.reachable())
    new = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        # A new file takes the place of the old one, so that a reader finds a whole line.
        new.unlink(missing_ok=True)
        with new.open("x", encoding="utf-8") as file:
            file.write(f"{text}\n")
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        _log.warning("--ops-file: %s cannot be written: %s", path, error.strerror)
