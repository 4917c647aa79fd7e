"""Where uploads and results are kept between clients and workers: buffers in memory, or unlinked files."""

from vipsrv.storage.budget import Share
from vipsrv.storage.spool import Slot, Spool

__all__ = ["Share", "Slot", "Spool"]
