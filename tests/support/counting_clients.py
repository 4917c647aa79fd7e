"""Clients of both wires that count what they send and receive, to be compared with a server's counters."""

import http.client
import socket
import ssl
import struct
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.support import bare_client
from vipsrv.protocol import REPLY, Header, Kind, pack_message
from vipsrv.protocol.frames import HEADER, unpack_meta

HEADER_SIZE = HEADER.size


@dataclass
class Tally:
    """What clients have counted, of all connections together."""

    requests: Counter[tuple[str, ...]] = field(default_factory=Counter)
    lost: Counter[tuple[str, ...]] = field(default_factory=Counter)
    results: Counter[tuple[str, ...]] = field(default_factory=Counter)
    uploaded: Counter[tuple[str, ...]] = field(default_factory=Counter)
    sent: Counter[tuple[str, ...]] = field(default_factory=Counter)
    limits: Counter[tuple[str, ...]] = field(default_factory=Counter)
    arrived: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Images that arrived completely, by the kind of request."""
    replied: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """Those of them whose reply was sent."""
    ratios: list[float] = field(default_factory=list)
    connections: int = 0
    killed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def connected(self) -> None:
        with self._lock:
            self.connections += 1

    def add(
        self,
        protocol: str,
        kind: str,
        status: int,
        *,
        image: int = 0,
        format_in: str = "none",
        outputs: tuple[tuple[str, int], ...] = (),
        limit: str | None = None,
        lost: bool = False,
    ) -> None:
        """Count a request with ``image`` bytes that arrived, and the formats and sizes of its results."""
        formats = {name for name, _ in outputs}
        format_out = "several" if len(formats) > 1 else next(iter(formats), "none")
        with self._lock:
            self.requests[kind, str(status), protocol, "none", format_in, format_out] += 1
            if image:
                self.uploaded[protocol, format_in] += image
                self.arrived[kind,] += 1
                self.replied[kind,] += not lost
            if lost:
                self.lost[str(status),] += 1
            if limit is not None:
                self.limits[limit,] += 1
            if outputs:
                size = sum(size for _, size in outputs)
                self.sent[protocol, format_out] += size
                self.ratios.append(image / size)
                for name, _ in outputs:
                    self.results[name,] += 1


class BinaryClient:
    """A connection of version 2 without any code of the clients, so that nothing is sent again unseen."""

    def __init__(self, port: int, tally: Tally, tls: ssl.SSLContext | None = None) -> None:
        self._sock: Any = bare_client.connect(port)
        if tls is not None:
            self._sock = tls.wrap_socket(self._sock, server_hostname="localhost")
        self.protocol = "v2" if tls is None else "v2+tls"
        self._tally = tally
        tally.connected()

    def send(
        self,
        kind: int,
        request_id: int,
        meta: dict[str, Any],
        body: bytes = b"",
        *,
        announced: int | None = None,
    ) -> None:
        size = len(body) if announced is None else announced
        self._sock.sendall(pack_message(kind, request_id, meta, body_size=size) + body)

    def receive(self) -> tuple[Header, dict[str, Any]]:
        head = Header.unpack(bare_client.read_exactly(self._sock, HEADER_SIZE))
        meta = unpack_meta(bare_client.read_exactly(self._sock, head.meta_size))
        assert len(bare_client.read_exactly(self._sock, head.body_size)) == head.body_size
        return head, meta

    def close(self) -> None:
        self._sock.close()

    def reset(self) -> None:
        """Close without the end of a stream, as when the client's machine has failed."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def image(self, kind: Kind, meta: dict[str, Any], body: bytes, *, status: int, limit: str | None) -> None:
        """Send a request with an image, and count its reply."""
        self.send(kind, 1, meta, body)
        arrives = status not in (400, 429) and limit != "max_upload"  # or it is refused by its header
        self.count(kind, status, len(body) if arrives else 0, limit=limit)

    def count(self, kind: Kind, status: int, image: int, *, limit: str | None = None) -> None:
        """Receive a reply, which has to have this status, and count it."""
        found = self.count_any(kind, image, limit=limit)
        assert found == status

    def count_any(self, kind: Kind, image: int, *, limit: str | None = None) -> int:
        """Receive a reply, and count it; return its status."""
        head, answer = self.receive()
        assert head.kind == kind | REPLY
        self._tally.add(
            self.protocol,
            kind.name.lower(),
            head.status,
            image=image,
            format_in=answer["source"]["format"] if head.status == 200 else "none",
            outputs=tuple((one["format"], one["size"]) for one in answer.get("outputs", ())),
            limit=limit,
        )
        return head.status

    def resize(self, body: bytes, *, status: int = 200, limit: str | None = None, **meta: Any) -> None:
        size = {} if "outputs" in meta else {"width": 20, "height": 20}
        self.image(Kind.RESIZE, {**size, **meta}, body, status=status, limit=limit)

    def info(self, body: bytes, *, status: int = 200) -> None:
        self.image(Kind.INFO, {}, body, status=status, limit=None)

    def plain(self, kind: int, name: str, *, status: int = 200, **meta: Any) -> None:
        self.send(kind, 1, meta)
        head, answer = self.receive()
        assert (head.kind, head.status) == (kind | REPLY, status), answer
        self._tally.add(self.protocol, name, status)


class HttpClient:
    """A connection of HTTP/1.1."""

    def __init__(self, port: int, tally: Tally, tls: ssl.SSLContext | None = None) -> None:
        self.protocol = "http" if tls is None else "http+tls"
        self._connection: http.client.HTTPConnection
        if tls is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=bare_client.SECONDS)
        else:
            self._connection = http.client.HTTPSConnection(
                "localhost", port, timeout=bare_client.SECONDS, context=tls
            )
        self._connection.connect()
        self._connection.auto_open = False  # so that a connection that was closed is noticed
        self._tally = tally
        tally.connected()

    def send(self, method: str, path: str, body: bytes | None = None, *, chunked: bool = False) -> None:
        if chunked and body is not None:
            self._connection.request(method, path, iter([body[:100], body[100:]]), encode_chunked=True)
        else:
            self._connection.request(method, path, body)

    def receive(self) -> tuple[int, bytes, str]:
        reply = self._connection.getresponse()
        return reply.status, reply.read(), reply.headers.get_content_subtype()

    def close(self) -> None:
        self._connection.close()

    def resize(self, body: bytes, query: str = "", *, format_in: str, chunked: bool = False) -> None:
        self.send("POST", f"/resize?width=20&height=20{query}", body, chunked=chunked)
        self.count_result(body, format_in)

    def count_result(self, body: bytes, format_in: str) -> None:
        """Receive the reply to a resize, and count it."""
        status, result, name = self.receive()
        assert status == 200, result
        outputs = ((name, len(result)),)
        self._tally.add(
            self.protocol, "resize", status, image=len(body), format_in=format_in, outputs=outputs
        )

    def refused(
        self,
        path: str,
        body: bytes,
        status: int,
        kind: str,
        *,
        arrives: bool = False,
        limit: str | None = None,
    ) -> None:
        self.send("POST", path, body)
        found, answer, _ = self.receive()
        assert found == status, answer
        self._tally.add(self.protocol, kind, found, image=len(body) if arrives else 0, limit=limit)

    def info(self, body: bytes, *, format_in: str) -> None:
        self.send("POST", "/info", body)
        status, answer, _ = self.receive()
        assert status == 200, answer
        self._tally.add(self.protocol, "info", status, image=len(body), format_in=format_in)

    def get(self, path: str, status: int, kind: str) -> None:
        self.send("GET", path)
        found, answer, _ = self.receive()
        assert found == status, answer
        self._tally.add(self.protocol, kind, found)
