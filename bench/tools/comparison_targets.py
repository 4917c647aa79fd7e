"""The targets that vipsrv is to reach in ``bench.tools.compare``, against its baselines and its best peer."""

from collections.abc import Iterator

from bench.baselines import PEERS, Original, OwnServer, PipelineLoop
from bench.tools.comparison import Document, Row, by_case

OVER_ORIGINAL = {"12 MP": 2.5, "1600 × 1200": 3.0}
"""Least ratio of requests for each CPU second to those of the original server."""

OF_PIPELINE_LOOP = 0.93
"""Least ratio of the throughput to that of the same pipeline without a server."""

OVER_BEST_PEER = {
    "12 MP": 1.12,
    "photo, Galaxy 12 MP": 1.12,
    "photo, Canon 13 MP": 1.12,
    "12 MP progressive": 1.05,
    "6 MP WebP": 1.1,
    "6 MP": 1.25,
    "1600 × 1200": 1.25,
    "640 × 480": 1.25,
}
"""Least ratio of requests a second to those of the best peer; for any other case it is 1."""

SSIM_STEP = 0.001
"""A difference of SSIM that is not visible."""

SIZE_TOLERANCE = 0.03
"""By which share the bytes of a result may be more than a peer's, where a target is for equal bytes."""

EQUAL_RESULTS = {"3 MP PNG", "6 MP to WebP", "6 MP to AVIF"}
"""The cases whose target is for equal results: a peer whose results look worse or are larger is left out."""


def print_verdicts(document: Document) -> None:
    """Print a line for each target that was measured."""
    print()
    for met, line in verdicts(document):
        print(f"{'met   ' if met else 'NOT MET'} {line}")


def verdicts(document: Document) -> Iterator[tuple[bool, str]]:
    """Check each target: yield whether it is met, and a line with the numbers."""
    for name, found in by_case(document).items():
        rows = {row["server"]: row for row in found}
        own = rows.get(OwnServer.name)
        if own is None:
            continue
        if own["wrong"]:
            yield False, f"{name}: {own['wrong']} wrong results: {own['problem']}"
            continue
        if Original.name in rows and name in OVER_ORIGINAL:
            faster = rows[Original.name]["cpu_ms_per_request"] / own["cpu_ms_per_request"]
            least = OVER_ORIGINAL[name]
            yield faster >= least, f"{name}: {faster:.2f} times the original per core; at least {least}"
        if PipelineLoop.name in rows:
            share = own["ratio_to_bare_loop"] / rows[PipelineLoop.name]["ratio_to_bare_loop"]
            yield (
                share >= OF_PIPELINE_LOOP,
                f"{name}: {share:.3f} of its pipeline's throughput in a loop; at least {OF_PIPELINE_LOOP}",
            )
        peers = [rows[peer.name] for peer in PEERS if peer.name in rows and not rows[peer.name]["wrong"]]
        if name in EQUAL_RESULTS:
            peers = [peer for peer in peers if not _lesser(peer, own)]
        if peers:
            yield _over_best(own, peers, OVER_BEST_PEER.get(name, 1.0))


def _lesser(peer: Row, own: Row) -> bool:
    """Whether a peer's result looks worse than vipsrv's, or is larger than the tolerance."""
    worse = peer["ssim"] < own["ssim"] - SSIM_STEP
    larger = peer["output_bytes"] > own["output_bytes"] * (1 + SIZE_TOLERANCE)
    return bool(worse or larger)


def _over_best(own: Row, peers: list[Row], least: float) -> tuple[bool, str]:
    best = max(peers, key=lambda peer: float(peer["ratio_to_vipsrv"]))
    faster = 1 / best["ratio_to_vipsrv"]
    likeness = own["ssim"] - best["ssim"]
    larger = own["output_bytes"] / best["output_bytes"] - 1
    return faster >= least, (
        f"{own['image']}: {faster:.2f} times the throughput of {best['server']}, the best peer; "
        f"at least {least} (SSIM {likeness:+.4f}, bytes {larger:+.1%})"
    )
