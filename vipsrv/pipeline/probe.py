"""Recognise the format of an upload and read its header, or that of a page. Nothing is decoded."""

from collections.abc import Collection
from dataclasses import replace

import pyvips

from vipsrv.errors import BadRequest, CorruptImage, RequestError, UnsupportedFormat
from vipsrv.options import ImageInfo, page_range
from vipsrv.pipeline.formats import registry
from vipsrv.pipeline.formats.base import (
    BuiltinReader,
    ImageFacts,
    ImageFormat,
    LibvipsReader,
    LoadedFile,
    OpenedPage,
    ShrinkFor,
)
from vipsrv.pipeline.header import Decoder, ImageHeader
from vipsrv.pipeline.limits import MAX_PAGES, check_format, too_many_pages
from vipsrv.pipeline.notes import FileNotes
from vipsrv.pipeline.refusals import refusal
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.errors import forget_errors, logged_errors
from vipsrv.pipeline.vips.fields import get_field, orientation_of
from vipsrv.pipeline.vips.operations import Shape
from vipsrv.pipeline.vips.stopping import StopCheck


def read_info(upload: Upload, *, tolerant: bool = False, formats: Collection[str] | None = None) -> ImageInfo:
    """Return the facts in the header. ``tolerant`` accepts truncated and corrupt images.

    ``formats`` names those that are allowed; ``None`` means all that are read.

    Raises ``UnsupportedFormat``, ``CorruptImage`` and ``TooLarge``.
    """
    forget_errors()
    info = read_header(upload, tolerant=tolerant).info
    check_format(info.format, "the image", formats)
    return info


def read_header(
    upload: Upload,
    *,
    tolerant: bool = False,
    shrink_for: ShrinkFor | None = None,
    watch: StopCheck | None = None,
) -> ImageHeader:
    """Recognise the format and open the header. ``tolerant`` accepts truncated and corrupt images.

    With ``shrink_for`` a JPEG is opened as small as it will be decoded. ``watch`` is called while vipsrv's
    own readers work.

    Raises ``UnsupportedFormat``, ``CorruptImage`` and ``TooLarge``.
    """
    head = upload.head(registry.HEAD)
    fail_on = "none" if tolerant else "error"
    format_ = registry.find_format(upload, head)
    match format_:
        case ImageFormat(reader=LibvipsReader() as reader):
            return _read_by_libvips(upload, format_.name, reader, fail_on, shrink_for)
        case ImageFormat(reader=BuiltinReader() as builtin):
            return _read_by_builtin(upload, format_.name, builtin, fail_on, watch)
        case _:
            raise _refusal(head)


def _read_by_libvips(
    upload: Upload, name: str, reader: LibvipsReader, fail_on: str, shrink_for: ShrinkFor | None
) -> ImageHeader:
    if shrink_for is not None and reader.read_facts is not None:
        facts = reader.read_facts(upload)
        if facts is not None:
            return _header_of(facts, upload, name, reader, fail_on, shrink_for)
    metadata_memory = reader.check_metadata(upload)
    page = _open_page(upload, name, reader, fail_on, 0)
    if page is not None:
        return _page_header(page, upload, name, fail_on, metadata_memory)
    notes = reader.read_notes(upload)
    film = notes.film
    if film is None or film.has_still:
        file = _open(upload, name, reader, fail_on, shrink_for)
    else:
        file = _open(Upload.from_memory(film.file(0)), name, reader, fail_on, None)
    page = _open_alone(upload, name, reader, fail_on, 0)
    if page is not None:
        return _page_header(page, upload, name, fail_on, metadata_memory)
    image = notes.corrected(file.image)
    info = ImageInfo(
        format=name,
        width=file.width,
        height=file.height,
        pages=_count_pages(upload, reader, image, notes),
        has_alpha=bool(image.hasalpha()),
        orientation=orientation_of(image),
        size=upload.size,
    )
    shown = _as_shown(upload, info, reader, image, 0, fail_on, metadata_memory)
    return shown or _libvips_header(
        info,
        image,
        fail_on,
        shrink=file.shrink,
        metadata_memory=metadata_memory,
        notes=notes,
        is_last=file.whole_only,
    )


def _count_pages(upload: Upload, reader: LibvipsReader, image: pyvips.Image, notes: FileNotes) -> int:
    if notes.film is not None:
        return notes.film.count
    if reader.count_pages is not None:
        return reader.count_pages(upload)
    pages: int = get_field(image, "n-pages", 1)
    return pages


def _header_of(
    facts: ImageFacts, upload: Upload, name: str, reader: LibvipsReader, fail_on: str, shrink_for: ShrinkFor
) -> ImageHeader:
    width, height = facts.width, facts.height
    shrink = shrink_for(width, height)
    return ImageHeader(
        ImageInfo(
            format=name,
            width=width,
            height=height,
            pages=1,
            has_alpha=False,
            orientation=facts.orientation,
            size=upload.size,
        ),
        lambda: _open(upload, name, reader, fail_on, shrink_for).image,
        decoder=Decoder.LIBVIPS,
        fail_on=fail_on,
        shrink=shrink,
        metadata_memory=facts.metadata_memory,
        shape=Shape(width // shrink, height // shrink, facts.bands, "uchar", facts.interpretation),
        fields=facts.fields,
    )


def _open(
    upload: Upload, name: str, reader: LibvipsReader, fail_on: str, shrink_for: ShrinkFor | None
) -> LoadedFile:
    file = None
    try:
        if shrink_for is not None and reader.open_shrunk is not None:
            file = reader.open_shrunk(upload, fail_on, shrink_for)
        if file is None:
            file = reader.open_whole(upload, fail_on)
    except pyvips.Error as error:
        raise refusal(f"the header of this {name} cannot be read", upload, error, reader=reader) from error
    return file


def _as_shown(
    upload: Upload,
    info: ImageInfo,
    reader: LibvipsReader,
    image: pyvips.Image,
    page: int,
    fail_on: str,
    metadata_memory: int,
) -> ImageHeader | None:
    try:
        shown = reader.as_shown(upload, image, page, fail_on)
    except pyvips.Error as error:
        what = f"page {page} of this {info.format} cannot be read"
        raise refusal(what, upload, error, reader=reader) from error
    if shown is None:
        return None
    return ImageHeader(
        replace(info, width=shown.width, height=shown.height, has_alpha=bool(shown.hasalpha())),
        lambda: shown,
        decoder=Decoder.CORRECTED,
        fail_on=fail_on,
        metadata_memory=metadata_memory + upload.size,  # of the copy
    )


def _open_page(
    upload: Upload, name: str, reader: LibvipsReader, fail_on: str, number: int
) -> OpenedPage | None:
    try:
        return reader.open_page(upload, number, fail_on)
    except pyvips.Error as error:
        where = "the header" if number == 0 else f"page {number}"
        raise refusal(f"{where} of this {name} cannot be read", upload, error, reader=reader) from error


def _open_alone(
    upload: Upload, name: str, reader: LibvipsReader, fail_on: str, number: int
) -> OpenedPage | None:
    """Open a page without the others, if libvips logged an error: it looks at all pages to count them."""
    if reader.open_alone is None or not logged_errors():
        return None
    try:
        return reader.open_alone(upload, number, fail_on)
    except pyvips.Error as error:
        raise refusal(f"page {number} of this {name} cannot be read", upload, error, reader=reader) from error


def _page_header(
    page: OpenedPage, upload: Upload, name: str, fail_on: str, metadata_memory: int
) -> ImageHeader:
    image = page.image
    info = ImageInfo(
        format=name,
        width=image.width,
        height=image.height,
        pages=page.pages,
        has_alpha=page.has_alpha,
        orientation=orientation_of(image),
        size=upload.size,
    )
    return ImageHeader(
        info,
        lambda: image,
        decoder=Decoder.CORRECTED,
        fail_on=fail_on,
        metadata_memory=metadata_memory + page.memory,
        finish=page.finish,
    )


def _libvips_header(
    info: ImageInfo,
    image: pyvips.Image,
    fail_on: str,
    *,
    shrink: int = 1,
    metadata_memory: int,
    notes: FileNotes,
    is_last: bool = False,
) -> ImageHeader:
    """``is_last``: the image must not be opened again in another way."""
    is_plain = notes.correct is None and notes.film is None and not is_last
    return ImageHeader(
        info,
        lambda: image,
        decoder=Decoder.LIBVIPS if is_plain else Decoder.CORRECTED,
        fail_on=fail_on,
        shrink=shrink,
        metadata_memory=metadata_memory,
        notes=notes,
    )


def _read_by_builtin(
    upload: Upload, name: str, reader: BuiltinReader, fail_on: str, watch: StopCheck | None
) -> ImageHeader:
    found = reader.open(upload, tolerant=fail_on == "none", watch=watch)
    info = ImageInfo(
        format=name,
        width=found.width,
        height=found.height,
        pages=1,
        has_alpha=found.has_alpha,
        orientation=1,
        size=upload.size,
    )
    embedded = None
    if found.embedded is not None:
        inner_name, image = found.embedded
        embedded = ImageHeader(
            replace(info, format=inner_name),
            lambda: image,
            decoder=Decoder.LIBVIPS,
            fail_on=fail_on,
            metadata_memory=found.memory,
            notes=found.notes,
        )
    return ImageHeader(
        info,
        found.build,
        decoder=Decoder.BUILTIN,
        fail_on=fail_on,
        is_bgr=found.is_bgr,
        metadata_memory=found.memory,
        embedded=embedded,
        notes=found.notes,
    )


def open_page(upload: Upload, header: ImageHeader, page: int) -> ImageHeader:
    """Open the header of a page, counted from 0.

    Each page of a TIFF has its own size; a page of an animation is a frame as a viewer sees it. Raises
    ``BadRequest`` for a page beyond the last one, and ``CorruptImage``.
    """
    if page == 0:
        return header
    info = header.info
    if page >= info.pages:
        count = f"{info.pages} page{'s' if info.pages > 1 else ''}"
        raise BadRequest(f"page: {page} is beyond the last; this {info.format} has {count}, counted from 0")
    reader = registry.format_named(info.format).reader
    assert isinstance(reader, LibvipsReader), "images of built-in formats have one page"  # noqa: S101
    if reader.count_pages is not None:
        return _open_frames(upload, header, reader, page, 1)
    opened = _open_page(upload, info.format, reader, header.fail_on, page)
    if opened is not None:
        return _page_header(opened, upload, info.format, header.fail_on, header.metadata_memory)
    film, metadata_memory = header.notes.film, header.metadata_memory
    if film is None:
        image = _load_page(upload, info.format, reader, header.fail_on, page)
        alone = _open_alone(upload, info.format, reader, header.fail_on, page)
        if alone is not None:
            return _page_header(alone, upload, info.format, header.fail_on, metadata_memory)
    else:
        file = Upload.from_memory(film.file(page))
        metadata_memory += file.size
        image = _open(file, info.format, reader, header.fail_on, None).image
    image = header.notes.corrected(image)
    shown = _as_shown(upload, info, reader, image, page, header.fail_on, header.metadata_memory)
    if shown is not None:
        return shown
    page_info = replace(
        info,
        width=image.width,
        height=image.height,
        has_alpha=bool(image.hasalpha()),
        orientation=orientation_of(image),
    )
    return _libvips_header(
        page_info,
        image,
        header.fail_on,
        metadata_memory=metadata_memory,
        notes=header.notes,
    )


def _load_page(upload: Upload, name: str, reader: LibvipsReader, fail_on: str, page: int) -> pyvips.Image:
    try:
        return pyvips.Operation.call(
            reader.loader, upload.source, access="sequential", fail_on=fail_on, page=page
        )
    except pyvips.Error as error:
        raise refusal(f"page {page} of this {name} cannot be read", upload, error, reader=reader) from error


def open_frames(upload: Upload, header: ImageHeader, pages: str) -> ImageHeader:
    """Open the header of frames of an animation; that of one page if ``pages`` is only one.

    Raises ``BadRequest`` for frames beyond the last one and for pages that are no frames, ``CorruptImage``
    and ``TooLarge``.
    """
    info = header.info
    first, last = page_range(pages)
    if last is None:
        last = info.pages - 1
    if last >= info.pages:
        count = f"{info.pages} page{'s' if info.pages > 1 else ''}"
        raise BadRequest(f"pages: {last} is beyond the last; this {info.format} has {count}, counted from 0")
    if first == last:
        return open_page(upload, header, first)
    reader = registry.format_named(info.format).reader
    if not isinstance(reader, LibvipsReader) or reader.open_frames is None:
        raise BadRequest(
            f"pages: no animation is made of the {info.pages} pages of this {info.format}; "
            "choose one with 'page'"
        )
    return _open_frames(upload, header, reader, first, last - first + 1)


def _open_frames(
    upload: Upload, header: ImageHeader, reader: LibvipsReader, first: int, count: int
) -> ImageHeader:
    info = header.info
    assert reader.open_frames is not None, "the reader counts frames"  # noqa: S101
    if info.pages > MAX_PAGES:
        raise too_many_pages(info.pages)
    try:
        frames = reader.open_frames(upload, header, first, count)
    except pyvips.Error as error:
        what = f"the frames of this {info.format} cannot be read"
        raise refusal(what, upload, error, reader=reader) from error
    return ImageHeader(
        replace(info, width=frames.width, height=frames.height, has_alpha=frames.has_alpha),
        lambda: frames.image,
        decoder=Decoder.CORRECTED,
        fail_on=header.fail_on,
        metadata_memory=header.metadata_memory,
        frames=frames,
        notes=header.notes,
    )


def _refusal(head: bytes) -> RequestError:
    found = registry.recognise(head)
    readable = [format_.name for format_ in registry.active_formats()]
    what = "this is not an image of a known format"
    if found is not None:
        signature, format_ = found
        if format_ is not None and signature.is_read and format_.name in readable:
            return CorruptImage(f"this begins like {signature.name}, but its header cannot be read")
        what = f"this looks like {signature.name}, which this server does not read"
    return UnsupportedFormat(f"{what}; send one of: {', '.join(readable)}")
