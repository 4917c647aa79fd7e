"""The option ``--retry-failed [CODE…]``: which failed images of earlier runs are tried again."""

from collections.abc import Sequence

from vipsrv.batch.problems import Problem
from vipsrv.errors import REQUEST_ERRORS

OPTION = "--retry-failed"

ALL = "all"
"""The value of the option if no code follows it."""

CODES = frozenset(error.code for error in REQUEST_ERRORS.values()) | {problem.code for problem in Problem}
"""All codes that the row of a failed image may have."""


def join_codes(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command line with the codes after ``--retry-failed`` as its one value.

    Only words that are codes are taken, so that SOURCE and DESTINATION may follow the option.
    """
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*joined, word, *rest]
        if word != OPTION:
            joined.append(word)
            continue
        codes = []
        while rest and all(code in CODES for code in rest[0].split(",")):
            codes.append(rest.pop(0))
        joined.append(f"{OPTION}={','.join(codes) or ALL}")
    return joined


def parse_codes(text: str) -> frozenset[str]:
    """Return the codes that the option names. Raises ``ValueError``."""
    if text == ALL:
        return CODES
    codes = frozenset(text.split(","))
    if unknown := sorted(codes - CODES):
        raise ValueError(f"{OPTION}: {unknown[0]!r} is no code; the codes are {', '.join(sorted(CODES))}")
    return codes
