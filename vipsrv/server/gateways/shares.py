"""What each gateway of a server gets: its share of the settings, of the cores and of the sockets.

Whole numbers are divided evenly, and the first gateways get what is left over. No share is so small that a
request which the server accepts fits into none of them.
"""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ByteSize

from vipsrv.server.settings import ServerSettings

_CPUS = Path("/sys/devices/system/cpu")

_SPREAD = 3
"""Standard deviations by which the connections of one client may be spread unevenly before its bound at a
gateway is lower than the bound of the server says: one client of some 700."""

_LEAST_SPOOL_MEMORY = 1024**2  # the least that the setting allows

_IN_FLIGHT = 32
"""Requests that one connection may have in flight. They are all at one gateway."""

_Item = TypeVar("_Item")


def settings_of(settings: ServerSettings, gateways: int, gateway: int) -> ServerSettings:
    """Return the settings of the gateway with this number, counted from 0."""

    def share(total: int) -> int:
        return total // gateways + (gateway < total % gateways)

    changes = {
        "workers": share(settings.workers),
        "connections": max(1, share(settings.connections)),
        "connections_per_client": _client_share(settings.connections_per_client, gateways),
        "queue": share(settings.queue),
        "queue_per_client": _client_share(settings.queue_per_client, gateways, least=_IN_FLIGHT),
        "spool_memory": ByteSize(max(_LEAST_SPOOL_MEMORY, share(settings.spool_memory))),
        # An upload of the largest size fits into a share if it fits into the whole.
        "spool_disk": ByteSize(
            max(min(settings.spool_disk, settings.max_upload), share(settings.spool_disk))
        ),
        "upload_memory": ByteSize(share(settings.upload_memory)),
        "upload_disk": ByteSize(
            max(min(settings.upload_disk, settings.max_upload), share(settings.upload_disk))
        ),
        "decode_memory": ByteSize(max(_LEAST_SPOOL_MEMORY, share(settings.decode_memory))),
    }
    if gateway:
        changes["insecure"] = True  # the first one gives the warning
    return settings.model_copy(update=changes)


def _client_share(bound: int, gateways: int, *, least: int = 1) -> int:
    """Return the bound of one client at each gateway; 0, which is made from other settings, stays 0.

    Connections come to a gateway at random, so of n, a gateway gets n / gateways with a standard deviation of
    sqrt(n (1 - 1 / gateways) / gateways).
    """
    if not bound:
        return 0
    mean = bound / gateways
    return min(bound, max(least, math.ceil(mean + _SPREAD * math.sqrt(mean * (1 - 1 / gateways)))))


def cores_of(cores: Iterable[int], gateways: int, gateway: int) -> list[int]:
    """Return the cores of a gateway, disjoint from those of the others; none if there are too few.

    Cores that share a cache or are threads of one core go to the same gateway as far as possible.
    """
    ordered = sorted(cores, key=_place)
    first, last = (len(ordered) * number // gateways for number in (gateway, gateway + 1))
    return ordered[first:last] if len(ordered) >= gateways else []


def _place(core: int) -> tuple[int, int, int, int]:
    """Return what sorts cores by package, last cache and physical core; 0 for what is unknown."""
    folder = _CPUS / f"cpu{core}"
    package, cache, physical = (
        _number(folder / name)
        for name in ("topology/physical_package_id", "cache/index3/id", "topology/core_id")
    )
    return package, cache, physical, core


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def own_cores() -> list[int]:
    """Return the cores that this process may use; none if that is unknown."""
    try:
        return list(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # only Linux has it, and a system call filter may refuse it
        return []


def items_of(items: Sequence[_Item], gateways: int, gateway: int) -> list[_Item]:
    """Return those of ``items`` that a gateway uses: each item has a user, and each gateway an item.

    With fewer items than gateways, several gateways share one.
    """
    if len(items) < gateways:
        return [items[gateway % len(items)]]
    return list(items[gateway::gateways])
