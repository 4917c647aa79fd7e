"""Read from the beginning of an AV1 stream which colours it states.

Source: AV1 Bitstream & Decoding Process Specification (2019), sections 5.3 (OBU), 5.5 (sequence header).
"""

from dataclasses import dataclass

_SEQUENCE_HEADER = 1  # obu_type
_MAX_UNITS = 8
_WITH_TIER = 7  # the highest level without one
_UNSPECIFIED = (2, 2, 2)
_SRGB = (1, 13, 0)
"""RGB itself instead of YCbCr: the range is then not stated."""

_MAIN_PROFILE_HIGH, _PROFESSIONAL = 1, 2


class _Bits:
    """Bits of some bytes, one after the other; raises ``IndexError`` behind the last one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def read(self, count: int) -> int:
        """Return the next ``count`` bits as a number."""
        value = 0
        for _ in range(count):
            byte = self._data[self._position >> 3]
            value = value << 1 | byte >> (7 - (self._position & 7)) & 1
            self._position += 1
        return value

    def skip_variable(self) -> None:
        """Skip a number of variable length (uvlc)."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        self.read(min(zeros, 32) if zeros < 32 else 0)  # noqa: PLR2004


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamColours:
    """``colour_primaries`` and ``transfer_characteristics`` (ITU-T H.273), and whether black and white are
    the codes 16 and 235 of 256.
    """

    primaries: int
    transfer: int
    is_narrow: bool


def stream_colours(data: bytes) -> StreamColours | None:
    """Return the colours of a stream that begins with ``data``; ``None`` if its header is not found."""
    try:
        header = _sequence_header(data)
        return None if header is None else _colours(_Bits(header))
    except IndexError:
        return None


def _sequence_header(data: bytes) -> bytes | None:
    position = 0
    for _ in range(_MAX_UNITS):
        head = data[position]
        position += 2 if head & 4 else 1
        size = len(data) - position
        if head & 2:
            size, shift = 0, 0
            while True:
                byte = data[position]
                size |= (byte & 127) << shift
                position, shift = position + 1, shift + 7
                if not byte & 128 or shift > 28:  # noqa: PLR2004 - a size has 32 bits
                    break
        if head >> 3 & 15 == _SEQUENCE_HEADER:
            return data[position : position + size]
        position += size
    return None


def _colours(bits: _Bits) -> StreamColours:
    profile = bits.read(3)
    bits.read(1)  # still_picture
    is_reduced = bits.read(1)
    if is_reduced:
        bits.read(5)  # seq_level_idx
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    bits.read(width_bits + height_bits)
    if not is_reduced and bits.read(1):  # frame_id_numbers_present_flag
        bits.read(7)
    bits.read(3)  # use_128x128_superblock, enable_filter_intra, enable_intra_edge_filter
    if not is_reduced:
        _skip_tools(bits)
    bits.read(3)  # enable_superres, enable_cdef, enable_restoration
    is_high = bits.read(1)
    if profile == _PROFESSIONAL and is_high:
        bits.read(1)  # twelve_bit
    if profile != _MAIN_PROFILE_HIGH:
        bits.read(1)  # mono_chrome
    numbers = (bits.read(8), bits.read(8), bits.read(8)) if bits.read(1) else _UNSPECIFIED
    is_narrow = numbers != _SRGB and not bits.read(1)
    return StreamColours(primaries=numbers[0], transfer=numbers[1], is_narrow=is_narrow)


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.read(1):  # timing_info_present_flag
        bits.read(64)
        if bits.read(1):
            bits.skip_variable()
        if bits.read(1):  # decoder_model_info_present_flag
            delay_bits = bits.read(5) + 1
            bits.read(42)
    has_display_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > _WITH_TIER:
            bits.read(1)
        if delay_bits and bits.read(1):
            bits.read(2 * delay_bits + 1)
        if has_display_delay and bits.read(1):
            bits.read(4)


def _skip_tools(bits: _Bits) -> None:
    bits.read(4)  # enable_interintra_compound, _masked_compound, _warped_motion, _dual_filter
    has_order = bits.read(1)
    if has_order:
        bits.read(2)
    screen_content = 1 if bits.read(1) else bits.read(1)
    if screen_content and not bits.read(1):  # seq_choose_integer_mv
        bits.read(1)
    if has_order:
        bits.read(3)
