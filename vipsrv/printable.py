"""Make control characters in text of unknown origin visible, so that a terminal or a log only shows them.

Escape sequences change the colours, the title or the clipboard of a terminal, line breaks forge lines of a
log, and bidirectional overrides show text in another order than it has. A string that came over the wire
passes through here where it is parsed; a file name passes through here where it is shown.
"""

from typing import Any

_BYTE_SURROGATES = range(0xDC80, 0xDD00)
"""Code points by which Python represents bytes of a file name that are not UTF-8 (PEP 383)."""


def printable(text: str) -> str:
    r"""Replace each unprintable character by its escape: ESC by ``\x1b``, a bidi override by ``\u202e``.

    Unprintable is what ``str.isprintable`` says: control and format characters, line and paragraph
    separators, spaces other than U+0020, surrogates, private and unassigned characters. A byte of a file name
    that is not UTF-8, which Python holds as a surrogate, becomes ``\xff``.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escape(one) for one in text)


def printable_json(value: Any, max_depth: int) -> Any:
    """Apply ``printable`` to every string in a JSON value, names included.

    Raises ``ValueError`` for a value that nests more than ``max_depth`` lists and objects.
    """
    # Most strings need no change, so that a call for each of them would take half of the time.
    if isinstance(value, str):
        return value if value.isprintable() else printable(value)
    if not isinstance(value, (dict, list)):
        return value
    if not max_depth:
        raise ValueError("too many lists and objects within each other")
    left = max_depth - 1
    if isinstance(value, list):
        return [printable_json(one, left) for one in value]
    return {
        name if name.isprintable() else printable(name): printable_json(one, left)
        for name, one in value.items()
    }


def _escape(character: str) -> str:
    if ord(character) in _BYTE_SURROGATES:
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
