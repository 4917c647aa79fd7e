"""Programs that resize many files in one run, as peers of ``vipsrv batch``: one program a file.

``interface`` is what they share, ``static_server`` gives files over HTTP to those that download.
"""

from bench.baselines.batch.img2dataset import Img2dataset
from bench.baselines.batch.interface import BatchProgram
from bench.baselines.batch.mogrify import Mogrify
from bench.baselines.batch.own_batch import VipsrvBatch, VipsrvClient
from bench.baselines.batch.pillow_pool import PillowPool
from bench.baselines.batch.vipsthumbnail import Vipsthumbnail

PROGRAMS: tuple[BatchProgram, ...] = (
    VipsrvBatch(),
    VipsrvClient(),
    Vipsthumbnail(1),
    Vipsthumbnail(None),
    Mogrify(margin=2, parallel=True),
    Mogrify(margin=1, parallel=True),
    Mogrify(margin=2, parallel=False),
    PillowPool(margin=2),
    PillowPool(margin=1),
    Img2dataset(threads=8),
    Img2dataset(threads=64),
)
"""All of them, in the order of the table: a peer may win with any of its settings."""

__all__ = [
    "PROGRAMS",
    "BatchProgram",
    "Img2dataset",
    "Mogrify",
    "PillowPool",
    "VipsrvBatch",
    "VipsrvClient",
    "Vipsthumbnail",
]
