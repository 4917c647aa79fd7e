"""Runs jobs through the pipeline. Outside of ``pipeline``, only this module imports it."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from vipsrv import pipeline
from vipsrv.errors import BadRequest
from vipsrv.options import Placeholder, ResizeOptions, ResizeRequest, read_placeholders
from vipsrv.worker_config import WorkerConfig
from vipsrv.workers.channel import MAX_OUTPUTS, Digest, JobHead, JobLimits, Operation, Ready, ReplyHead
from vipsrv.workers.child.digests import digest_of
from vipsrv.workers.child.loop import RunJob
from vipsrv.workers.child.watch import JobWatch

_MAX_MS = 2**32 - 1
"""The most milliseconds that a reply can state."""


def start_pipeline(config: WorkerConfig, watermarks: Mapping[str, bytes]) -> tuple[RunJob, Ready]:
    """Set up libvips, try every format and decode the watermarks; return the function that runs jobs, and the
    handshake.
    """

    def run(
        head: JobHead, options: bytes, image: memoryview | int, watch: JobWatch
    ) -> tuple[ReplyHead, tuple[bytes, ...]]:
        if isinstance(image, int):
            upload = pipeline.Upload.from_descriptor(image, head.image_size)
        else:
            upload = pipeline.Upload.from_memory(image)
        outputs, limits, digest, asked = _job_from(options, head.operation)
        if head.operation is Operation.INFO and not asked:
            info = pipeline.read_info(upload, tolerant=config.tolerate_truncated, formats=limits.formats)
            return ReplyHead(job_id=head.job_id, source=info), ()
        try:
            result, placeholder = pipeline.resize_and_describe(
                upload,
                outputs,
                asked,
                config=config if limits.max_pixels is None else _limited(config, limits.max_pixels),
                formats=limits.formats,
                watch=watch,
                seconds=head.deadline_ms / 1000 or None,
                heavy_ok=head.admitted,
                threads=head.threads,
            )
        except pipeline.NeedsHeavyLane as heavy:
            needs_ms = min(_MAX_MS, int(heavy.seconds * 1000))
            return ReplyHead(job_id=head.job_id, needs=heavy.memory, needs_ms=needs_ms), ()
        facts = tuple(output.info for output in result.outputs)
        data = tuple(output.data for output in result.outputs)
        digests = () if digest is None else tuple(digest_of(one, digest) for one in data)
        reply = ReplyHead(
            job_id=head.job_id,
            source=result.source,
            outputs=facts,
            digests=digests,
            placeholder=placeholder,
        )
        return reply, data

    readers = {one.name: f"{one.library} {one.version}" for one in pipeline.start(config.formats)}
    pipeline.load_watermarks(watermarks, config)
    return run, Ready(pid=os.getpid(), readers=readers, writers=pipeline.written_formats())


@lru_cache(maxsize=256)
def _limited(config: WorkerConfig, max_pixels: int) -> WorkerConfig:
    """Return ``config`` with at most so many pixels of the image, and of all results together."""
    return replace(
        config,
        max_pixels=min(config.max_pixels, max_pixels),
        max_output_pixels=min(config.max_output_pixels, max_pixels),
    )


class _Job(NamedTuple):
    """What a job asks for: results, the client's limits, digests of the results, and placeholders."""

    outputs: tuple[ResizeOptions, ...]
    limits: JobLimits
    digest: Digest | None
    placeholder: tuple[Placeholder, ...]


@lru_cache(maxsize=256)
def _job_from(data: bytes, operation: Operation) -> _Job:
    """Parse the options of a job from JSON. Raises ``BadRequest``."""
    try:
        options = json.loads(data) if data else {}
        limits = JobLimits.take_from(options)
        digest = Digest.take_from(options)
        if operation is Operation.INFO:
            return _Job((), limits, digest, read_placeholders(options.get("placeholder")))
        request = ResizeRequest.from_meta(options)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadRequest(f"{error}") from error
    if len(request.outputs) > MAX_OUTPUTS:
        raise BadRequest(f"outputs: {len(request.outputs)} results are requested; {MAX_OUTPUTS} are allowed")
    return _Job(request.outputs, limits, digest, request.placeholder)
