"""Which metrics and labels an expression of PromQL uses. Whether it is valid, Prometheus' own parser says."""

import re
from dataclasses import dataclass, field

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\(|\{[^}]*\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"(\d+)"')
_WORDS = {"and", "or", "unless", "offset", "bool", "group_left", "group_right", "by", "without", "on"}


@dataclass(frozen=True, slots=True)
class Used:
    """The ``metrics`` with the values that are asked of their labels, and the labels that results are grouped
    by."""

    metrics: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    grouping: set[str] = field(default_factory=set)


def used_by(expression: str) -> Used:
    """Return what an expression uses."""
    strings = [found.group()[1:-1] for found in _STRING.finditer(expression)]
    numbers = iter(range(len(strings)))
    rest = _STRING.sub(lambda _: f'"{next(numbers)}"', expression)
    used = Used()
    for found in _GROUPING.finditer(rest):
        used.grouping.update(name.strip() for name in found.group(1).split(",") if name.strip())
    rest = _RANGE.sub("", _GROUPING.sub(" ", rest))
    for found in _SELECTOR.finditer(rest):
        name, what = found.groups()
        if what == "(" or name in _WORDS:
            continue
        matchers = {label: strings[int(number)] for label, number in _MATCHER.findall(what or "")}
        used.metrics.append((name, matchers))
    return used
