"""A TCP port of the loopback interface that nothing uses."""

import socket


def unused_port() -> int:
    """A port that was free a moment ago; the system gives it to nobody else soon."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port
