"""The frames of an AVIF image sequence, each as a file of its own.

libvips 8.18 reads the still image of such a file and not its track. A frame depends on those before it, back
to the last one that stands alone. The AV1 decoder of libheif decodes everything that the data of an image
hold and returns what it shows last: so a file whose image has the data of all these frames is the last one
of them, with its alpha in the same way.

Sources: ISO/IEC 14496-12 for the tables of samples; ISO/IEC 23008-12, section 7, for image sequences; AV1
Image File Format (AVIF) 1.1.
"""

import struct
from bisect import bisect_right
from dataclasses import dataclass
from functools import partial

from vipsrv.errors import CorruptImage, TooLarge
from vipsrv.pipeline.formats.heif.boxes import VERSION_AND_FLAGS, box, boxes, find_top
from vipsrv.pipeline.limits import MAX_PAGES, too_many_pages
from vipsrv.pipeline.notes import Film
from vipsrv.pipeline.upload import Upload

_MAX_TRACKS_BOX = 8 << 20
"""Bytes of a ``moov`` box: the tables of 10,000 frames with alpha take 300 KB."""

_MAX_TRACKS = 8
_MAX_DATA = 64 << 20
"""Bytes of the frames that are decoded to show one: 20 times a photo of 50 megapixels."""

_BRAND = b"ftypavis"
_SAMPLE_ENTRY = 78
"""Bytes of a visual sample entry before its boxes."""

_ALPHA_TYPE = b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0"
_COLOUR_ITEM, _ALPHA_ITEM = 1, 2
_ESSENTIAL = 0x80  # of an index in ipma


@dataclass(slots=True)
class _Track:
    """A track: its number and handler, the sizes and places of its samples, and the numbers of those that
    stand alone; ``None`` for ``alone`` if all do.
    """

    number: int = 0
    handler: bytes = b""
    width: int = 0
    height: int = 0
    configuration: bytes = b""
    colours: tuple[bytes, ...] = ()
    is_alpha: bool = False
    alpha_of: int | None = None
    premultiplied_by: int | None = None
    sizes: tuple[int, ...] = ()
    offsets: tuple[int, ...] = ()
    alone: tuple[int, ...] | None = None

    def needed(self, number: int) -> range:
        """The numbers of the samples that are decoded to show one of them."""
        if self.alone is None:
            return range(number, number + 1)
        place = bisect_right(self.alone, number) - 1
        if place < 0:
            raise CorruptImage("no frame of this film stands alone before the one to be shown")
        return range(self.alone[place], number + 1)

    def data(self, upload: Upload, number: int) -> bytes:
        """The data of these samples."""
        needed = self.needed(number)
        size = sum(self.sizes[one] for one in needed)
        if size > upload.size:
            raise CorruptImage("the frames of this film overlap in the file")
        if size > _MAX_DATA:
            raise TooLarge(f"the frames to be decoded take {size} bytes; {_MAX_DATA} are allowed")
        parts = [upload.read(self.offsets[one], self.sizes[one]) for one in needed]
        if any(len(part) < self.sizes[one] for one, part in zip(needed, parts, strict=True)):
            raise CorruptImage("this file ends within a frame of its film")
        return b"".join(parts)


def read_film(upload: Upload, *, has_still: bool) -> Film | None:
    """Return the frames of a file whose brand says that it is a sequence; ``None`` for another file, or one
    whose tables cannot be read. Raises ``TooLarge`` for too many frames.
    """
    if upload.read(4, len(_BRAND)) != _BRAND:
        return None
    try:
        tracks = _tracks(upload)
    except (struct.error, LookupError, StopIteration):
        return None
    colour = next((one for one in tracks if one.handler == b"pict" and one.configuration), None)
    if colour is None or not colour.sizes:
        return None
    alpha = next((one for one in tracks if one.is_alpha and one.alpha_of == colour.number), None)
    if alpha is not None and (not alpha.configuration or len(alpha.sizes) < len(colour.sizes)):
        return None
    return Film(
        count=len(colour.sizes),
        file=partial(_still, upload, colour, alpha),
        decoded=lambda number: len(colour.needed(number)),
        has_still=has_still,
    )


def _still(upload: Upload, colour: _Track, alpha: _Track | None, number: int) -> bytes:
    """Return an AVIF of one frame."""
    tracks = [(_COLOUR_ITEM, colour)] + ([] if alpha is None else [(_ALPHA_ITEM, alpha)])
    data = [track.data(upload, number) for _, track in tracks]
    size = _box(b"ispe", struct.pack(">II", colour.width, colour.height))
    properties, associations = [size], []
    for item, track in tracks:
        own = _properties(track)
        first = len(properties) + 1
        numbers = [1, *range(first, first + len(own))]
        properties += own
        # The configuration of the decoder, the first one of a track's own, is essential.
        marked = [one | _ESSENTIAL if one == first else one for one in numbers]
        associations.append(struct.pack(f">HB{len(marked)}B", item, len(marked), *marked))
    references = []
    if alpha is not None:
        references.append(box(b"auxl", struct.pack(">HHH", _ALPHA_ITEM, 1, _COLOUR_ITEM)))
        if colour.premultiplied_by == alpha.number:
            references.append(box(b"prem", struct.pack(">HHH", _COLOUR_ITEM, 1, _ALPHA_ITEM)))
    entries = [_box(b"infe", struct.pack(">HH4sx", item, 0, b"av01"), version=2) for item, _ in tracks]
    before = [
        _box(b"hdlr", bytes(4), b"pict", bytes(13)),
        _box(b"pitm", struct.pack(">H", _COLOUR_ITEM)),
    ]
    after = [
        _box(b"iinf", struct.pack(">H", len(entries)), *entries),
        _box(b"iref", *references) if references else b"",
        box(
            b"iprp",
            box(b"ipco", *properties),
            _box(b"ipma", struct.pack(">I", len(associations)), *associations),
        ),
    ]
    kind = box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf")
    # The places of the data follow from the length of all before them, which does not depend on the places.
    length = len(kind) + len(_box(b"meta", *before, _locations(data, 0), *after)) + 8
    return kind + _box(b"meta", *before, _locations(data, length), *after) + box(b"mdat", *data)


def _properties(track: _Track) -> list[bytes]:
    flags = track.configuration[2]
    depth = (12 if flags & 0x20 else 10) if flags & 0x40 else 8
    channels = 1 if flags & 0x10 else 3
    return [
        box(b"av1C", track.configuration),
        _box(b"pixi", bytes([channels, *[depth] * channels])),
        *(box(b"colr", one) for one in track.colours),
        *([_box(b"auxC", _ALPHA_TYPE)] if track.is_alpha else []),
    ]


def _locations(data: list[bytes], start: int) -> bytes:
    entries = []
    for item, one in enumerate(data, start=1):
        entries.append(struct.pack(">HHHII", item, 0, 1, start, len(one)))
        start += len(one)
    return _box(b"iloc", struct.pack(">BBH", 0x44, 0, len(data)), *entries)


def _box(name: bytes, *contents: bytes, version: int = 0) -> bytes:
    """Return a full box."""
    return box(name, bytes([version, 0, 0, 0]), *contents)


def _tracks(upload: Upload) -> list[_Track]:
    found = find_top(upload, b"moov")
    if found is None or found[2] > _MAX_TRACKS_BOX:
        return []
    _, start, size = found
    contents = [content for name, content in boxes(upload.read(start, size)) if name == b"trak"]
    return [_track(content) for content in contents[:_MAX_TRACKS]]


def _track(data: bytes) -> _Track:
    track, parts = _Track(), dict(boxes(data))
    head = parts[b"tkhd"]
    (track.number,) = struct.unpack_from(">I", head, 20 if head[0] else 12)
    for kind, numbers in boxes(parts.get(b"tref", b"")):
        if kind == b"auxl":
            (track.alpha_of,) = struct.unpack_from(">I", numbers)
        elif kind == b"prem":
            (track.premultiplied_by,) = struct.unpack_from(">I", numbers)
    media = dict(boxes(parts[b"mdia"]))
    track.handler = media[b"hdlr"][8:12]
    if track.handler in {b"pict", b"auxv"}:
        tables = dict(boxes(dict(boxes(media[b"minf"]))[b"stbl"]))
        _read_description(track, tables[b"stsd"])
        _read_samples(track, tables)
    return track


def _read_description(track: _Track, data: bytes) -> None:
    name, entry = next(boxes(data[VERSION_AND_FLAGS + 4 :]))
    if name != b"av01":
        return
    track.width, track.height = struct.unpack_from(">HH", entry, 24)
    for inner_name, content in boxes(entry[_SAMPLE_ENTRY:]):
        if inner_name == b"av1C" and len(content) >= 4:  # noqa: PLR2004 - its fixed part
            track.configuration = content
        elif inner_name == b"colr":
            track.colours += (content,)
        elif inner_name == b"auxi":
            track.is_alpha = content[VERSION_AND_FLAGS:].startswith(_ALPHA_TYPE[:-1])


def _read_samples(track: _Track, tables: dict[bytes, bytes]) -> None:
    same, count = struct.unpack_from(">II", tables[b"stsz"], VERSION_AND_FLAGS)
    if count > MAX_PAGES:
        raise too_many_pages(count)
    sizes = (same,) * count if same else struct.unpack_from(f">{count}I", tables[b"stsz"], 12)
    is_wide = b"co64" in tables
    chunks = _numbers(tables[b"co64" if is_wide else b"stco"], "Q" if is_wide else "I")
    runs = list(struct.iter_unpack(">3I", tables[b"stsc"][8:][: 12 * MAX_PAGES]))
    offsets: list[int] = []
    for number, (first, each, _) in enumerate(runs):
        last = runs[number + 1][0] if number + 1 < len(runs) else len(chunks) + 1
        for offset in chunks[max(0, first - 1) : max(0, last - 1)]:
            place = offset
            for size in sizes[len(offsets) : len(offsets) + each]:
                offsets.append(place)
                place += size
        if len(offsets) >= count:
            break
    if len(offsets) < count:
        raise struct.error("fewer places than frames")
    track.sizes, track.offsets = sizes, tuple(offsets)
    if b"stss" in tables:
        track.alone = tuple(sorted({number - 1 for number in _numbers(tables[b"stss"], "I") if number}))


def _numbers(data: bytes, letter: str) -> tuple[int, ...]:
    (count,) = struct.unpack_from(">I", data, VERSION_AND_FLAGS)
    return struct.unpack_from(f">{min(count, MAX_PAGES)}{letter}", data, 8)
