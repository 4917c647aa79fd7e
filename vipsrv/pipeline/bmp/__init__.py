"""Windows and OS/2 bitmaps, for which libvips has no trusted reader.

==============  ================================================================
``header``      every field read and checked
``pixels``      the picture, by libvips operations on the rows of the file
``rle``         the run-length compressed kinds, decoded into memory of bounded size
==============  ================================================================

Sources: Microsoft, "Bitmap Storage" and the structures it names (BITMAPCOREHEADER, BITMAPINFOHEADER,
BITMAPV4HEADER, BITMAPV5HEADER); for the OS/2 headers the comments of Jason Summers' bmpsuite.
"""

from vipsrv.pipeline.bmp.pixels import open_bmp, open_dib

__all__ = ["open_bmp", "open_dib"]
