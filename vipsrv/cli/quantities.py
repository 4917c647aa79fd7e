"""Times and numbers of bytes as people read them on a terminal."""


def milliseconds(value: float | None) -> str:
    """Return a time with three significant digits."""
    if value is None:
        return "–"
    if value >= 1000:  # noqa: PLR2004 - a second
        return f"{value / 1000:.3g} s"
    return f"{value:.3g} ms"


def size(value: float | None) -> str:
    """Return a number of bytes with its decimal unit."""
    if value is None:
        return "–"
    units = ("B", "kB", "MB", "GB", "TB")
    unit = 0
    while value >= 999.5 and unit < len(units) - 1:  # noqa: PLR2004 - the step of decimal units
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {units[unit]}" if not unit else f"{value:.3g} {units[unit]}"


def duration(seconds: float) -> str:
    """Return a time as days and hours, hours and minutes, minutes, or seconds."""
    minutes, whole = divmod(int(max(0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{whole} s"


def span(seconds: float) -> str:
    """Return a time by its two largest units; less than ten seconds with a tenth."""
    if seconds < 9.95:  # noqa: PLR2004 - it would be shown as 10.0 s
        return f"{max(0.0, seconds):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
