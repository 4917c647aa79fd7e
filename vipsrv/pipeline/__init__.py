"""From the bytes of a picture to the bytes of another: the only folder that imports pyvips.

Read ``resize.py`` first: it holds the list of steps. Each step is a small file of its own name.

====================  ==================================================================
``start``             once for a process: every format tried out
``libvips``           what libvips may read; its errors made presentable
``writers``           the formats of results, and what each can hold
``upload``            a picture as it came: bytes in memory, or a file's descriptor
``header``            which format it is and what its header says, nothing decoded
``own``               the formats that vipsrv reads itself: ``bmp``, ``pnm``, ``ico``
``opened``, ``rows``  what these give, and how the rows of a file become a picture without a copy
``tiff``              refuses what libvips would decode wrongly
``page``              which picture of a file that holds several
``signatures``        the names of formats that are not read, for a helpful refusal
``opening``           headers that would take too long to read
``resize``            the lists of steps, and one job through them
--------------------  ------------------------------------------------------------------
``plan``              what each result will be, settled before anything is decoded
``mixes``             options that exclude each other are refused
``fit``               geometry: the size of the whole picture, and of the result
``limits``            what is refused by its header alone
``cost``              the memory and time that a job will take, and whether it may
``layout``, ``heif``  what the file's bytes tell of that
``job``               the one decode for all results, as the steps know it
--------------------  ------------------------------------------------------------------
``background``        transparency is laid on a colour, where no result keeps it
``shrink``            decode and resize in one, upright, to what the largest result needs
``direct``            how most are: two operations, a JPEG decoded no larger than needed
``giant``             how large TIFFs are: from the mapped file, or in columns by several threads
``enlarge``           more pixels than the picture has
``scale``             an exact size, transparency respected
``order``             red, green and blue, where a bitmap has them the other way round
``srgb``              8-bit sRGB in three bands (and alpha), whatever it was
``profiles``          whether an ICC profile is sRGB itself
``kept_profile``      or the RGB of its own profile, where a result keeps that
``place``             each result's own colours, background, part or frame, metadata
``xmp``               no orientation in it once it has been applied
``encode``            each result's bytes; ``max_bytes``
``calls``             libvips operations prepared once, for those that every request needs
``stopping``          gives up in the middle of a decode
``threads``           how many compute one job
====================  ==================================================================

What the options mean where their names leave it open:

- ``format`` ``auto`` is the source's own; where that is not written, PNG for a picture with transparency and
  JPEG for one without. ``tiff`` is compressed with LZW. Results have 8 bits a sample and are RGB.
- Transparency is kept in png, webp, avif, tiff and gif (there all or nothing), and laid on ``background`` in
  jpeg. The frame of ``contain`` has that colour and is opaque, in every format.
- ``quality`` is for lossy results; png, tiff, gif and lossless ones have none, pass it over, and report 100.
- ``max_bytes`` gives the highest quality that fits. What has no quality is refused with 400, what does not
  fit at quality 1 with 413.
- ``keep`` ``icc``: an RGB picture stays in its own profile (Display P3, Adobe RGB) and carries it, as with
  sharp's ``keepIccProfile``; all others become sRGB without one. ``exif``: EXIF with an orientation of 1 and
  no embedded thumbnail, colours in sRGB. ``all``: both and whatever else the format holds (IPTC; XMP of
  up to 1 MiB, likewise with an orientation of 1).
- ``page`` counts from 0; of an animation it is a frame as it is seen.
- ``enlarge`` false: see ``fit``.
"""

from vipsrv.pipeline.cost import NeedsHeavyLane
from vipsrv.pipeline.header import read_info
from vipsrv.pipeline.libvips import version
from vipsrv.pipeline.resize import Output, Result, resize
from vipsrv.pipeline.start import FormatInfo, start
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.writers import written_formats

__all__ = [
    "FormatInfo",
    "NeedsHeavyLane",
    "Output",
    "Result",
    "Upload",
    "read_info",
    "resize",
    "start",
    "version",
    "written_formats",
]
