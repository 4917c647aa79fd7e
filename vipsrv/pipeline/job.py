"""What the steps may know of the job that they belong to."""

from dataclasses import dataclass

from vipsrv.pipeline.header import Header
from vipsrv.pipeline.upload import Upload


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One picture and one result: ``width`` and ``height`` in pixels as a viewer sees it, ``background`` as
    ``#rrggbb``, ``quality`` from 1 to 100.
    """

    upload: Upload
    header: Header
    width: int
    height: int
    background: str
    quality: int
