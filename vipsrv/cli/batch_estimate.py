"""What ``vipsrv batch --dry-run`` prints: how many images there are, and what they will take."""

import json
from dataclasses import asdict
from typing import Any

from vipsrv.batch.dry_run import Estimate
from vipsrv.batch.estimate import Range
from vipsrv.batch.outputs import size_text
from vipsrv.batch.report.texts import ratio_text
from vipsrv.cli.quantities import size, span
from vipsrv.cli.retry_codes import OPTION

HOW = (
    "Each range is a 95 % confidence interval: one in twenty is missed by chance, more of them if a few",
    "images are much larger than all others. The time is at the speed of the sample, which is read and",
    "resized; starting and storing the results come on top.",
)


def estimate_lines(estimate: Estimate) -> list[str]:
    """Return the lines for a person."""
    counts = estimate.counts
    listed = [f"listed: {counts.listed:,} images"]
    if counts.done_before:
        listed.append(f"{counts.done_before:,} done before")
    if counts.failed_before:
        listed.append(f"{counts.failed_before:,} failed before ({OPTION} tries them again)")
    if counts.duplicates:
        listed.append(f"{counts.duplicates:,} listed twice")
    if counts.conflicts:
        listed.append(f"{counts.conflicts:,} whose results would have the names of others")
    lines = [", ".join(listed)]
    if estimate.bytes_in is None or estimate.bytes_out is None or estimate.seconds is None:
        return [*lines, "to do: nothing"]
    lines += [
        f"to do: {estimate.images:,} images, {_bytes(estimate.bytes_in)}",
        f"sample: {estimate.sampled:,} of them at random, resized in {span(estimate.sample_seconds)}",
        f"time: {_text(estimate.seconds, span)}",
        f"results: {_bytes(estimate.bytes_out)}{_ratio(estimate)}",
    ]
    if len(estimate.outputs) > 1:
        lines += [
            f"  {size_text(options)} {options.format}: {_bytes(figure)}"
            for options, figure in estimate.outputs
        ]
    if estimate.failures is not None:
        found = ", ".join(
            f"{count:,} × {status} {code}" for (status, code), count in estimate.sample_failures.most_common()
        )
        failures = _text(estimate.failures, lambda count: f"{count:,.0f}")
        lines.append(f"failures: {failures}; {found or 'none'} in the sample")
    return [*lines, *HOW]


def estimate_json(estimate: Estimate) -> str:
    """Return everything as one JSON object."""
    values: dict[str, Any] = {
        "counts": asdict(estimate.counts),
        "images": estimate.images,
        "sampled": estimate.sampled,
        "sample_seconds": estimate.sample_seconds,
        "sample_failures": {code: count for (_, code), count in estimate.sample_failures.items()},
    }
    for name in ("bytes_in", "bytes_out", "failures", "seconds"):
        figure: Range | None = getattr(estimate, name)
        values[name] = None if figure is None else asdict(figure)
    values["outputs"] = [
        {"size": size_text(options), "format": options.format, "bytes": asdict(figure)}
        for options, figure in estimate.outputs
    ]
    return json.dumps(values)


def _bytes(figure: Range) -> str:
    return _text(figure, size)


def _ratio(estimate: Estimate) -> str:
    before, after = estimate.bytes_in, estimate.bytes_out
    return f", ratio {ratio_text(before.value / after.value)}" if before and after and after.value else ""


def _text(figure: Range, show: Any) -> str:
    """Return a figure and its range; only the figure if that is exact."""
    if figure.low == figure.value == figure.high:
        return f"{show(figure.value)}"
    high = "no upper bound" if figure.high is None else show(figure.high)
    return f"about {show(figure.value)} ({show(figure.low)} to {high})"
