"""The results of ``bench.tools.compare`` as a table, and the targets that vipsrv is to reach."""

from collections.abc import Iterator
from typing import Any

from bench.baselines import PEERS, Original, OwnServer, PipelineLoop

OVER_ORIGINAL = {"jpeg-12mp.jpg": 2.5, "jpeg-1.9mp.jpg": 3.0}
"""Least ratio of requests for each CPU second to those of the original server."""

OF_PIPELINE_LOOP = 0.93
"""Least ratio of the throughput to that of the same pipeline without a server."""

SSIM_STEP = 0.001
"""A difference of SSIM that is not visible; the table has as many digits."""

SIZE_TOLERANCE = 0.03
"""By which share the bytes of a result may be more than a peer's."""

OTHERS = 0.05
"""The share of the cores that others may use without a remark."""

Document = dict[str, Any]
Row = dict[str, Any]


def print_table(document: Document) -> None:
    """Print a row for each image and server, then the versions, the missing servers and the machine."""
    print(
        f"{'image':16}{'server':17}{'requests/s':>11}{'of bare loop':>13}{'CPU ms':>9}{'of bare loop':>13}"
        f"{'client':>8}{'bytes':>9}{'SSIM':>7}{'colour':>8}"
    )
    last = ""
    for row in document["rows"]:
        client, likeness, colour = (
            row[name] for name in ("client_cpu_ms_per_request", "ssim", "colour_difference")
        )
        print(
            f"{row['image'] if row['image'] != last else '':16}{row['server']:17}"
            f"{row['requests_per_second_net']:11.1f}{row['ratio_to_bare_loop']:13.3f}"
            f"{row['cpu_ms_per_request']:9.2f}{row['cpu_ratio_to_bare_loop']:13.3f}"
            f"{'' if client is None else f'{client:.2f}':>8}{row['output_bytes']:9}"
            f"{'' if likeness is None else f'{likeness:.3f}':>7}"
            f"{'' if colour is None else f'{colour:.2f}':>8}"
        )
        last = row["image"]
    settings = document["settings"]
    print(
        f"\nMedians of {settings['rounds']} rounds of {settings['seconds']:g} s a turn; "
        f"{settings['connections']} connections; "
        f"servers on cores {settings['server_cores']}, clients on {settings['client_cores']}."
    )
    others = max(row["others_share"] for row in document["rows"])
    if others > OTHERS:
        print(
            f"Others used up to {others:.0%} of the servers' cores: requests/s mean little here; "
            "CPU ms are the servers' own."
        )
    for server, version in document["versions"].items():
        print(f"{server}: {version}")
    for server, reason in document["missing"].items():
        print(f"{server} is missing: {reason}")
    machine = document["machine"]
    print(
        f"On {machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, Python {machine['python']}; "
        f"commit {document['commit'] or 'unknown'}"
    )


def print_verdicts(document: Document) -> None:
    """Print a line for each target that was measured."""
    print()
    for met, line in verdicts(document):
        print(f"{'met   ' if met else 'NOT MET'} {line}")


def verdicts(document: Document) -> Iterator[tuple[bool, str]]:
    """Check each target: yield whether it is met, and a line with the numbers."""
    images: dict[str, dict[str, Row]] = {}
    for row in document["rows"]:
        images.setdefault(row["image"], {})[row["server"]] = row
    for image, rows in images.items():
        own = rows.pop(OwnServer.name, None)
        if own is None:
            continue
        if Original.name in rows and image in OVER_ORIGINAL:
            faster = rows[Original.name]["cpu_ms_per_request"] / own["cpu_ms_per_request"]
            least = OVER_ORIGINAL[image]
            yield faster >= least, f"{image}: {faster:.2f} times the original per core; at least {least}"
        if PipelineLoop.name in rows:
            share = own["ratio_to_bare_loop"] / rows[PipelineLoop.name]["ratio_to_bare_loop"]
            yield (
                share >= OF_PIPELINE_LOOP,
                f"{image}: {share:.3f} of its pipeline's throughput in a loop; at least {OF_PIPELINE_LOOP}",
            )
        for peer in PEERS:
            if peer.name in rows:
                yield _ahead(own, rows[peer.name])


def _ahead(own: Row, peer: Row) -> tuple[bool, str]:
    """Whether vipsrv is faster in throughput and per core, as good, and not larger than the tolerance."""
    throughput = own["requests_per_second_net"] / peer["requests_per_second_net"]
    per_core = peer["cpu_ms_per_request"] / own["cpu_ms_per_request"]
    likeness = own["ssim"] - peer["ssim"]
    larger = own["output_bytes"] / peer["output_bytes"] - 1
    met = min(throughput, per_core) > 1 and likeness >= -SSIM_STEP and larger <= SIZE_TOLERANCE
    return met, (
        f"{own['image']}: {throughput:.2f} times {peer['server']}'s throughput, {per_core:.2f} per core, "
        f"SSIM {likeness:+.4f}, bytes {larger:+.1%}"
    )
