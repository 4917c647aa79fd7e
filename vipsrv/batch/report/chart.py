"""A histogram as SVG, with colours of the page's style sheet and a table of the same numbers."""

import math
from collections.abc import Callable, Sequence
from html import escape

from vipsrv.batch.report.histogram import PER_DECADE, Histogram

_WIDTH, _HEIGHT = 520, 200
"""Units of the drawing; the page gives it the width that there is."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 16, 12, 32
"""Margins, for the labels of the axes."""

_MOST_BARS = 48
_GAP = 1.5
_TICKS = 4
_LABEL_ROOM = 64
"""Units that a label of the horizontal axis takes."""

_DIGITS = ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))
"""How round values start, the most of them first."""


def chart(histogram: Histogram, *, title: str, label: Callable[[float], str], what: str) -> str:
    """Return a figure of HTML: the distribution of ``what``, whose values ``label`` writes."""
    classes = _classes(histogram)
    if not classes:
        return ""
    name = escape(title)
    quantiles = [(share, histogram.quantile(share)) for share in (0.05, 0.5, 0.95)]
    told = ", ".join(
        f"{text} {label(value)}"
        for text, (_, value) in zip(("5 % are below", "half below", "95 % below"), quantiles, strict=True)
    )
    rows = "".join(
        f"<tr><td>{escape(label(low))} – {escape(label(high))}</td><td>{count:,}</td></tr>"
        for low, high, count in classes
        if count
    )
    return (
        f"<figure><figcaption><b>{name}</b><span>{escape(told)}</span></figcaption>"
        f"{_svg(classes, quantiles[1][1], label, f'{title}: {told}')}"
        f"<details><summary>The numbers</summary><table><thead><tr><th>{escape(what)}</th><th>images</th>"
        f"</tr></thead><tbody>{rows}</tbody></table></details></figure>"
    )


def _classes(histogram: Histogram) -> list[tuple[float, float, int]]:
    """Return classes as narrow as the drawing has room for."""
    for per_decade in (PER_DECADE, 100, 40, 20, 10, 5, 2):
        classes = histogram.classes(per_decade)
        if len(classes) <= _MOST_BARS:
            return classes
    return histogram.classes(1)


def _svg(
    classes: Sequence[tuple[float, float, int]], median: float, label: Callable[[float], str], told: str
) -> str:
    low, high = math.log10(classes[0][0]), math.log10(classes[-1][1])
    inner, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    step = _nice_step(max(count for _, _, count in classes))
    top = step * math.ceil(max(count for _, _, count in classes) / step)

    def x(value: float) -> float:
        return _LEFT + inner * (math.log10(value) - low) / (high - low)

    def y(count: float) -> float:
        return _TOP + height * (1 - count / top)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(told)}">',
        *(
            f'<path class="grid" d="M{_LEFT} {y(count):.1f}H{_WIDTH - _RIGHT}"/>'
            f'<text x="{_LEFT - 6}" y="{y(count) + 4:.1f}" text-anchor="end">{_short(count)}</text>'
            for count in range(0, top + 1, step)
        ),
    ]
    for one, other, count in classes:
        if count:
            left, right, upper = x(one) + _GAP / 2, x(other) - _GAP / 2, min(y(count), _TOP + height - 1)
            parts.append(
                f'<rect class="bar" x="{left:.1f}" y="{upper:.1f}" width="{right - left:.1f}" '
                f'height="{_TOP + height - upper:.1f}"><title>{escape(label(one))} – {escape(label(other))}: '
                f"{count:,}</title></rect>"
            )
    parts.append(f'<path class="median" d="M{x(median):.1f} {_TOP}V{_TOP + height}"/>')
    parts += (
        f'<path class="grid" d="M{x(value):.1f} {_TOP + height}v5"/>'
        f'<text x="{x(value):.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{escape(label(value))}</text>'
        for value in _ticks(low, high)
    )
    return "".join([*parts, "</svg>"])


def _ticks(low: float, high: float) -> list[float]:
    """Return the round values of an axis of logarithms that have room for their labels."""
    room = (_WIDTH - _LEFT - _RIGHT) // _LABEL_ROOM
    choices = [_round_values(low, high, digits) for digits in _DIGITS]
    values = next((one for one in choices if len(one) <= room), choices[-1])
    return values[:: max(1, math.ceil(len(values) / room))] or [10**low, 10**high]


def _round_values(low: float, high: float, digits: Sequence[float]) -> list[float]:
    """Return the values between two powers of ten that start with one of the digits."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    values = [digit * 10.0**power for power in powers for digit in digits]
    return [one for one in values if low <= math.log10(one) <= high]


def _nice_step(most: int) -> int:
    """Return a step of the vertical axis: 1, 2 or 5 times a power of ten."""
    rough = max(1, most / _TICKS)
    power = int(10 ** math.floor(math.log10(rough)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough)


def _short(count: int) -> str:
    for unit, name in ((10**6, "M"), (10**3, "k")):
        if count >= 10 * unit or (count >= unit and count % (unit // 10) == 0):
            return f"{count / unit:g}{name}"
    return f"{count:,}"
