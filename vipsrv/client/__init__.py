"""The two clients, `Client` (blocking) and `AsyncClient` (asyncio), over one protocol core.

::

    Client ──────► blocking_caller.py ─► blocking_pool.py ─► blocking_connection.py ─┐
                     │                                                               ├─► core.py (no I/O)
                     ├ calls.py (no I/O)                                             │   └─► vipsrv.protocol
                     │                                                               │
    AsyncClient ─► asyncio_caller.py ──► asyncio_pool.py ──► asyncio_connection.py ──┘

    calls.py: what is sent where, and again, with attempts.py (whether and when) and retry.py (the settings)
    several servers: servers.py (which one), server_names.py (lists and host names), server_list.py (what one
          call sees), hedge.py (when a second one gets the image), silence.py (whether a server still works)
    both: pool.py (the base of the pools), server_address.py (where to connect), requests.py (what to send),
          sources.py (the image), results.py (what the calls return), embedded.py (a server that the client
          starts), window.py (how many requests to have in flight)

`Version1Client` and `AsyncVersion1Client` speak version 1 of the protocol, for old servers. The names below
are loaded when they are used: `vipsrv serve` needs some modules of this folder, and neither client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vipsrv.client.asyncio_client import AsyncClient, AsyncVersion1Client
    from vipsrv.client.blocking_client import Client, Version1Client
    from vipsrv.client.hedge import Hedge
    from vipsrv.client.results import (
        DescribedImage,
        ResizedImage,
        ResizeResult,
        ResizeResults,
        ServerInfo,
        ServerLimits,
        Version1Result,
    )
    from vipsrv.client.retry import Retry
    from vipsrv.client.sources import ImageSource, SeekableReader, spool
    from vipsrv.client.timeouts import Timeout

__all__ = [
    "AsyncClient",
    "AsyncVersion1Client",
    "Client",
    "DescribedImage",
    "Hedge",
    "ImageSource",
    "ResizeResult",
    "ResizeResults",
    "ResizedImage",
    "Retry",
    "SeekableReader",
    "ServerInfo",
    "ServerLimits",
    "Timeout",
    "Version1Client",
    "Version1Result",
    "spool",
]

_HOME = {
    "AsyncClient": "asyncio_client",
    "AsyncVersion1Client": "asyncio_client",
    "Client": "blocking_client",
    "Hedge": "hedge",
    "ImageSource": "sources",
    "ResizeResult": "results",
    "ResizeResults": "results",
    "ResizedImage": "results",
    "Retry": "retry",
    "SeekableReader": "sources",
    "DescribedImage": "results",
    "ServerInfo": "results",
    "ServerLimits": "results",
    "Timeout": "timeouts",
    "Version1Client": "blocking_client",
    "Version1Result": "results",
    "spool": "sources",
}
"""The module of each name."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"vipsrv.client.{_HOME[name]}"), name)
