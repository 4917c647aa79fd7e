"""What is made of each image: the options of its results, and the keys that they get.

The key of a result follows from the key of its image, the template and, if the template asks for them, the
pixels and the format of the result. Two runs with the same options give the same keys.
"""

import hashlib
import json
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from vipsrv.batch.problems import ImageFailed, Problem
from vipsrv.client import ResizedImage
from vipsrv.options import Format, ResizeOptions

DEFAULT_NAME = "{folder}{stem}_{size}.{ext}"
"""The template of a result's key."""

RESERVED_FOLDER = ".vipsrv"
"""The folder at a destination that has the manifest; no result may be in it."""

_OF_IMAGE = ("folder", "stem", "source_ext")
_OF_OPTIONS = ("size",)
_OF_RESULT = ("width", "height", "format", "ext")
_FIELDS = (*_OF_IMAGE, *_OF_OPTIONS, *_OF_RESULT)

_FIELD_CHARACTERS = string.digits + string.ascii_lowercase
"""What sizes, formats and endings are made of."""

_ENDINGS: Mapping[str, str] = {"jpeg": "jpg", "tiff": "tif"}
"""The usual ending of a format's files where it is not the name of the format."""


@dataclass(frozen=True)
class Outputs:
    """The options of all results of an image, and the template of their keys.

    ``name`` may use ``{folder}`` (with its ``/`` at the end, or empty), ``{stem}``, ``{source_ext}``,
    ``{size}`` (as asked for: ``320x``, ``800x600``), ``{width}`` and ``{height}`` (pixels of the result),
    ``{format}`` and ``{ext}``. Raises ``ValueError`` for a template that cannot be used.
    """

    options: tuple[ResizeOptions, ...]
    name: str = DEFAULT_NAME

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))  # a list is a usual mistake
        if not self.options:
            raise ValueError("outputs: must be one or more")
        for one in self.options:
            if not isinstance(one, ResizeOptions):
                raise ValueError(f"outputs: each must be a ResizeOptions, not {type(one).__name__}")  # noqa: TRY004 - one error type
        self._check_template()
        self._check_distinct()

    @classmethod
    def of(cls, given: "Outputs | ResizeOptions | Sequence[ResizeOptions]") -> "Outputs":
        """Return outputs for options that may be without a template. Raises ``ValueError``."""
        if isinstance(given, Outputs):
            return given
        return cls((given,) if isinstance(given, ResizeOptions) else tuple(given))

    @cached_property
    def digest(self) -> str:
        """A digest of all that decides what is made and how it is called: 16 hex digits."""
        text = json.dumps([self.name, [one.to_meta() for one in self.options]], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """Return everything of these outputs as JSON, for the manifest."""
        return json.dumps(
            {"name": self.name, "options": [one.to_meta() for one in self.options]}, sort_keys=True
        )

    @classmethod
    def from_json(cls, text: str) -> "Outputs":
        """Return the outputs that ``to_json`` has written. Raises ``ValueError``."""
        values = json.loads(text)
        try:
            return cls(tuple(ResizeOptions.from_meta(one) for one in values["options"]), values["name"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"these are no outputs: {error}") from None

    @cached_property
    def _parts(self) -> tuple[tuple[str, str | None], ...]:
        """The template as pairs: a text, and the field that follows it."""
        return tuple((text, field) for text, field, _, _ in string.Formatter().parse(self.name))

    def planned(self, key: str) -> tuple[str, ...]:
        """Return the keys of the results of an image as far as they are known before they are made.

        A field that only a result decides is left as it is in the template, ``{width}`` for example. Raises
        ``ImageFailed`` if a key is none that a result may have.
        """
        image = _image_fields(key)
        return tuple(_checked(self._fill(image | _option_fields(one)), key) for one in self.options)

    def claims(self, key: str) -> tuple[str, ...]:
        """Return names that an image takes: two images of which results may be called the same share one.

        They are the planned keys, or one text for all of them where that is as good. Raises ``ImageFailed``
        as ``planned`` does.
        """
        if not self._named_by_start:
            return self.planned(key)
        return (_checked(self._fill(_image_fields(key)), key),)

    @cached_property
    def _named_by_start(self) -> bool:
        """Whether two keys of results are the same only if their images give the same start of the template.

        So it is if what the options and the result decide comes last, after a character that is in none of it
        and nowhere behind it: from the end, that character is where the start ends.
        """
        fields = [field for _, field in self._parts]
        start = next((i for i, field in enumerate(fields) if field not in {*_OF_IMAGE, None}), None)
        if start is None or any(field in _OF_IMAGE for field in fields[start:]):
            return False
        separator = self._parts[start][0][-1:]
        behind = "".join(text for text, _ in self._parts[start + 1 :]) + _FIELD_CHARACTERS
        return separator != "" and separator not in behind

    def keys(self, key: str, results: Sequence[ResizedImage]) -> tuple[str, ...]:
        """Return the keys of the results that were made of an image, in the order of ``options``.

        Raises ``ImageFailed`` if two of them are the same or one is none that a result may have.
        """
        image = _image_fields(key)
        keys = tuple(
            _checked(self._fill(image | _option_fields(one) | _result_fields(result)), key)
            for one, result in zip(self.options, results, strict=True)
        )
        if len(set(keys)) < len(keys):
            twice = next(one for one in keys if keys.count(one) > 1)
            raise ImageFailed.by(Problem.NAME_CONFLICT, f"two results of this image would be called {twice}")
        return keys

    def _fill(self, known: Mapping[str, str]) -> str:
        return "".join(
            text if field is None else text + known.get(field, f"{{{field}}}") for text, field in self._parts
        )

    def _check_template(self) -> None:
        where = f"name {self.name!r}"
        try:
            parts = list(string.Formatter().parse(self.name))
        except ValueError as error:
            raise ValueError(f"{where}: {str(error).lower()}") from None
        for _, field, form, conversion in parts:
            if field is None:
                continue
            if field not in _FIELDS:
                allowed = ", ".join(f"{{{one}}}" for one in _FIELDS)
                raise ValueError(f"{where}: {{{field}}} is none of its fields, which are {allowed}")
            if form or conversion:
                raise ValueError(f"{where}: {{{field}}} takes nothing after the name of the field")
        if not any(field == "stem" for _, field, _, _ in parts):
            raise ValueError(
                f"{where}: has no {{stem}}, so the results of all images would have the same name"
            )
        problem = _fault(self._fill(_image_fields("folder/image.jpg")))
        if problem:
            raise ValueError(f"{where}: {problem}")

    def _check_distinct(self) -> None:
        known: dict[str, ResizeOptions] = {}
        for name, one in zip(self.planned("folder/image.jpg"), self.options, strict=True):
            if name in known and (
                one == known[name] or not any(f"{{{field}}}" in name for field in _OF_RESULT)
            ):
                raise ValueError(
                    f"name {self.name!r}: two results of an image would have the same name; use {{size}}, "
                    "{format} or {ext} to tell them apart"
                )
            known[name] = one


def size_text(options: ResizeOptions) -> str:
    """Return a size as it is asked for: ``320x``, ``x200`` or ``800x600``."""
    return f"{options.width or ''}x{options.height or ''}"


def ending_of(format_: str) -> str:
    """Return the usual ending of a format's files, without a dot."""
    return _ENDINGS.get(format_, format_)


def _image_fields(key: str) -> dict[str, str]:
    folder, slash, name = key.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    if not stem:  # no dot, or a name that starts with its only one
        stem, ending = dot + ending, ""
    return {"folder": folder + slash, "stem": stem, "source_ext": ending}


def _option_fields(options: ResizeOptions) -> dict[str, str]:
    known = {"size": size_text(options)}
    if options.format is not Format.AUTO:
        known |= {"format": options.format.value, "ext": ending_of(options.format.value)}
    return known


def _result_fields(result: ResizedImage) -> dict[str, str]:
    return {
        "width": str(result.width),
        "height": str(result.height),
        "format": result.format,
        "ext": ending_of(result.format),
    }


def _checked(name: str, key: str) -> str:
    problem = _fault(name)
    if problem:
        raise ImageFailed.by(Problem.BAD_NAME, f"the result of {key} would be called {name!r}: {problem}")
    return name


def _fault(name: str) -> str:
    """Return why a result may not have this key, or an empty text."""
    if "\0" in name:
        return "a name has no zero byte"
    return next(_segment_faults(name.split("/")), "")


def _segment_faults(segments: Sequence[str]) -> Iterator[str]:
    if segments[0] == RESERVED_FOLDER:
        yield f"the folder {RESERVED_FOLDER} is for the manifest"
    for segment in segments:
        if segment in {"", ".", ".."}:
            yield "each part between / must be a name"
