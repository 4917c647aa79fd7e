"""Import the packages of the faster way, if they are installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

simplejpeg: Any = None
"""libjpeg-turbo 3.1, linked into the package."""

rust_lib: Any = None
"""The Rust crate fast_image_resize: the inner module of its package, which takes and returns ``bytes``."""


@contextmanager
def _without_pillow() -> Iterator[None]:
    """Make ``import PIL`` fail unless it was imported before.

    ``cykooz_resizer`` imports Pillow where it finds it, for functions that are not used here. A worker must
    not load Pillow's decoders, and the import takes time at every start.
    """
    if "PIL" in sys.modules:
        yield
        return
    sys.modules["PIL"] = None  # type: ignore[assignment]  # how Python marks a module that cannot be imported
    try:
        yield
    finally:
        del sys.modules["PIL"]


try:
    import simplejpeg as _simplejpeg

    with _without_pillow():
        from cykooz_resizer import rust_lib as _rust_lib
except ImportError:
    AVAILABLE = False
else:
    simplejpeg, rust_lib, AVAILABLE = _simplejpeg, _rust_lib, True
