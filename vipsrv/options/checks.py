"""Checks of values that came as JSON or from a caller.

Each raises ``ValueError`` with a message that starts with the name of the value, and is safe to log. The
``read_…`` functions return the value as it is kept; the ``check_…`` functions return nothing.
"""

import json
import operator
import re
from enum import StrEnum
from typing import Any, TypeVar

from vipsrv.options.bounds import INTEGER_BOUNDS, LIST_LENGTHS, NUMBER_BOUNDS

_Choice = TypeVar("_Choice", bound=StrEnum)


def read_integer(name: str, value: Any) -> int:
    """Return the value of an option that is a whole number and has a line in ``INTEGER_BOUNDS``."""
    number: int = as_int(value)
    check_int(name, number, *INTEGER_BOUNDS[name], optional=False)
    return number


def read_number(name: str, value: Any) -> float:
    """Return the value of an option that is a number and has a line in ``NUMBER_BOUNDS``."""
    return _number(name, value, *NUMBER_BOUNDS[name])


def read_numbers(name: str, value: Any) -> tuple[float, ...]:
    """Return the value of an option that is a list of numbers, as a tuple.

    It has lines in ``LIST_LENGTHS`` and in ``NUMBER_BOUNDS``. Whole numbers stay whole: the wire keeps 1 and
    1.0 apart.
    """
    length = LIST_LENGTHS[name]
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name}: must be a list of {length} numbers, not {shown(value)}")  # noqa: TRY004 - one error type
    if len(value) != length:
        raise ValueError(f"{name}: must be a list of {length} numbers, not of {len(value)}")
    least, most = NUMBER_BOUNDS[name]
    return tuple(_number(name, one, least, most) for one in value)


def read_bool(name: str, value: Any) -> bool:
    """Return the value of an option that is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: must be true or false, not {shown(value)}")  # noqa: TRY004 - one error type
    return value


def read_colour(name: str, value: Any) -> str:
    """Return the value of an option that is a colour."""
    if not isinstance(value, str) or not re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        raise ValueError(f"{name}: must look like #ffffff, not {shown(value)}")
    return value


def read_choice(name: str, kind: type[_Choice], value: Any) -> _Choice:
    """Return the member of ``kind`` that ``value``, a member or a plain text, means."""
    if isinstance(value, str):
        try:
            return kind(value)
        except ValueError:
            pass  # reported below, with the option's name
    raise ValueError(f"{name}: must be one of {', '.join(kind)}, not {shown(value)}")


def as_int(value: Any) -> Any:
    """Convert a whole number of another type, such as ``numpy.int64``; leave other values as they are."""
    if type(value) is int or isinstance(value, bool) or not hasattr(value, "__index__"):
        return value
    return operator.index(value)


def check_int(name: str, value: Any, least: int, most: int, *, optional: bool = True) -> None:
    """Check a whole number; ``None`` passes if it is ``optional``."""
    if value is None and optional:
        return
    if type(value) is not int:
        raise ValueError(f"{name}: must be a whole number, not {shown(value)}")
    if not least <= value <= most:
        raise ValueError(f"{name}: must be from {least} to {most}, not {shown(value)}")


def _number(name: str, value: Any, least: float, most: float) -> float:
    number: float = as_int(value)
    if isinstance(number, float) or (type(number) is not int and _is_number(number)):
        number = float(number)  # a numpy.float32 as well
    if type(number) not in (int, float):
        raise ValueError(f"{name}: must be a number, not {shown(value)}")
    if not least <= number <= most:  # NaN is in no range
        raise ValueError(f"{name}: must be from {least:.12g} to {most:.12g}, not {shown(number)}")
    return number


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and hasattr(value, "__float__")


def shown(value: Any) -> str:
    """Return a value as text for an error message: short, printable, and safe for deeply nested input."""
    if isinstance(value, str):
        return json.dumps(value[:40])
    if isinstance(value, int) and value.bit_length() > 64:  # noqa: PLR2004 - larger than any valid value
        return f"a number of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, dict | list | tuple):
        return "an object" if isinstance(value, dict) else "a list"
    return type(value).__name__


def printable(name: str) -> str:
    """Return a name as text for an error message."""
    return json.dumps(name[:40])[1:-1]
