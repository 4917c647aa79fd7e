"""The names of the results of many images, from a template; and which files have such names already."""

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePath

from vipsrv.cli.output_files import ending_of
from vipsrv.client import ResizedImage
from vipsrv.options import Fit, Format, ResizeOptions

OF_IMAGE = ("folder", "stem", "source_ext")
OF_OPTIONS = ("size",)
OF_RESULT = ("width", "height", "format", "ext")
FIELDS = (*OF_IMAGE, *OF_OPTIONS, *OF_RESULT)

RESULT_PREFIX = "processed_"
"""What the names of results start with by default."""

DEFAULT_NAME = "processed_{stem}.{ext}"
DEFAULT_NAME_OF_SEVERAL = "processed_{stem}_{width}x{height}.{ext}"

_EXACT_FITS = (Fit.FILL, Fit.CONTAIN, Fit.COVER)


@dataclass(frozen=True, slots=True)
class NameTemplate:
    """A template of names, such as ``{stem}_{size}.{ext}``, for results with these ``options``.

    Without an ``output_folder`` the results are beside their image, and the template has no ``{folder}``.
    With ``numbered``, a second result of an image with the same name gets a number, as for a single image.
    """

    text: str
    options: tuple[ResizeOptions, ...]
    output_folder: Path | None
    numbered: bool = False

    @classmethod
    def of(
        cls, text: str | None, options: tuple[ResizeOptions, ...], output_folder: Path | None
    ) -> "NameTemplate":
        """Check a template; ``None`` means the names that a single image's results have.

        Raises ``ValueError``.
        """
        if text is None:
            default = DEFAULT_NAME if len(options) == 1 else DEFAULT_NAME_OF_SEVERAL
            folder = "" if output_folder is None else "{folder}"
            return cls(folder + default, options, output_folder, numbered=True)
        template = cls(text, options, output_folder)
        for fault in template._faults():
            raise ValueError(f"--name {text!r}: {fault}")
        return template

    def known(self, image: PurePath, folder: str) -> list[Path] | None:
        """Return the paths of the results of an image, or ``None`` if they depend on its results."""
        fields = [_image_fields(image, folder) | _option_fields(one) for one in self.options]
        if not all(used in one for one in fields for used in self._fields()):
            return None
        return self._paths(image, fields)

    def paths(self, image: PurePath, folder: str, results: Sequence[ResizedImage]) -> list[Path]:
        """Return the paths of the results that were made. Raises ``ValueError`` if two are the same."""
        fields = [
            _image_fields(image, folder) | _option_fields(one) | _result_fields(one, result)
            for one, result in zip(self.options, results, strict=True)
        ]
        return self._paths(image, fields)

    def patterns(self, image: PurePath, folder: str) -> list["NamePattern"]:
        """Return what the paths of the results look like, as far as that is known before they are made."""
        return [self._pattern(image, folder, one) for one in self.options]

    def is_like_a_result(self, name: str) -> "re.Match[str] | None":
        """Return a match if a result could have this file name; its group ``stem`` is that of the image."""
        for pattern in _result_patterns(self.text, self.options):
            match = pattern.fullmatch(name)
            if match is not None:
                return match
        return None

    def _fields(self) -> set[str]:
        return {field for _, field in _parts(self.text) if field is not None}

    def _faults(self) -> Iterator[str]:
        """Yield what is wrong with the template; the first fault is the one to tell."""
        try:
            parts = list(string.Formatter().parse(self.text))
        except ValueError as error:
            yield str(error).lower()
            return
        fields = ", ".join(f"{{{field}}}" for field in FIELDS)
        for _, field, form, conversion in parts:
            if field is not None and field not in FIELDS:
                yield f"{{{field}}} is not a field; the fields are {fields}"
            if form or conversion:
                yield f"{{{field}}} takes nothing after the name of the field"
        used = self._fields()
        if "stem" not in used:
            yield "has no {stem}, so the results of all images would have one name"
        yield from self._faults_of_names(used)
        if self.output_folder is not None:
            return
        if "folder" in used:
            yield "{folder} is for --output-dir; without it each result is beside its image"
        if re.fullmatch(r"(\{(stem|source_ext|ext|format)\}|\.)*", self.text.rpartition("/")[2]):
            yield "results beside their images need other names than images; add {size} or a text"

    def _faults_of_names(self, used: set[str]) -> Iterator[str]:
        sample = _image_fields(PurePath("image.in"), "folder/")
        names = [self._fill(sample | _sample_fields(one)) for one in self.options]
        if any(PurePath(name).is_absolute() for name in names):
            yield "must be a relative path; --output-dir names a folder"
        if any("\0" in name or {"", ".", ".."} & set(name.split("/")) for name in names):
            yield "each part between / must be a name"
        if len(set(names)) < len(names) and not used & {"width", "height"}:
            yield "several results of an image would have one name; add {size}, or {width} and {height}"

    def _paths(self, image: PurePath, fields: Sequence[Mapping[str, str]]) -> list[Path]:
        paths: list[Path] = []
        for one in fields:
            first = path = self._base(image) / self._fill(one)
            number = 2
            while path in paths:
                if not self.numbered:
                    raise ValueError(
                        f"two of its results would be called {path.name}; add {{size}} to --name"
                    )
                path = first.with_name(f"{first.stem}_{number}{first.suffix}")
                number += 1
            paths.append(path)
        return paths

    def _pattern(self, image: PurePath, folder: str, options: ResizeOptions) -> "NamePattern":
        known = _image_fields(image, folder) | _sample_fields(options) | _option_fields(options)
        exact = _exact_sides(options)
        for side in ("width", "height"):
            known[side] = _UNKNOWN if exact.get(side) is None else str(exact[side])
        if options.format is Format.AUTO:
            known["format"] = known["ext"] = _UNKNOWN
        path = self._base(image) / self._fill(known)
        return NamePattern(path.parent, path.name)

    def _base(self, image: PurePath) -> Path:
        return Path(image.parent) if self.output_folder is None else self.output_folder

    def _fill(self, fields: Mapping[str, str]) -> str:
        return "".join(text + ("" if field is None else fields[field]) for text, field in _parts(self.text))


_UNKNOWN = "\0"  # no file name has it


@dataclass(frozen=True)
class NamePattern:
    """The folder and the name of a result, in which what only the result decides is not known yet."""

    folder: Path
    name: str

    @property
    def is_exact(self) -> bool:
        """Whether everything is known."""
        return _UNKNOWN not in self.name

    @property
    def start(self) -> str:
        """The part of the name before anything that is unknown."""
        return self.name.partition(_UNKNOWN)[0]

    @cached_property
    def expression(self) -> "re.Pattern[str]":
        """Matches the names that the result may get."""
        return re.compile("[0-9a-z]+".join(re.escape(part) for part in self.name.split(_UNKNOWN)))


def _parts(text: str) -> Iterator[tuple[str, str | None]]:
    """The template as pairs: a text, and the field that follows it."""
    return ((text, field) for text, field, _, _ in string.Formatter().parse(text))


def _image_fields(image: PurePath, folder: str) -> dict[str, str]:
    return {"folder": folder, "stem": image.stem, "source_ext": image.suffix.lstrip(".")}


def _option_fields(options: ResizeOptions) -> dict[str, str]:
    """The fields that are known before the result is made."""
    fields = {"size": f"{options.width or ''}x{options.height or ''}"}
    if options.format is not Format.AUTO:
        fields |= {"format": options.format.value, "ext": _ext(options.format, "")}
    return fields


def _result_fields(options: ResizeOptions, result: ResizedImage) -> dict[str, str]:
    return {
        "width": str(result.width),
        "height": str(result.height),
        "format": result.format,
        "ext": _ext(options.format, result.format),
    }


def _sample_fields(options: ResizeOptions) -> dict[str, str]:
    """Fields of any result with these options; those of two options differ only if they always do."""
    return {"width": "1", "height": "1", "format": "auto", "ext": "bin"} | _option_fields(options)


def _ext(asked: Format, made: str) -> str:
    return ending_of(asked, made).lstrip(".")


def _exact_sides(options: ResizeOptions) -> dict[str, int | None]:
    """The sides that the result has whatever the image is."""
    if not options.enlarge:
        return {}
    both = options.width is not None and options.height is not None
    if both and options.fit not in _EXACT_FITS:
        return {}
    return {"width": options.width, "height": options.height}


@lru_cache(8)
def _result_patterns(text: str, options: tuple[ResizeOptions, ...]) -> "tuple[re.Pattern[str], ...]":
    """Expressions for the file names of results, with the options of each."""
    last = text.rpartition("/")[2].removeprefix("{folder}")
    found = []
    for one in options:
        exact = _exact_sides(one)
        known = _option_fields(one)
        known |= {side: str(length) for side, length in exact.items() if length is not None}
        expression, seen = "", set()
        for literal, field in _parts(last):
            expression += re.escape(literal)
            if field is None:
                continue
            if field in known:
                expression += re.escape(known[field])
            elif field in seen:
                expression += f"(?P={field})"
            elif field in {"width", "height"}:
                expression += f"(?P<{field}>[0-9]+)"
            else:
                expression += f"(?P<{field}>{'.+' if field == 'stem' else '[^.]*'})"
            seen.add(field)
        found.append(re.compile(expression))
    return tuple(found)
