"""Facts about a connection's transport: its socket, TLS, and whether the client has disconnected."""

import asyncio
import select
import socket

PROGRESS_SIZE = 64 * 1024
"""Bytes that must move within each receive timeout, so that a trickle does not keep a connection open."""


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
