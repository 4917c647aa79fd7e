"""The last step: a picture becomes the bytes of a file. Here libvips computes what was only planned."""

import pyvips

from vipsrv.pipeline.job import Job


def encode(image: pyvips.Image, job: Job) -> bytes:
    """A baseline JPEG without metadata. Raises ``pyvips.Error``."""
    data: bytes = image.jpegsave_buffer(Q=job.quality, keep="none")
    return data
