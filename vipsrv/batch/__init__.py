"""Resizes many images: those of a folder, a bucket or a list, on this machine or on a cluster.

::

    source ──► filters ──► selection ──► shards ──► engine ──► destination
    (lists      (names,     (what the     (up to     (local:    (results by name,
     images)     sizes,      manifest      1,000      a server   the manifest in .vipsrv/)
                 dates)      has not)      images)    here; ray)

Everything goes through ``vipsrv.client``: the images are decoded by servers only. ``run`` starts a batch, and
``rows_of`` reads what became of the images. The names below are loaded when they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vipsrv.batch.batch_run import BatchRun, run
    from vipsrv.batch.dry_run import Estimate
    from vipsrv.batch.filters import Filters
    from vipsrv.batch.images import ListedImage
    from vipsrv.batch.manifest.latest_rows import rows_of
    from vipsrv.batch.outputs import Outputs
    from vipsrv.batch.progress import Progress
    from vipsrv.batch.rows import OutputRow, Row
    from vipsrv.batch.stores.open_store import open_destination, open_source

__all__ = [
    "BatchRun",
    "Estimate",
    "Filters",
    "ListedImage",
    "OutputRow",
    "Outputs",
    "Progress",
    "Row",
    "open_destination",
    "open_source",
    "rows_of",
    "run",
]

_HOME = {
    "BatchRun": "batch_run",
    "Estimate": "dry_run",
    "Filters": "filters",
    "ListedImage": "images",
    "OutputRow": "rows",
    "Outputs": "outputs",
    "Progress": "progress",
    "Row": "rows",
    "open_destination": "stores.open_store",
    "open_source": "stores.open_store",
    "rows_of": "manifest.latest_rows",
    "run": "batch_run",
}
"""The module of each name."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"vipsrv.batch.{_HOME[name]}"), name)
