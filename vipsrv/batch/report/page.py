"""The report of a destination as one page of HTML that needs nothing else.

Every text from outside (keys of images, messages, URLs) is escaped, and the page allows no script at all.
"""

import json
import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from vipsrv.batch.report.chart import chart
from vipsrv.batch.report.figures import FAILURES_OF_A_CODE, Figures, OptionsFigures
from vipsrv.batch.report.status import Status, next_steps, runs_of
from vipsrv.batch.report.texts import (
    count_text,
    duration_text,
    ms_text,
    share_text,
    size_text,
    time_text,
)
from vipsrv.batch.rows import Row
from vipsrv.printable import printable
from vipsrv.version import __version__

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_RUNS_LISTED = 100
_OPTIONS_LISTED = 50
_KEY_LISTED = 500
"""Characters of a key or a message; a store may allow kilobytes of them."""


def report_page(status: Status) -> str:
    """Return the page."""
    figures = status.figures
    style = Path(__file__).with_name("page.css").read_text()
    sections = (
        *_tiles(status),
        *_notes(status),
        *_codes(figures),
        *_charts(figures),
        *_formats(figures),
        *_runs(status),
        *_options(figures),
        *_slowest(figures),
        *_failures(figures),
    )
    place, now = _safe(status.url), time_text(time.time_ns() // 1_000_000)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>Batch report: {place}</title><style>{style}</style></head><body>"
        f"<header><p class='muted'>vipsrv batch report</p><h1>{place}</h1>"
        f"<p class='muted'>{now}, vipsrv {_safe(__version__)}</p></header>"
        f"<main>{''.join(sections)}</main></body></html>\n"
    )


def _safe(text: str) -> str:
    """Return text from outside for any place in the page: no markup, and no invisible characters."""
    text = printable(text)
    return escape(text if len(text) <= _KEY_LISTED else text[:_KEY_LISTED] + "…")


def _tiles(status: Status) -> Iterator[str]:
    figures = status.figures
    yield "<dl class='tiles'>"
    yield _tile("Images done", f"{figures.done:,}", count_text(figures.results, "result"))
    failed = figures.failures_count
    share = share_text(failed / (failed + figures.done)) if failed else "none"
    yield _tile("Images failed", f"{failed:,}", share, bad=failed > 0)
    if figures.ratio is not None:
        yield _tile("Bytes before", size_text(figures.bytes_in), "of the images that are done")
        yield _tile("Bytes after", size_text(figures.bytes_out), f"{share_text(1 / figures.ratio)} of before")
    if figures.ms.total:
        yield _tile(
            "Time of an image",
            ms_text(figures.ms.quantile(0.5)),
            f"half take less; 99 % take less than {ms_text(figures.ms.quantile(0.99))}",
        )
    yield "</dl>"


def _tile(name: str, value: str, more: str, *, bad: bool = False) -> str:
    kind = " class='bad'" if bad else ""
    return f"<div{kind}><dt>{name}</dt><dd>{escape(value)}</dd><dd>{escape(more)}</dd></div>"


def _notes(status: Status) -> Iterator[str]:
    notes = []
    if status.running is not None:
        notes.append(f"Run {status.running.run} is at work on this destination.")
    if status.unpublished.rows:
        notes.append(
            f"{count_text(status.unpublished.rows, 'row')} of unfinished shards are not counted here."
        )
    notes += status.unpublished.faults
    notes += next_steps(status)
    if not status.figures.parts:
        notes.insert(0, "No image was done for this destination yet.")
    if notes:
        items = "".join(f"<li>{_safe(note)}</li>" for note in notes)
        yield f"<section><h2>What to know</h2><ul>{items}</ul></section>"


def _codes(figures: Figures) -> Iterator[str]:
    total = figures.done + figures.failures_count
    if not total:
        return
    rows = [(200, "ok", figures.done)] if figures.done else []
    rows += [(status, code, count) for (status, code), count in figures.failed.most_common()]
    yield _table(
        "What became of the images",
        ("Status", "Code", "n:Images", "n:Share", ""),
        (
            (
                str(status),
                _safe(code),
                f"{count:,}",
                share_text(count / total),
                f"<i{' class=ok' if code == 'ok' else ''} style='width:{100 * count / total:.2f}%'></i>",
            )
            for status, code, count in rows
        ),
        classes=("", "", "n", "n", "share"),
    )


def _charts(figures: Figures) -> Iterator[str]:
    charts = [
        chart(
            figures.ratios,
            title="Bytes of the results per byte of the image",
            label=share_text,
            what="bytes per byte",
        ),
        chart(figures.ms, title="Time of an image, from reading to storing", label=ms_text, what="time"),
    ]
    if any(charts):
        yield (
            f"<section><h2>Distributions</h2><div class='charts'>{''.join(charts)}</div>"
            "<p class='muted'>The classes grow with the values. The dashed line is the median.</p>"
            "</section>"
        )


def _formats(figures: Figures) -> Iterator[str]:
    if figures.formats:
        ordered = sorted(figures.formats.items(), key=lambda one: -one[1].bytes)
        yield _table(
            "Results by format",
            ("Format", "n:Results", "n:Bytes", "n:Bytes of one", "n:Bits a pixel"),
            (
                (
                    _safe(name),
                    f"{one.results:,}",
                    size_text(one.bytes),
                    size_text(one.bytes / one.results),
                    f"{8 * one.bytes / one.pixels:.2f}" if one.pixels else "",
                )
                for name, one in ordered
            ),
            classes=("", "n", "n", "n", "n"),
        )


def _runs(status: Status) -> Iterator[str]:
    runs = runs_of(status)
    if runs:
        more = len(runs) - _RUNS_LISTED
        yield _table(
            "Runs",
            ("Start", "Source", "n:Images", "n:Failed", "n:Took", "n:Images/s", "End"),
            (
                (
                    time_text(one.started) if one.started else _safe(one.run),
                    _safe(one.source),
                    f"{one.done + one.failed:,}",
                    f"{one.failed:,}",
                    duration_text(one.seconds),
                    "" if one.rate is None else f"{one.rate:,.1f}",
                    _safe(one.end + (f": {one.reason}" if one.reason else "")),
                )
                for one in runs[-_RUNS_LISTED:]
            ),
            classes=("date", "key", "n", "n", "n", "n", "why"),
            note="Images whose row a later run has replaced count for that one."
            + (f" {count_text(more, 'earlier run')} not listed." if more > 0 else ""),
        )


def _options(figures: Figures) -> Iterator[str]:
    if figures.options:
        yield _table(
            "Options",
            ("Digest", "What is made", "n:Done", "n:Failed"),
            (
                (f"<code>{_safe(digest)}</code>", _made(one), f"{one.done:,}", f"{one.failed:,}")
                for digest, one in sorted(figures.options.items())[:_OPTIONS_LISTED]
            ),
            classes=("date", "why", "n", "n"),
        )


def _made(options: OptionsFigures) -> str:
    try:
        values = json.loads(options.facts.outputs)
        lines = [" ".join(f"{name}={value}" for name, value in one.items()) for one in values["options"]]
        return "<br>".join([f"<code>{_safe(str(values['name']))}</code>", *map(_safe, lines)])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _safe(options.facts.outputs)


def _slowest(figures: Figures) -> Iterator[str]:
    if figures.slowest:
        yield _table(
            "Slowest images",
            ("Image", "n:Bytes", "n:Time", "n:Requests", "Code"),
            (
                (_safe(one.key), size_text(one.bytes), ms_text(one.ms), str(one.attempts), _safe(one.code))
                for one in figures.slowest
            ),
            classes=("key", "n", "n", "n", ""),
        )


def _failures(figures: Figures) -> Iterator[str]:
    if not figures.failed:
        return
    counts: dict[str, int] = {}
    for (_, code), count in figures.failed.items():
        counts[code] = counts.get(code, 0) + count
    parts = ["<section><h2>Failures</h2>"]
    for code, count in sorted(counts.items(), key=lambda one: -one[1]):
        rows = figures.failures.get(code, [])
        if not rows:
            continue
        more = f", {len(rows)} of them listed" if count > len(rows) else ""
        parts.append(
            f"<details{' open' if len(counts) == 1 or count <= _OPEN else ''}><summary><b>{_safe(code)}</b>: "
            f"{count_text(count, 'image')}{more}</summary>{_failure_table(rows)}</details>"
        )
    if any(count > FAILURES_OF_A_CODE for count in counts.values()):
        parts.append(
            "<p class='muted'>All of them: <code>vipsrv batch report DEST --failures FILE</code></p>"
        )
    yield "".join([*parts, "</section>"])


_OPEN = 10
"""A list of so many failures is open at first."""


def _failure_table(rows: Sequence[Row]) -> str:
    return _plain_table(
        ("Image", "Status", "Reason"),
        ((_safe(one.key), str(one.status), _safe(one.message)) for one in rows),
        ("key", "", "why"),
    )


def _table(
    title: str,
    heads: Sequence[str],
    rows: Iterator[tuple[str, ...]],
    *,
    classes: Sequence[str],
    note: str = "",
) -> str:
    told = f"<p class='muted'>{escape(note)}</p>" if note else ""
    return f"<section><h2>{title}</h2>{_plain_table(heads, rows, classes)}{told}</section>"


def _plain_table(heads: Sequence[str], rows: Iterator[tuple[str, ...]], classes: Sequence[str]) -> str:
    """Return a table; its cells are HTML already. A head that starts with ``n:`` is above numbers."""
    head = "".join(
        f"<th scope='col'{' class=n' if one.startswith('n:') else ''}>{one.removeprefix('n:')}</th>"
        if one
        else "<td></td>"
        for one in heads
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td class='{kind}'>{cell}</td>" for kind, cell in zip(classes, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f"<div class='scroll' tabindex='0'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        "</div>"
    )
