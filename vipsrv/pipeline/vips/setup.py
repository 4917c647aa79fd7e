"""Set up libvips for a process: no cache, and only the loaders that are switched on by name.

libvips reads far more than images (CSV, its own raw files, …), so all loaders are blocked first.
"""

import pyvips
from pyvips import vips_lib

from vipsrv.errors import StartFailed
from vipsrv.pipeline.vips.errors import forget_errors

OLDEST_LIBVIPS = (8, 16)
"""The oldest version that passes the tests. If the system's libvips has its headers installed, pip builds
pyvips against that library instead of using the wheel's."""

_UNTRUSTED = 16  # VIPS_OPERATION_UNTRUSTED of VipsOperationFlags


def version() -> str:
    """Return the version of libvips, such as ``8.18.7``."""
    return ".".join(str(pyvips.version(part)) for part in range(3))


def check_version() -> None:
    """Raise ``StartFailed`` if libvips is too old."""
    if not pyvips.at_least_libvips(*OLDEST_LIBVIPS):
        oldest = ".".join(map(str, OLDEST_LIBVIPS))
        raise StartFailed(
            f"libvips {version()} is too old: {oldest} or later is needed; "
            "'pip install --force-reinstall --no-deps pyvips-binary' installs one"
        )


def block_all_loaders() -> None:
    """Switch off the operation cache, the log and every loader."""
    # pyvips passes each of libvips' log messages to Python's logging, even if nothing handles them: 0.1 ms
    # a request. With this handler removed GLib prints warnings on standard error, which a worker has closed.
    pyvips._remove_log_handler()  # noqa: SLF001
    pyvips.cache_set_max(0)  # no operation is ever repeated, and the cache would keep images in memory
    pyvips.operation_block_set("VipsForeignLoad", True)
    pyvips.block_untrusted_set(True)  # before any call of allow_loader, which may allow an untrusted one


def has_loader(loader: str) -> bool:
    """Whether this libvips was built with ``loader``."""
    return bool(pyvips.type_find("VipsForeignLoad", loader))


def has_saver(saver: str) -> bool:
    """Whether this libvips was built with ``saver``."""
    return bool(pyvips.type_find("VipsForeignSave", saver))


def is_trusted(loader: str) -> bool:
    """Whether libvips considers ``loader`` safe for hostile files."""
    return not pyvips.Introspect.get(loader).flags & _UNTRUSTED


def allow_loader(family: str) -> None:
    """Switch on a family of loader classes, such as ``VipsForeignLoadJpeg``."""
    pyvips.operation_block_set(family, False)


def allow_saver(family: str) -> None:
    """Switch on a family of saver classes, such as ``VipsForeignSaveJxl``, that libvips does not trust.

    That is about hostile files; a saver sees only pixels that libvips has decoded.
    """
    pyvips.operation_block_set(family, False)


def block_loader(family: str) -> None:
    """Switch off a family of loader classes."""
    pyvips.operation_block_set(family, True)


def find_loader(source: pyvips.Source) -> str | None:
    """Return the class of the loader that libvips uses for ``source``, such as
    ``VipsForeignLoadPngSource``.
    """
    found = vips_lib.vips_foreign_find_load_source(source.pointer)
    if found == pyvips.ffi.NULL:
        forget_errors()
        return None
    name: str = pyvips.ffi.string(found).decode()
    return name
