"""Charts of the results by format: how much smaller than the source, and how similar to the reference."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.report import style
from bench.report.inputs import Comparison, Suite
from bench.report.throughput import NAMES, OWN, three_digits

_ROW_INCHES = 0.3
_SERVER_INCHES = 0.07
_LEGEND_COLUMNS = 4

_CASE = re.compile(r"\[(?P<image>.+)-\d+x\d+\]$")


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one image; ``ratio`` is the image's bytes over the result's."""

    image: str
    server: str
    ratio: float
    ssim: float

    @property
    def format(self) -> str:
        """The image's format, by the file's ending."""
        ending = self.image.rpartition(".")[2].lower()
        return {"jpg": "jpeg", "tif": "tiff"}.get(ending, ending)


def of_comparison(comparison: Comparison) -> list[Result]:
    """The results of all servers in a comparison that made one."""
    return [
        Result(row.image, row.server, row.input_bytes / row.output_bytes, row.ssim)
        for row in comparison.rows
        if row.ssim is not None and row.input_bytes
    ]


def of_suite(suite: Suite) -> list[Result]:
    """The results in a suite: of rows with both metrics whose case is ``NAME-WIDTHxHEIGHT``."""
    results: dict[str, Result] = {}
    for row in suite.benchmarks:
        ratio, ssim = row.metric("compression_ratio"), row.metric("ssim")
        case = _CASE.search(row.name)
        if ratio is not None and ssim is not None and case:
            results.setdefault(case["image"], Result(case["image"], OWN, ratio, ssim))
    return list(results.values())


def chart(results: Sequence[Result]) -> Figure:
    """Draw a row for each image, grouped by format, with a mark for each server."""
    images = sorted({(result.format, result.image) for result in results})
    servers = _servers(results)
    legend = -(-len(servers) // _LEGEND_COLUMNS) * 0.22 if len(servers) > 1 else 0.0
    height = len(images) * (_ROW_INCHES + len(servers) * _SERVER_INCHES) + 1.75 + legend
    figure = Figure(figsize=(10.0, height))
    ratio, ssim = figure.subplots(1, 2, sharey=True)
    figure.subplots_adjust(
        left=0.17, right=0.97, top=1 - 1.05 / height, bottom=(0.7 + legend) / height, wspace=0.09
    )
    looks = {server: style.look(number) for number, server in enumerate(servers)}
    for place, (_, image) in enumerate(reversed(images)):
        of_image = [result for result in results if result.image == image]
        for result in sorted(of_image, key=lambda result: result.server == OWN):
            colour, marker = looks[result.server]
            spread = (servers.index(result.server) - (len(servers) - 1) / 2) * 0.75 / len(servers)
            size = 7 if result.server == OWN else 5
            for axes, value in ((ratio, result.ratio), (ssim, result.ssim)):
                axes.plot(value, place - spread, marker, color=colour, markersize=size)
            if result.server == OWN:
                for axes, text in ((ratio, three_digits(result.ratio)), (ssim, f"{result.ssim:.3f}")):
                    axes.annotate(
                        text,
                        (result.ratio if axes is ratio else result.ssim, place - spread),
                        xytext=(7, 0),
                        textcoords="offset points",
                        va="center",
                        color=style.BLUE,
                        weight="bold",
                        fontsize=9,
                    )
    ratio.set_yticks(range(len(images)), [image for _, image in reversed(images)])
    ratio.set_ylim(-0.6, len(images) - 0.4)
    ratio.set_xscale("log")
    ratio.set_xlim(min(one.ratio for one in results) / 1.2, max(one.ratio for one in results) * 1.6)
    ratio.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ratio.set_xlabel("bytes sent over bytes returned, logarithmic")
    ratio.set_title("Compression ratio")
    least, most = min(one.ssim for one in results), max(one.ssim for one in results)
    ssim.set_xlim(least - (most - least) * 0.1 - 1e-3, most + (most - least) * 0.2 + 2e-3)
    ssim.set_xlabel("SSIM")
    ssim.set_title("Likeness to a full decode and Lanczos")
    for axes in (ratio, ssim):
        axes.spines.left.set_visible(False)
        style.grid(axes, "x")
        for place in range(1, len(images)):
            if images[-place][0] != images[-place - 1][0]:  # another format
                axes.axhline(place - 0.5, color=style.GREY, linewidth=0.8)
    handles = [
        Line2D([], [], linestyle="", color=looks[one][0], marker=looks[one][1], label=NAMES.get(one, one))
        for one in servers
    ]
    if len(servers) > 1:
        figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0.0), ncols=_LEGEND_COLUMNS)
    style.headline(figure, "Compression and similarity by format", "Higher is better in both.")
    return figure


def _servers(results: Iterable[Result]) -> list[str]:
    names = list(dict.fromkeys(result.server for result in results))
    return sorted(names, key=lambda name: name != OWN)
