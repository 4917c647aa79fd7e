"""Find all formats of this folder, switch their readers on and off, and choose the reader of an upload."""

import importlib
import pkgutil
from collections.abc import Collection
from functools import cache

import pyvips

from vipsrv.pipeline.formats import unsupported
from vipsrv.pipeline.formats.base import BuiltinReader, ImageFormat, LibvipsReader, Signature
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips import setup

HEAD = 512
"""The number of first bytes of a file by which its format is recognised."""

_libvips: list[tuple[ImageFormat, LibvipsReader]] = []
_builtin: list[tuple[ImageFormat, BuiltinReader]] = []
"""The active formats of libvips and of vipsrv, each with its reader."""

_certain: list[tuple[bytes, ImageFormat]] = []
"""The active formats that are recognised by their ``prefix``, without a call of libvips."""


@cache
def all_formats() -> tuple[ImageFormat, ...]:
    """Return every format that is described in this folder, in their order."""
    package = __name__.rpartition(".")[0]
    folder = importlib.import_module(package).__path__
    modules = [importlib.import_module(f"{package}.{module.name}") for module in pkgutil.iter_modules(folder)]
    formats = [format_ for module in modules for format_ in getattr(module, "FORMATS", ())]
    return tuple(sorted(formats, key=lambda format_: format_.order))


@cache
def format_named(name: str) -> ImageFormat:
    """Return the format with this name."""
    return next(format_ for format_ in all_formats() if format_.name == name)


def readable_names() -> tuple[str, ...]:
    """Return the names of all formats that have a reader, whether or not this libvips has the loader."""
    libvips = [format_.name for format_ in all_formats() if isinstance(format_.reader, LibvipsReader)]
    builtin = [format_.name for format_ in all_formats() if isinstance(format_.reader, BuiltinReader)]
    return (*libvips, *builtin)


def activate(wanted: Collection[str] | None = None) -> None:
    """Switch on the readers of the formats ``wanted`` as far as this libvips has them, and no others.

    ``None`` means all formats except those whose loader libvips marks as untrusted.
    """
    setup.block_all_loaders()
    _libvips.clear()
    _builtin.clear()
    for format_ in all_formats():
        reader = format_.reader
        if isinstance(reader, BuiltinReader):
            if wanted is None or format_.name in wanted:
                _builtin.append((format_, reader))
                if reader.loader_family is not None:
                    setup.allow_loader(reader.loader_family)
        elif isinstance(reader, LibvipsReader) and _is_wanted(format_.name, reader, wanted):
            setup.allow_loader(reader.family)
            _libvips.append((format_, reader))
    _find_certain()


def _is_wanted(name: str, reader: LibvipsReader, wanted: Collection[str] | None) -> bool:
    if not setup.has_loader(reader.loader):
        return False
    return setup.is_trusted(reader.loader) if wanted is None else name in wanted


def deactivate(format_: ImageFormat, reader: LibvipsReader) -> None:
    """Switch the reader of a format off. Its loaders stay if another format needs them."""
    _libvips.remove((format_, reader))
    needed = {other.family for _, other in _libvips} | {other.loader_family for _, other in _builtin}
    if reader.family not in needed:
        setup.block_loader(reader.family)
    _find_certain()


def active_formats() -> tuple[ImageFormat, ...]:
    """Return the formats whose readers are on: first those of libvips, then the built-in ones."""
    return tuple(format_ for format_, _ in (*_libvips, *_builtin))


def find_format(upload: Upload, head: bytes) -> ImageFormat | None:
    """Return the format of an upload with the first bytes ``head``; ``None`` if no reader claims it."""
    for prefix, format_ in _certain:
        if head.startswith(prefix):
            return format_
    return (
        _find_builtin(upload, head, has_magic=True)
        or _find_libvips(upload.source, head)
        or _find_builtin(upload, head, has_magic=False)
    )


def recognise(head: bytes) -> tuple[Signature, ImageFormat | None] | None:
    """Return the signature that matches these first bytes, and the format that it belongs to."""
    for format_ in all_formats():
        for one in format_.signatures:
            if one.pattern.match(head):
                return one, format_
    return next(((one, None) for one in unsupported.SIGNATURES if one.pattern.match(head)), None)


def _find_certain() -> None:
    _certain[:] = [(reader.prefix, format_) for format_, reader in _libvips if reader.prefix is not None]


def _find_builtin(upload: Upload, head: bytes, *, has_magic: bool) -> ImageFormat | None:
    for format_, reader in _builtin:
        if reader.has_magic is has_magic and reader.recognises(upload, head):
            return format_
    return None


def _find_libvips(source: pyvips.Source, head: bytes) -> ImageFormat | None:
    name = setup.find_loader(source)
    if name is None:
        # libvips 8.18 does not know all brands of the files that it reads.
        return next(
            (
                one
                for one, its in _libvips
                if (its.shares_loader or its.by_signature) and _looks_like(head, one)
            ),
            None,
        )
    for format_, reader in _libvips:
        # A family has loaders for files, buffers and sources, and some, such as PDF's, two implementations.
        if name.startswith(reader.family) and (not reader.shares_loader or _looks_like(head, format_)):
            return format_
    return None


def _looks_like(head: bytes, format_: ImageFormat) -> bool:
    found = recognise(head)
    return found is not None and found[1] is format_ and found[0].is_read
