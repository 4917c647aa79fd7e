"""Change valid bytes at random, the same way for the same dice: images, and messages of the protocol."""

import random
import struct
import zlib
from collections.abc import Callable, Sequence

_EXTREMES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
_INTEGERS = ("<H", ">H", "<I", ">I")
_NUMBERS = (
    0,
    1,
    2,
    3,
    255,
    256,
    4096,
    20_000,
    32_767,
    65_535,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
)
_HEADER_BYTES = 128
"""Bytes at the beginning that are changed more often, because sizes and counts are there."""

_LONGEST_PIECE = 512
_MOST_CHANGES = 6
_PNG = b"\x89PNG\r\n\x1a\n"


def mutated(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """Return ``data`` with one to six changes. A change may take bytes from one of the ``others``."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, _MOST_CHANGES)):
        if not changed:
            break
        dice.choice(_CHANGES)(changed, others, dice)
    if changed.startswith(_PNG) and dice.random() < 0.7:
        return with_right_checksums(bytes(changed))
    return bytes(changed)


def with_right_checksums(png: bytes) -> bytes:
    """Return a PNG whose chunks have right checksums, without which libpng reads none of what was changed."""
    made, at = bytearray(png[: len(_PNG)]), len(_PNG)
    while at + 12 <= len(png):
        length = int.from_bytes(png[at : at + 4])
        end = at + 8 + length
        if end + 4 > len(png):
            break
        made += png[at:end] + struct.pack(">I", zlib.crc32(png[at + 4 : end]))
        at = end + 4
    return bytes(made) + png[at:]


def _position(data: bytearray, dice: random.Random) -> int:
    most = _HEADER_BYTES if dice.random() < 0.5 else len(data)
    return dice.randrange(min(most, len(data)))


def _replace(data: bytearray, _others: Sequence[bytes], dice: random.Random) -> None:
    data[_position(data, dice)] = dice.choice((*_EXTREMES, dice.randrange(256)))


def _flip(data: bytearray, _others: Sequence[bytes], dice: random.Random) -> None:
    data[_position(data, dice)] ^= 1 << dice.randrange(8)


def _set_number(data: bytearray, _others: Sequence[bytes], dice: random.Random) -> None:
    layout = dice.choice(_INTEGERS)
    size = struct.calcsize(layout)
    if len(data) >= size:
        number = dice.choice(_NUMBERS) & ((1 << 8 * size) - 1)
        struct.pack_into(layout, data, min(_position(data, dice), len(data) - size), number)


def _cut(data: bytearray, _others: Sequence[bytes], dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def _remove(data: bytearray, _others: Sequence[bytes], dice: random.Random) -> None:
    start = _position(data, dice)
    del data[start : start + dice.randint(1, _LONGEST_PIECE)]


def _repeat(data: bytearray, _others: Sequence[bytes], dice: random.Random) -> None:
    start = _position(data, dice)
    data[start:start] = data[start : start + dice.randint(1, _LONGEST_PIECE)] * dice.randint(1, 8)


def _insert(data: bytearray, _others: Sequence[bytes], dice: random.Random) -> None:
    start = _position(data, dice)
    data[start:start] = bytes([dice.choice(_EXTREMES)]) * dice.randint(1, _LONGEST_PIECE)


def _splice(data: bytearray, others: Sequence[bytes], dice: random.Random) -> None:
    other = dice.choice(others)
    start, end = dice.randrange(len(other) + 1), dice.randrange(len(other) + 1)
    data[_position(data, dice) :] = other[min(start, end) : max(start, end)]


_CHANGES: tuple[Callable[[bytearray, Sequence[bytes], random.Random], None], ...] = (
    _replace,
    _replace,
    _flip,
    _flip,
    _set_number,
    _set_number,
    _set_number,
    _cut,
    _remove,
    _repeat,
    _insert,
    _splice,
)
