"""The server's own pipeline in a bare loop: the cost of a request without the server."""

from collections.abc import Callable
from pathlib import Path

from bench.baselines.loop import AnyFormatLoop
from vipsrv import pipeline
from vipsrv.options import DEFAULT_QUALITY, Format, ResizeOptions
from vipsrv.worker_config import WorkerConfig

_LIMITS = WorkerConfig(max_pixels=2**30, max_output_pixels=10**8)


class PipelineLoop(AnyFormatLoop):
    """The loop over the server's pipeline as a baseline."""

    name = "pipeline-loop"
    what = "vipsrv.pipeline, one process a core, no server"
    work = __name__


def prepare(
    image: str, width: int, height: int, form: str = "jpeg", quality: int = DEFAULT_QUALITY
) -> Callable[[], bytes]:
    """Return the function that makes one result of the image at this path."""
    data = Path(image).read_bytes()
    options = ResizeOptions(width=width, height=height, format=Format(form), quality=quality)
    pipeline.start()

    def make() -> bytes:
        upload = pipeline.Upload.from_memory(data)
        return pipeline.resize(upload, [options], config=_LIMITS).outputs[0].data

    return make
