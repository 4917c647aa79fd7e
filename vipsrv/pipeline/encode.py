"""The last step: a picture becomes the bytes of a file. Here libvips computes what was only planned."""

import pyvips

from vipsrv.pipeline.calls import Call
from vipsrv.pipeline.job import Job

_save_jpeg = Call("jpegsave_buffer", "in", "Q", output="buffer", keep="none")


def encode(image: pyvips.Image, job: Job) -> bytes:
    """A baseline JPEG without metadata. Raises ``pyvips.Error``."""
    data: bytes = _save_jpeg(image, job.quality)
    return data
