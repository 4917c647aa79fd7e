"""Facts about a connection's transport: its socket, TLS, and whether the client has disconnected."""

import asyncio
import select
import socket
from contextlib import suppress

PROGRESS_SIZE = 64 * 1024
"""Bytes that must move within each receive timeout, so that a trickle does not keep a connection open."""

_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux only


def peer_name(transport: asyncio.BaseTransport) -> object:
    """Return the client's ``peername``, empty for a unix socket, or ``None`` if it is unknown.

    uvloop knows none for a TCP client that had reset the connection before it was accepted. Such a client
    must not be taken for one of a unix socket, whose file only trusted clients can open.
    """
    peer: object = transport.get_extra_info("peername")
    if peer is None:
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family == getattr(socket, "AF_UNIX", None):
            return ""
    return peer


def socket_of(transport: asyncio.BaseTransport) -> int | None:
    """Return the descriptor of a transport's socket, or ``None`` without a socket."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return None
    descriptor: int = sock.fileno()
    return descriptor


def has_tls(transport: asyncio.BaseTransport) -> bool:
    """Whether the transport encrypts its data."""
    info = transport.get_extra_info
    return info("sslcontext") is not None or info("ssl_object") is not None


def has_hung_up(transport: asyncio.BaseTransport) -> bool:
    """Whether the client has closed its sending side, even if bytes before that are still unread.

    Only Linux can report that. On other systems: whether it has closed both sides.
    """
    sock = transport.get_extra_info("socket")
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), getattr(select, "POLLRDHUP", select.POLLHUP))
    return bool(poll.poll(0))


def was_reset(transport: asyncio.BaseTransport) -> bool:
    """Whether the client has closed both sides, which is known once it has been sent something."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), 0)  # POLLHUP and POLLERR are always reported
    return bool(poll.poll(0))


def acknowledge_now(transport: asyncio.BaseTransport) -> None:
    """Acknowledge what has arrived now, not up to 40 ms later (Linux, TCP only).

    A client with Nagle's algorithm (RFC 896, without ``TCP_NODELAY``) keeps the rest of its message until its
    first small segment is acknowledged, and on a connection that has carried replies the kernel delays that.
    """
    sock = transport.get_extra_info("socket")
    if _QUICK_ACK is not None and sock is not None:
        with suppress(OSError):  # a unix socket, or the client has disconnected
            sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
