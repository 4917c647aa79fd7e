"""The server that vipsrv replaces, as a baseline, and the same with Pillow's draft mode."""

import sys

import PIL
from PIL import features

from bench.baselines.interface import Request
from bench.baselines.served import Served


class Original(Served):
    """The original's way: full decode and Lanczos."""

    name = "original"
    what = "Pillow: full decode, Lanczos, quality 85, one thread, version 1"

    def serves(self, request: Request) -> bool:
        """See ``Baseline``: version 1 makes JPEGs of one quality."""
        return request.format == "jpeg"

    def version(self) -> str:
        """See ``Baseline``."""
        return f"Pillow {PIL.__version__}, libjpeg-turbo {features.version('libjpeg_turbo')}"

    def command(self) -> list[str]:
        """See ``Served``."""
        return [sys.executable, "-m", "bench.baselines.original_server"]


class OriginalDraft(Original):
    """The original's way with draft mode."""

    name = "original-draft"
    what = "the same with Pillow's draft mode: a JPEG is decoded no larger than needed"

    def command(self) -> list[str]:
        """See ``Served``."""
        return [*super().command(), "--draft"]
