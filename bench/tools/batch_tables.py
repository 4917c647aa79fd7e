"""The results of ``bench.tools.batch_compare`` as tables in Markdown, and the targets of vipsrv batch."""

from collections.abc import Iterator
from typing import Any

from bench.tools.comparison import OTHERS, table

OWN = "vipsrv-batch"

Document = dict[str, Any]
Row = dict[str, Any]

_HEAD = (
    "program",
    "images/s",
    "vipsrv ×",
    "each: images/s",
    "vipsrv ×",
    "CPU ms",
    "vipsrv ×",
    "each: CPU ms",
    "vipsrv ×",
    "start s",
    "peak MB",
    "SSIM",
    "MB",
    "wrong",
)

SPEEDS = ("images_per_second", "images_per_second_each", "cpu_ms", "cpu_ms_each")
"""The figures that are compared. Two are better if higher, and two if lower."""

TARGETS = {"vipsthumbnail": 1.0, "mogrify": 1.0, "pillow": 1.0, "img2dataset": 2.0}
"""How many times as fast as each peer, with its best settings, vipsrv batch has to be. Peers by the start of
their programs' names."""

CROWDED = 0.2
"""The share of the cores that others may use for times by the clock to be judged."""

_DOWNLOADED = "img2dataset"


def ratio(speed: str, own: float | None, other: float | None) -> float | None:
    """How many times as fast as the other one vipsrv is, by one figure; ``None`` if one is not known."""
    if own is None or other is None:
        return None
    return own / other if speed.startswith("images") else other / own


def tables(document: Document) -> str:
    """Render a table for each case, and notes on the run."""
    parts = []
    for case in dict.fromkeys(row["case"] for row in document["rows"]):
        rows = [row for row in document["rows"] if row["case"] == case]
        first = rows[0]
        parts += [
            f"## {case}: {first['files']} files, {first['input_mb']:.0f} MB, to {first['width']} pixels wide",
            table(_HEAD, map(_cells, rows), words=1),
        ]
    return "\n\n".join([*parts, "\n".join(_notes(document))]) + "\n"


def verdicts(document: Document) -> Iterator[tuple[bool, str]]:
    """Check each target in each case: yield whether it is met, and a line with the numbers."""
    for case in dict.fromkeys(row["case"] for row in document["rows"]):
        rows = [row for row in document["rows"] if row["case"] == case]
        own = next((row for row in rows if row["program"] == OWN), None)
        if own is None:
            continue
        if own["wrong"]:
            yield False, f"{case}: {own['wrong']} wrong results: {own['problem']}"
            continue
        for peer, least in TARGETS.items():
            able = [row for row in rows if row["program"].startswith(peer) and not row["wrong"]]
            if not able:
                continue
            # The best settings may be different ones by the clock and by CPU time.
            times = {
                words: min((row["ratios"][speed] for row in able if row["ratios"][speed]), default=None)
                for speed, words in zip(SPEEDS, _WORDS, strict=True)
            }
            crowded = max(row["others_share"] for row in [own, *able]) > CROWDED
            judged = [
                value
                for words, value in times.items()
                if value is not None and not (crowded and words.startswith(_CLOCK))
            ]
            told = ", ".join(f"{words} {_number(value, 2)}" for words, value in times.items())
            note = "; the clock is not judged, as others used the cores" if crowded else ""
            yield min(judged) >= least, f"{case}: {peer}, at least {least:g} ×: {told}{note}"


_CLOCK = "by the clock"
_WORDS = (_CLOCK, f"{_CLOCK} without the start", "by CPU", "by CPU without the start")


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _cells(row: Row) -> list[str]:
    ratios = row["ratios"]
    cells = [row["program"]]
    for speed, digits in zip(SPEEDS, (1, 1, 2, 2), strict=True):
        cells += [_number(row[speed], digits), "" if ratios is None else _number(ratios[speed], 2)]
    return [
        *cells,
        f"{row['start_seconds']:.2f}",
        f"{row['peak_mb']:.0f}",
        _number(row["ssim"], 4),
        _number(row["output_mb"], 1),
        str(row["wrong"]) if row["wrong"] else "",
    ]


def _notes(document: Document) -> Iterator[str]:
    settings, machine = document["settings"], document["machine"]
    yield (
        f"Medians of {settings['rounds']} rounds, in turns, on cores {settings['cores']}. vipsrv ×: how many "
        "times as fast vipsrv batch is. each: a further image, without the start of the program. CPU: of all "
        "processes of a program. MB: of all results. SSIM: to a full decode with Lanczos."
    )
    yield ""
    others = max((row["others_share"] for row in document["rows"]), default=0.0)
    if others > OTHERS:
        yield f"- Others used up to {others:.0%} of the cores: images/s mean little here; CPU ms are its own."
    for row in document["rows"]:
        if row["wrong"]:
            yield f"- {row['program']}, {row['case']}: {row['wrong']} wrong results: {row['problem']}"
        if row["program"].startswith(_DOWNLOADED):
            yield (
                f"- {row['program']}, {row['case']}: the server that it downloads from took "
                f"{row['server_cpu_ms']:.2f} ms of CPU an image, which is not counted"
            )
    for program, version in document["versions"].items():
        yield f"- {program}: {document['what'][program]}: {version}"
    for program, reason in document["missing"].items():
        yield f"- {program} is not measured: {reason}"
    yield (
        f"- On {machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, Python {machine['python']}; "
        f"commit {document['commit'] or 'unknown'}"
    )
