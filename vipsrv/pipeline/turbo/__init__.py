"""JPEG by libjpeg-turbo itself, and a reduction by SIMD instructions: a faster way beside libvips.

libvips is built for images that stream in strips through several threads. For a small image its set-up takes
longer than the work, and its JPEG library (mozjpeg) decodes and encodes more slowly than libjpeg-turbo 3.
This folder has what serves most requests in less time: ``codec`` decodes at 1/2, 1/4 or 1/8 and encodes,
``reduce`` reduces the rest with Lanczos, and ``pixels`` is what they pass to each other. Where one of the
packages that they need is missing, ``AVAILABLE`` is false, and libvips does all the work.
"""

from vipsrv.pipeline.turbo.packages import AVAILABLE

__all__ = ["AVAILABLE"]
