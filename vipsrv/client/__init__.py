"""The two clients, `Client` (blocking) and `AsyncClient` (asyncio), over one protocol core.

::

    Client     blocking.py ─► blocking_connection.py ─┐
                                                      ├─► core.py (no I/O) ─► vipsrv.protocol
    AsyncClient aio.py ─────► aio_connection.py ──────┘
                 both: requests.py (what to ask), sources.py (the image), results.py (what came back)
"""

from vipsrv.client.aio import AsyncClient
from vipsrv.client.blocking import Client
from vipsrv.client.requests import ResizeArguments
from vipsrv.client.results import Limits, ResizedImage, ResizeResult, ResizeResults, ServerInfo
from vipsrv.client.sources import ImageSource
from vipsrv.client.timeouts import Timeout

__all__ = [
    "AsyncClient",
    "Client",
    "ImageSource",
    "Limits",
    "ResizeArguments",
    "ResizeResult",
    "ResizeResults",
    "ResizedImage",
    "ServerInfo",
    "Timeout",
]
