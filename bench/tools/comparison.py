"""The results of ``bench.tools.compare`` as tables in Markdown, aligned for a terminal, too."""

from collections.abc import Iterator, Sequence
from typing import Any

from bench.baselines import PEERS

OTHERS = 0.05
"""The share of the cores that others may use without a remark."""

OWN = "vipsrv"

Document = dict[str, Any]
Row = dict[str, Any]

_HEAD = (
    "server",
    "image by",
    "requests/s",
    "of vipsrv",
    "CPU ms",
    "of bare loop",
    "client ms",
    "p50 ms",
    "p99 ms",
    "bytes",
    "SSIM",
    "colour",
    "Huffman",
    "shrink",
    "wrong",
)
_WORDS = 2
"""So many columns at the left have words, and the others have numbers."""


def print_tables(document: Document) -> None:
    """Print ``tables``."""
    print(tables(document))


def tables(document: Document) -> str:
    """Render a table of throughput by case and server, one of each case, and notes on the run."""
    parts = [*_summary(document)]
    for name, rows in by_case(document).items():
        first = rows[0]
        form = first["format"].upper() if first["format"] == "avif" else first["format"]
        parts += [
            f"## {name} to {form} of {first['width']} × {first['height']}",
            table(_HEAD, map(_cells, rows)),
        ]
    return "\n\n".join([*parts, "\n".join(_notes(document))]) + "\n"


def by_case(document: Document) -> dict[str, list[Row]]:
    """The rows of each case, in the order of the run."""
    found: dict[str, list[Row]] = {}
    for row in document["rows"]:
        found.setdefault(row["image"], []).append(row)
    return found


def _summary(document: Document) -> Iterator[str]:
    """Requests a second of vipsrv and its peers, vipsrv's = 1, if it was run."""
    servers = [one.name for one in PEERS if any(row["server"] == one.name for row in document["rows"])]
    lines = []
    for name, rows in by_case(document).items():
        ratios = {row["server"]: row["ratio_to_vipsrv"] for row in rows}
        if ratios.get(OWN) is not None:
            wrong = {row["server"] for row in rows if row["wrong"]}
            cells = [
                "–" if one not in ratios else f"{ratios[one]:.2f}{' (wrong)' if one in wrong else ''}"
                for one in servers
            ]
            lines.append([name, *cells])
    if lines and servers:
        yield "## Requests a second, vipsrv = 1"
        yield table(["case", *servers], lines, words=1)


def _cells(row: Row) -> list[str]:
    return [
        row["server"],
        row["source"],
        f"{row['requests_per_second_net']:.1f}",
        _number(row["ratio_to_vipsrv"], 2),
        f"{row['cpu_ms_per_request']:.2f}",
        f"{row['cpu_ratio_to_bare_loop']:.2f}",
        _number(row["client_cpu_ms_per_request"], 2),
        f"{row['p50_ms']:.1f}",
        f"{row['p99_ms']:.1f}",
        str(row["output_bytes"]),
        _number(row["ssim"], 4),
        _number(row["colour_difference"], 2),
        row["huffman"] or "",
        f"1/{row['shrink_factor']}" if row["shrink_factor"] else "",
        str(row["wrong"]) if row["wrong"] else "",
    ]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def table(head: Sequence[str], rows: Any, *, words: int = _WORDS) -> str:
    """Render a table whose first ``words`` columns have words, and the others numbers."""
    lines = [list(head), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def text(line: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if column < words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = ["-" * width if column < words else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([text(lines[0]), text(rule), *map(text, lines[1:])])


def _notes(document: Document) -> Iterator[str]:
    settings, machine = document["settings"], document["machine"]
    yield (
        f"Medians of {settings['rounds']} rounds of {settings['seconds']:.2g} s a turn; "
        f"{settings['connections']} connections, kept, with one request at a time each; "
        f"servers on cores {settings['server_cores']}, clients on {settings['client_cores']}. "
        "requests/s: as if the clients took no time of the servers' cores. CPU: user and system time of all "
        "processes of a server. SSIM and colour: to a full decode with Lanczos. "
        "shrink: by how much the decoder reduced a JPEG."
    )
    yield ""
    others = max((row["others_share"] for row in document["rows"]), default=0.0)
    if others > OTHERS:
        yield (
            f"- Others used up to {others:.0%} of the servers' cores: requests/s mean little here; "
            "CPU ms are the servers' own."
        )
    for row in document["rows"]:
        if row["wrong"]:
            yield f"- {row['server']}, {row['image']}: {row['wrong']} wrong results: {row['problem']}"
    for server, version in document["versions"].items():
        yield f"- {server}: {version}"
    for server, reason in document["missing"].items():
        yield f"- {server} is missing: {reason}"
    for name, reason in document["missing_cases"].items():
        yield f"- {name} is left out: {reason}"
    yield (
        f"- On {machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, Python {machine['python']}; "
        f"commit {document['commit'] or 'unknown'}"
    )
