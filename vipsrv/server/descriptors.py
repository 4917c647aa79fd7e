"""The file descriptors that a server needs, and the connections that the limit of open files holds.

::

    connection   5  its socket, that of an excess client that gets busy, EACH_FILE for a file of the spool
    a further    1  its socket: beyond FULLY_COUNTED connections, not every one has all of these at once
    worker       5  channel, mapping of shared memory, standard error at its start, two for a result
    listener     4  two sockets, as a host name may have an IPv4 and an IPv6 address, and their duplicates
    operator   132  a listener, and two for each connection there, of which one may be in excess
    --control    2  the socket, and a server that connects to it
    process     24  standard streams, event loop and signals (13), pipes of two threads (4), the folder of
                    uploads (2), 5 spare
    RESERVE     32  starting a worker takes WORKER_DESCRIPTORS at once

At most FULLY_COUNTED excess clients are told ``busy`` at the same time. The spool has no more files than the
limit holds beside all of these (``files_that_fit``): an upload that needs a further one is refused as
``busy``, and connections, workers and listeners keep their descriptors.
"""

import logging
import resource
import sys

from vipsrv.errors import StartFailed
from vipsrv.server.open_connections import MOST_TURNED_AWAY, OPS_CONNECTIONS
from vipsrv.server.settings import ServerSettings
from vipsrv.workers.descriptor_reserve import WORKER_DESCRIPTORS

EACH_FILE = 3
"""Two to write and to read it, and one of the socket while a thread reads on from there."""

EACH_CONNECTION = 2 + EACH_FILE
EACH_FURTHER = 1
FULLY_COUNTED = MOST_TURNED_AWAY
EACH_WORKER = 5
EACH_LISTENER = 4
OPERATOR = EACH_LISTENER + 2 * OPS_CONNECTIONS
CONTROL = 2
PROCESS = 24

RESERVE = WORKER_DESCRIPTORS + 20
"""Descriptors that connections leave free, for starting workers and reading files of /proc. The pool holds
``WORKER_DESCRIPTORS`` of them open and gives them up for a worker (``workers/descriptor_reserve.py``)."""

MOST_USEFUL = 1 << 20
"""The highest limit that is asked for. Some containers allow 2³⁰, and a program that closes every descriptor
up to the limit, one by one, takes minutes for that."""

_MACOS_MOST = 10_240
"""OPEN_MAX of macOS, which refuses a higher limit although it calls the hard limit infinite."""

_log = logging.getLogger(__name__)


def highest_limit(hard: int) -> int:
    """Return the highest limit of open files that the server can set and uses, given the hard limit."""
    most = MOST_USEFUL if hard == resource.RLIM_INFINITY else min(hard, MOST_USEFUL)
    return min(most, _MACOS_MOST) if sys.platform == "darwin" else most


def raise_limit() -> int | None:
    """Raise this process's limit of open files as far as allowed and useful; return it, if it is known.

    The soft limit is low for the sake of programs that use select(), which this one does not.
    """
    try:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    except OSError as error:
        _log.warning("the limit of open files is unknown: %s", error)
        return None
    most = highest_limit(hard)
    refusal: Exception | None = None
    for limit in dict.fromkeys((most, min(most, max(soft, _MACOS_MOST)))):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        except (ValueError, OSError) as error:
            refusal = error
        else:
            return limit
    _log.warning("the limit of open files stays as it is: %s", refusal)
    return None if soft == resource.RLIM_INFINITY else soft


def current_limit() -> int | None:
    """Return this process's limit of open files, or ``None`` if there is none or it is unknown."""
    try:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    except OSError:  # ``raise_limit`` has logged it
        return None
    return None if soft == resource.RLIM_INFINITY else soft


def needed(settings: ServerSettings) -> int:
    """Return the descriptors that a server with these settings needs."""
    fully = min(settings.connections, FULLY_COUNTED)
    further = settings.connections - fully
    return _without_connections(settings) + EACH_CONNECTION * fully + EACH_FURTHER * further


def fit_connections(settings: ServerSettings, limit: int | None) -> ServerSettings:
    """Return the settings with no more connections than ``limit`` descriptors hold; log a change.

    Raises ``StartFailed`` if they hold none.
    """
    if limit is None or needed(settings) <= limit:
        return settings
    others = _without_connections(settings)
    fully = min((limit - others) // EACH_CONNECTION, FULLY_COUNTED)
    further = (limit - others - EACH_CONNECTION * fully) // EACH_FURTHER if fully == FULLY_COUNTED else 0
    connections = fully + further
    advice = "raise it with 'ulimit -n', LimitNOFILE= of systemd or --ulimit nofile= of docker"
    if connections < 1:
        raise StartFailed(
            f"the limit of {limit} open files is too low: a server with --workers {settings.workers} needs "
            f"{others + EACH_CONNECTION}, and {needed(settings)} for --connections {settings.connections}; "
            f"{advice}, or have fewer workers"
        )
    _log.warning(
        "--connections is %d instead of %d: the limit of %d open files holds no more (%d for each "
        "of %d connections, %d for each further one, %d for everything else); %s to %d, or set --connections",
        *(connections, settings.connections, limit, EACH_CONNECTION, FULLY_COUNTED, EACH_FURTHER, others),
        *(advice, needed(settings)),
    )
    return settings.model_copy(update={"connections": connections})


def files_that_fit(settings: ServerSettings, limit: int | None) -> int:
    """Return how many files the spool may have under this limit, so that all else keeps its descriptors."""
    fully = min(settings.connections, FULLY_COUNTED)
    spare = MOST_USEFUL if limit is None else max(0, limit - needed(settings))
    return fully + spare // EACH_FILE


def _without_connections(settings: ServerSettings) -> int:
    listeners = max(1, len(settings.listen))
    control = CONTROL if settings.control is not None else 0
    operator = OPERATOR if settings.ops_address is not None else 0
    return PROCESS + EACH_LISTENER * listeners + operator + control + EACH_WORKER * settings.workers + RESERVE
