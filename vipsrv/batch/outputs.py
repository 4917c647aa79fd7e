"""What is made of each image: the options of its results, and the names that they get."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from vipsrv.options import ResizeOptions

DEFAULT_NAME = "{folder}{stem}_{size}.{ext}"
"""The template of a result's key."""


@dataclass(frozen=True)
class Outputs:
    """The options of all results of an image, and the template of their keys.

    ``name`` may use ``{folder}`` (with its ``/`` at the end, or empty), ``{stem}``, ``{source_ext}``,
    ``{size}`` (as asked for: ``320x``, ``800x600``), ``{width}`` and ``{height}`` (pixels of the result),
    ``{format}`` and ``{ext}``.
    """

    options: tuple[ResizeOptions, ...]
    name: str = DEFAULT_NAME

    @cached_property
    def digest(self) -> str:
        """A digest of all that decides what is made and how it is called: 16 hex digits."""
        text = json.dumps([self.name, [one.to_meta() for one in self.options]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
