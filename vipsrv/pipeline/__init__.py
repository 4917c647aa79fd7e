"""Turn the bytes of an image into the bytes of one or more resized images. Only this folder imports pyvips.

Read ``resize.py`` first: it holds the list of steps. A job goes through the modules in this order:

==================  ===================================================================================
``start``           once in a process: sets up libvips and tries every format
``upload``          the encoded image: bytes in memory, or the descriptor of a file
``probe``           recognises the format and reads the header, or that of a page; decodes nothing
``header``          the facts about an image that its header states
``plan``            plans the decode and each result
``geometry``        the size of the scaled image and of the result
``option_rules``    refuses options that contradict each other
``output_format``   chooses the format of a result among those that can be written
``limits``          refuses images and results that are too large, from the header alone
``cost``            predicts memory and time of the job, and refuses it or requests the heavy lane
``frames``          the frames of an animation, opened one after another
``animate``         runs the steps for each frame, and collects the frames of each result
``resize``          runs the job: decode steps, steps of each result, encoding
``placeholder``     what stands for an image until it is loaded
``watermarks``      the images that ``watermark`` may name
``pixels``          a result that is pixels in memory instead of a file
``icc_profile``     whether a profile is sRGB; colours in other profiles
------------------  -----------------------------------------------------------------------------------
``formats/``        one file per format: signatures, reader, writer, bounds, cost
``steps/``          one file per step
``turbo/``          libjpeg-turbo, and a reduction by SIMD instructions
``libwebp``         the system's libwebp
``vips/``           libvips: set-up, prepared operations, raw rows, errors, stopping, threads
==================  ===================================================================================

Imports go one way: ``resize`` → ``steps`` → ``plan`` → ``formats`` → ``header``, ``limits``, ``upload`` →
``vips``.

Details of the options:

- ``format`` ``auto`` is the format of the source; if that cannot be written, PNG for an image with
  transparency and JPEG for one without. ``tiff`` is compressed with LZW. Results are 8-bit RGB.
- Transparency is kept in png, webp, avif, jxl, tiff and gif (a pixel of a gif is either opaque or
  transparent), and flattened onto ``background`` in jpeg. The canvas of ``contain`` has that colour and is
  opaque in every format.
- ``quality`` is for lossy results and png with a ``palette``; others have none, ignore it, and report 100.
- ``effort`` is for avif, webp, png, gif, jxl and jpeg; tiff ignores it. ``progressive`` is for jpeg, png and
  gif, ``optimize`` for jpeg; the others ignore them.
- ``chroma`` and ``palette`` are refused with 400 where the format cannot do it, but ignored with ``auto``.
- ``max_bytes`` gives the highest quality that fits. A result without a quality is refused with 400, one that
  does not fit at quality 1 with 413. ``min_ssim`` gives the lowest that looks well enough, and likewise.
- ``keep`` ``icc``: an RGB image stays in its own profile (Display P3, Adobe RGB) and carries it, as with
  sharp's ``keepIccProfile``; all others become sRGB without a profile. ``exif``: EXIF with an orientation of
  1 and without the embedded thumbnail, colours in sRGB. ``all``: both, and everything else that the format
  holds (IPTC; XMP of up to 1 MiB, likewise with an orientation of 1).
- ``page`` counts from 0; in an animation it is a frame as a viewer sees it. ``pages`` are several frames:
  each goes through all steps (``animate``), and the encoder gets them below each other.
- ``enlarge`` false: see ``geometry``.
"""

from vipsrv.pipeline.cost import NeedsHeavyLane
from vipsrv.pipeline.output_format import written_formats
from vipsrv.pipeline.placeholder import resize_and_describe
from vipsrv.pipeline.probe import read_info
from vipsrv.pipeline.resize import Output, Result, resize
from vipsrv.pipeline.start import FormatInfo, load_watermarks, start
from vipsrv.pipeline.upload import Upload
from vipsrv.pipeline.vips.setup import version

__all__ = [
    "FormatInfo",
    "NeedsHeavyLane",
    "Output",
    "Result",
    "Upload",
    "load_watermarks",
    "read_info",
    "resize",
    "resize_and_describe",
    "start",
    "version",
    "written_formats",
]
