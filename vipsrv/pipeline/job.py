"""What the steps may know of the job that they belong to."""

from dataclasses import dataclass

from vipsrv.pipeline.header import Header
from vipsrv.pipeline.stopping import Watch
from vipsrv.pipeline.upload import Upload


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One picture to be decoded, for one result or for several.

    ``width`` and ``height`` are what the whole of it is scaled to, in pixels as a viewer sees it. Its
    transparency is laid on ``background`` (``#rrggbb``), or kept where that is ``None``. With
    ``keep_profile`` the colours stay in the RGB of the embedded profile instead of becoming sRGB. ``header``
    is that of the ``page``, counted from 0. ``threads`` may compute at a time; ``watch`` is for what is
    computed within a step.
    """

    upload: Upload
    header: Header
    width: int
    height: int
    background: str | None
    keep_profile: bool = False
    page: int = 0
    threads: int = 1
    watch: Watch | None = None

    @property
    def keeps_alpha(self) -> bool:
        """Whether the picture has transparency that is still there after the steps."""
        return self.background is None and self.header.info.has_alpha
