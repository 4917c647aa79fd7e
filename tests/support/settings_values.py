"""A valid value for each setting of the server, made from its declaration, so that a new one is covered."""

from collections.abc import Iterator
from enum import Enum
from typing import Any, get_origin

from pydantic import ByteSize, ValidationError

from vipsrv.server.configuration.types import bare_type, choices_of
from vipsrv.server.settings import ServerSettings

_WORDS = ("127.0.0.1:7001", "10.0.0.0/8", "jpeg", "unix", "https://example.com", "logo=/tmp/logo.png")
_TEXTS = ("/tmp/vipsrv-x", "other", "10.1.1.1", "warning", "off")  # noqa: S108 - nothing is written there


def another_value(name: str) -> Any:
    """A valid value of a setting that is not its default, of a type that TOML has."""
    default = getattr(ServerSettings(), name)
    for candidate in _candidates(name, default):
        given: dict[str, Any] = {name: candidate}
        try:
            chosen = getattr(ServerSettings(**given), name)
        except ValidationError as error:
            # A rule between settings may need another setting, too.
            if any(detail["loc"] for detail in error.errors()):
                continue
            return candidate
        if chosen != default:
            return candidate
    raise AssertionError(f"no valid value for {name} is known: add one to {__name__}")


def as_text(value: Any) -> str:
    """A value as a flag or a variable gives it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, list) else str(value)


def as_toml(value: Any) -> str:
    """A value as a TOML file gives it. Numbers, texts without quotes and lists of them look as in JSON."""
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return as_text(value) if isinstance(value, bool | int | float) else f'"{value}"'


def _candidates(name: str, default: Any) -> Iterator[Any]:
    kind = bare_type(ServerSettings.model_fields[name].annotation)
    if kind is bool:
        yield not default
    elif kind in {int, ByteSize}:
        yield from (int(default or 0) + 1, int(default or 0) - 1, 1)
    elif kind is float:
        yield from ((default or 1) + 0.5, 0.5, 1.5)
    elif get_origin(kind) is tuple:
        yield from ([word] for word in _WORDS)
    elif choices := choices_of(kind):
        yield from choices
    elif isinstance(kind, type) and issubclass(kind, Enum):
        yield from (member.value for member in kind)
    else:
        yield from _TEXTS
