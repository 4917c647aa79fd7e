"""GIF: every frame is laid on the logical screen, and what no frame covers is transparent."""

import random
import struct
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.pipeline.run import LIMITS, info
from tests.support.image_comparison import open_exact
from vipsrv import pipeline
from vipsrv.errors import RequestError
from vipsrv.options import Format, ResizeOptions

PALETTE = [(250, 20, 20), (20, 200, 20), (20, 20, 250), (240, 240, 20)]
KEEP, CLEAR, PREVIOUS = 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame of one colour, with a transparent stripe of two columns if it is transparent."""

    place: tuple[int, int, int, int]
    colour: int
    disposal: int = 0
    transparent: bool = False
    interlaced: bool = False

    def indices(self) -> NDArray[np.uint8]:
        _, _, width, height = self.place
        found = np.full((height, width), self.colour, np.uint8)
        if self.transparent:
            found[:, :2] = 7
        return found


def encode(screen: tuple[int, int], frames: list[Frame], *, control: bool = True) -> bytes:
    """A GIF whose codes have 8 bits: the table is cleared before they become longer."""
    colours = b"".join(bytes(colour) for colour in PALETTE).ljust(24, b"\x80")
    data = b"GIF89a" + struct.pack("<HHBBB", *screen, 0xF2, 1, 0) + colours
    for frame in frames:
        if control:
            flags = frame.disposal << 2 | frame.transparent
            data += b"\x21\xf9\x04" + struct.pack("<BHBB", flags, 10, 7, 0)
        data += b"\x2c" + struct.pack("<HHHHB", *frame.place, 0x40 if frame.interlaced else 0)
        rows = frame.indices()
        if frame.interlaced:
            rows = np.concatenate([rows[0::8], rows[4::8], rows[2::4], rows[1::2]])
        codes = rows.tobytes()
        pieces = b"".join(b"\x80" + codes[at : at + 100] for at in range(0, len(codes), 100)) + b"\x81"
        data += b"\x07"
        for at in range(0, len(pieces), 255):
            block = pieces[at : at + 255]
            data += bytes([len(block)]) + block
        data += b"\0"
    return data + b"\x3b"


def shown(screen: tuple[int, int], frames: list[Frame], page: int) -> NDArray[np.uint8]:
    """What a browser shows: the first frame may enlarge the screen."""
    left, top, wide, high = frames[0].place
    width, height = max(screen[0], left + wide), max(screen[1], top + high)
    canvas = np.zeros((height, width, 4), np.uint8)
    result = canvas
    for frame in frames[: page + 1]:
        left, top, wide, high = frame.place
        before = canvas.copy()
        part = canvas[top : top + high, left : left + wide]
        indices = frame.indices()[: part.shape[0], : part.shape[1]]
        drawn = indices != 7
        part[drawn] = (*PALETTE[frame.colour], 255)
        result = canvas.copy()
        if frame.disposal == CLEAR:
            part[:] = 0
        elif frame.disposal == PREVIOUS:
            canvas = before
    return result


def result(data: bytes, page: int, size: tuple[int, int], format_: Format = Format.PNG) -> Image.Image:
    options = ResizeOptions(width=size[0], height=size[1], format=format_, quality=100, page=page)
    upload = pipeline.Upload.from_memory(data)
    return open_exact(pipeline.resize(upload, [options], config=LIMITS).outputs[0].data)


def check(screen: tuple[int, int], frames: list[Frame], page: int) -> None:
    wanted = shown(screen, frames, page)
    height, width, _ = wanted.shape
    data = encode(screen, frames)
    assert (info(data).width, info(data).height) == (width, height)
    assert info(data).pages == len(frames)
    seen = np.asarray(result(data, page, (width, height)).convert("RGBA"))
    visible = np.where(seen[:, :, 3:] == 0, 0, seen)
    assert np.array_equal(visible, wanted)


SPECIAL = [(640, 480), (640, 512), (800, 600), (1024, 768), (2100, 60), (60, 2100)]


@pytest.mark.parametrize("screen", [(60, 40), (0, 0), (0, 50), *SPECIAL], ids=str)
def test_screen_of_any_size(screen: tuple[int, int]) -> None:
    for page, transparent in ((0, False), (1, True)):
        first = Frame(place=(5, 7, 20, 10), colour=0, transparent=transparent)
        second = Frame(place=(15, 3, 30, 20), colour=1, transparent=transparent)
        check(screen, [first, second], page)


def test_random_animations() -> None:
    random.seed(5)
    for _ in range(80):
        screen = random.randint(1, 50), random.randint(1, 40)
        sides = range(3, 60)
        frames = [
            Frame(
                place=(
                    random.choice([0, 9]),
                    random.choice([0, 14]),
                    random.choice(sides),
                    random.choice(sides),
                ),
                colour=random.randrange(4),
                disposal=random.choice([0, KEEP, CLEAR, PREVIOUS]),
                transparent=random.random() < 0.3,
                interlaced=random.random() < 0.3,
            )
            for _ in range(random.randint(1, 6))
        ]
        check(screen, frames, random.randrange(len(frames)))


def test_uncovered_is_the_background_of_the_request() -> None:
    data = encode((60, 40), [Frame(place=(20, 10, 20, 20), colour=2)], control=False)
    assert info(data).has_alpha
    seen = np.asarray(result(data, 0, (60, 40), Format.JPEG).convert("RGB")).astype(int)
    assert seen[2, 2].min() > 245
    assert np.abs(seen[20, 30] - PALETTE[2]).max() < 12


def test_covered_screen_has_no_alpha() -> None:
    frames = [Frame(place=(0, 0, 60, 40), colour=2), Frame(place=(10, 10, 5, 5), colour=1)]
    assert not info(encode((60, 40), frames)).has_alpha
    # Larger than its screen: the first frame enlarges it, a later one is cut off.
    assert info(encode((10, 10), frames)).width == 60


def test_file_that_ends_early_is_refused() -> None:
    data = encode((640, 480), [Frame(place=(20, 10, 20, 20), colour=2)])
    with pytest.raises(RequestError):
        result(data[:-60], 0, (64, 48))


def test_frame_of_countless_blocks_is_refused() -> None:
    data = encode((640, 480), [Frame(place=(20, 10, 20, 20), colour=2)])
    with pytest.raises(RequestError, match="blocks of data"):
        result(data[:-2] + b"\x01\x81" * 600_000 + b"\0\x3b", 0, (64, 48))
