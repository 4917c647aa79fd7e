"""Lines of requests for tests of the log."""

from typing import Any

from vipsrv.options import ImageInfo, OutputInfo
from vipsrv.server.logs.request_line import RequestLine
from vipsrv.server.timeline import Timeline

SOURCE = ImageInfo(
    format="png", width=400, height=300, pages=1, has_alpha=True, orientation=1, size=2_712_345
)
RESULTS = (
    OutputInfo(width=80, height=60, format="jpeg", quality=85, size=1234),
    OutputInfo(width=40, height=30, format="webp", quality=80, size=567),
)


def request_line(**values: Any) -> RequestLine:
    """The line of a request; ``values`` replace those of a PING without anything else."""
    known: dict[str, Any] = {
        "connection": 7,
        "peer": ("192.0.2.1", 50123),
        "identity": None,
        "version": 2,
        "tls": False,
        "kind": "ping",
        "request_id": 3,
    }
    return RequestLine(**known | values)


def full_line(**values: Any) -> RequestLine:
    """The line of a RESIZE that went well; ``values`` replace its own."""
    known = {
        "kind": "resize",
        "image_size": SOURCE.size,
        "timeline": Timeline(1.0, 1.25, 1.25, 1.5, 1.5625, 1.57),
        "source": SOURCE,
        "outputs": RESULTS,
        "worker": 1234,
        "sent": 1.7,
    }
    return request_line(**known | values)
