"""The fuzz targets without a fuzzer: over their seeds, and over seeds that are damaged in a few ways."""

import random
from collections.abc import Iterator

import pytest

from fuzz import readers, seeds
from fuzz.target import Target
from fuzz.targets import TARGETS

each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())


def damaged(data: bytes, *, seed: int) -> Iterator[bytes]:
    """``data`` cut short, lengthened, and with some bytes replaced."""
    dice = random.Random(seed)
    for _ in range(20):
        yield data[: dice.randrange(len(data) + 1)]
        changed = bytearray(data)
        for _ in range(dice.randint(1, 4)):
            changed[dice.randrange(len(changed))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
        yield bytes(changed)
    yield data + bytes(16)


@each_target
def test_every_seed_is_accepted(target: Target) -> None:
    made = list(target.seeds())
    assert made
    assert [number for number, seed in enumerate(made) if not target.accepts(seed)] == []


@each_target
def test_damaged_input_is_parsed_or_refused(target: Target) -> None:
    for number, seed in enumerate(target.seeds()):
        for data in damaged(seed, seed=number):
            target.accepts(data)
    target.accepts(b"")


def test_an_exception_that_is_not_allowed_is_a_bug() -> None:
    def parse(data: bytes) -> None:
        raise ValueError if data else IndexError

    target = Target(name="broken", parse=parse, allowed=(ValueError,), seeds=tuple)
    assert not target.accepts(b"refused")
    with pytest.raises(IndexError):
        target.accepts(b"")


def test_every_format_of_our_own_has_a_target() -> None:
    assert {f"read-{format_}" for format_ in readers.readers()} <= TARGETS.keys()
    assert set(readers.readers()) <= seeds.IMAGES.keys()
