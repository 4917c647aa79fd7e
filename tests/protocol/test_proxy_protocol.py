"""The header by which a proxy names its client."""

import ipaddress
import random
import struct

import pytest

from vipsrv.errors import ProtocolError
from vipsrv.protocol.proxy_protocol import MAX_LENGTH, SIGNATURE, ProxyHeaderReader, Source, Unnamed

LOCAL, PROXY = 0x20, 0x21
TCP4, TCP6, UNIX = 0x11, 0x21, 0x31
TLV = b"\x04\x00\x03abc"  # a "no operation" of three bytes


def header(command: int, transport: int, rest: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, transport, len(rest)) + rest


def addresses(source: str, destination: str, *ports: int) -> bytes:
    packed = [ipaddress.ip_address(host).packed for host in (source, destination)]
    return b"".join(packed) + struct.pack("!HH", *ports)


FOUR = addresses("192.0.2.7", "198.51.100.1", 4711, 65432)
SIX = addresses("2001:db8::7", "2001:db8::1", 4711, 65432)

VALID: dict[str, tuple[bytes, Source | Unnamed]] = {
    "tcp4": (header(PROXY, TCP4, FOUR), Source("192.0.2.7", 4711)),
    "tcp6": (header(PROXY, TCP6, SIX), Source("2001:db8::7", 4711)),
    "tlv": (header(PROXY, TCP4, FOUR + 5 * TLV), Source("192.0.2.7", 4711)),
    "unix": (header(PROXY, UNIX, bytes(216)), Unnamed.UNIX),
    "unspec": (header(PROXY, 0, b""), Unnamed.PROXY),
    "unspec with bytes": (header(PROXY, 0, b"anything"), Unnamed.PROXY),
    "local": (header(LOCAL, 0, b""), Unnamed.PROXY),
    "local with addresses": (header(LOCAL, TCP4, FOUR), Unnamed.PROXY),
    "longest": (header(PROXY, TCP4, FOUR.ljust(MAX_LENGTH, b"\0")), Source("192.0.2.7", 4711)),
}


def read(data: bytes, sizes: list[int]) -> tuple[ProxyHeaderReader, bytes]:
    """Feed pieces of these sizes, and then all; return the reader and what it did not want."""
    reader = ProxyHeaderReader()
    while data and reader.client is None:
        size = min(reader.wanted, sizes.pop() if sizes else len(data))
        reader.receive_data(data[:size])
        data = data[size:]
    return reader, data


@pytest.mark.parametrize(("data", "client"), VALID.values(), ids=VALID)
def test_a_header_is_read_in_pieces_of_any_size_and_not_beyond(data: bytes, client: object) -> None:
    follows = b"\0\0\0\0VIPS"
    draw = random.Random(2)
    cuts = [[], [1] * len(data), *([draw.randint(1, 40) for _ in range(400)] for _ in range(50))]
    cuts += [[len(data), size] for size in range(1, min(len(data), 60))]
    for sizes in cuts:
        reader, rest = read(data + follows, list(sizes))
        assert reader.client == client
        assert rest == follows
        assert reader.wanted == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0\0\0\0VIPS", "does not begin with a header"),
        (b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n", "does not begin with a header"),
        (SIGNATURE[:-1] + b"x", "does not begin with a header"),
        (header(0x11, TCP4, FOUR), "version and command 0x11"),
        (header(0x22, TCP4, FOUR), "version and command 0x22"),
        (header(PROXY, 0x12, FOUR), "transport 0x12"),
        (header(PROXY, TCP4, FOUR[:-1]), "11 bytes cannot hold"),
        (header(PROXY, TCP6, FOUR), "12 bytes cannot hold"),
        (header(LOCAL, 0, bytes(MAX_LENGTH + 1)), "4097 bytes, over 4096"),
    ],
)
def test_anything_else_is_refused_at_the_first_wrong_byte(data: bytes, reason: str) -> None:
    for sizes in ([], [1] * len(data)):
        with pytest.raises(ProtocolError, match=reason):
            read(data, sizes)


def test_more_than_is_wanted_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="16 are wanted"):
        ProxyHeaderReader().receive_data(bytes(17))
