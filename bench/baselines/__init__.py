"""What vipsrv is compared with: one baseline a file, all with the interface in ``interface``.

==================== ======================================================================
``bare_loop``        ``thumbnail_buffer`` and ``jpegsave_buffer`` in one process a core
``pipeline_loop``    the same with ``vipsrv.pipeline``
``original``         the server that vipsrv replaces, and the same with Pillow's draft mode
``codec_floor``      libvips' decode and encode alone
``turbojpeg_floor``  libjpeg-turbo's
``own_server``       vipsrv itself
``peers``            other image servers
``batch``            programs that resize many files in one run, beside ``vipsrv batch``
==================== ======================================================================

``loop`` and ``served`` are the two kinds: processes that work without clients, and servers. Outside the
interface are ``result_check`` (whether a result is what was asked for), ``vipsthumbnail`` (libvips alone on a
file, for giants) and ``bare_gateway`` (a gateway that only passes bytes on).
"""

from bench.baselines.bare_loop import BareLoop
from bench.baselines.codec_floor import CodecFloor
from bench.baselines.interface import Baseline, ClosedLoopRun, Request
from bench.baselines.original import Original, OriginalDraft
from bench.baselines.own_server import OwnServer
from bench.baselines.peers.imaginary import Imaginary
from bench.baselines.peers.imagor import Imagor
from bench.baselines.peers.imgproxy import Imgproxy
from bench.baselines.peers.ipx import Ipx
from bench.baselines.peers.nginx_image_filter import NginxImageFilter
from bench.baselines.peers.sharp import Sharp, SharpPlain
from bench.baselines.peers.thumbor import Thumbor
from bench.baselines.peers.weserv import Weserv
from bench.baselines.pipeline_loop import PipelineLoop
from bench.baselines.turbojpeg_floor import TurboJpegFloor

PEERS: tuple[type[Baseline], ...] = (
    Sharp,
    SharpPlain,
    Imgproxy,
    Imagor,
    Imaginary,
    Ipx,
    Thumbor,
    Weserv,
    NginxImageFilter,
)
"""Other image servers."""

ALL: tuple[type[Baseline], ...] = (
    BareLoop,
    OwnServer,
    PipelineLoop,
    CodecFloor,
    TurboJpegFloor,
    Original,
    OriginalDraft,
    *PEERS,
)
"""All of them, in the order of the table."""

__all__ = [
    "ALL",
    "PEERS",
    "BareLoop",
    "Baseline",
    "ClosedLoopRun",
    "CodecFloor",
    "Original",
    "OriginalDraft",
    "OwnServer",
    "PipelineLoop",
    "Request",
    "TurboJpegFloor",
]
