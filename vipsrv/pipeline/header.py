"""The facts about an image after its header was read and before its pixels are decoded."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum
from typing import Any

import pyvips

from vipsrv.options import ImageInfo
from vipsrv.pipeline.colour.space import ColourSpace
from vipsrv.pipeline.frames import Frames
from vipsrv.pipeline.notes import NOTHING, FileNotes
from vipsrv.pipeline.orientation import Region, rotated_size
from vipsrv.pipeline.vips.fields import PROFILE, get_field
from vipsrv.pipeline.vips.operations import Shape, shape

_SAMPLE_BYTES = {
    "uchar": 1,
    "char": 1,
    "ushort": 2,
    "short": 2,
    "uint": 4,
    "int": 4,
    "float": 4,
    "double": 8,
}
_LARGEST_SAMPLE = 8  # complex numbers count as this
_RGBA_BYTES = 4


class Decoder(Enum):
    """The code that decodes the image of a header."""

    LIBVIPS = "a loader of libvips, which may open the upload again and get the same image"
    CORRECTED = "a loader of libvips, whose image is corrected here: only this image is right"
    BUILTIN = "code of vipsrv, which may decode the image at its first use"


def _released() -> pyvips.Image:
    raise RuntimeError("the image of this header was released")


class ImageHeader:
    """The facts of an image (``info``), and ``image``, whose pixels are decoded when they are read.

    ``fail_on`` is the argument of libvips' loaders. With ``is_bgr`` the bands of the image are still in the
    order blue, green, red. ``shrink`` is 2, 4 or 8 if ``image`` is a JPEG that is decoded at this fraction of
    the size in ``info``. ``metadata_memory`` is the bytes of memory that the metadata take. ``embedded`` is
    the header of the embedded image if this format is a container (PNG in ICO). With ``shape`` and ``fields``
    (of an image without a profile) what they say is known before libvips opens the file. With ``frames``
    this is the header of an animation: ``info`` and ``image`` describe each frame, but only ``frames`` have
    pixels. ``notes`` are what vipsrv read in the file. ``finish`` makes the right colours of ``image``, or of
    a part of it, when it is decoded; ``None`` if it has them.

    The header of a view (``vipsrv/pipeline/view.py``) has ``info`` and ``image`` of the view. ``source`` is
    the header of the page that it is a view of; ``region`` is the part of the page as stored, ``None`` for
    all of it; and ``angle`` the degrees by which the upright image is still to be rotated.
    """

    def __init__(
        self,
        info: ImageInfo,
        build: Callable[[], pyvips.Image],
        *,
        decoder: Decoder,
        fail_on: str,
        is_bgr: bool = False,
        shrink: int = 1,
        metadata_memory: int = 0,
        embedded: "ImageHeader | None" = None,
        shape: Shape | None = None,
        fields: Mapping[str, Any] | None = None,
        frames: Frames | None = None,
        notes: FileNotes = NOTHING,
        source: "ImageHeader | None" = None,
        region: Region | None = None,
        angle: int = 0,
        finish: Callable[[pyvips.Image], pyvips.Image] | None = None,
    ) -> None:
        self.info = info
        self.decoder = decoder
        self.fail_on = fail_on
        self.is_bgr = is_bgr
        self.shrink = shrink
        self.metadata_memory = metadata_memory
        self.embedded = embedded
        self.frames = frames
        self.notes = notes
        self.finish = finish
        self._build = build
        self._image: pyvips.Image | None = None
        self._shape = shape
        self._fields = fields
        self._source = source
        self.region = region
        self.angle = angle

    @property
    def image(self) -> pyvips.Image:
        """The image, built at the first access and kept. Access it only after the limits were checked,
        because some built-in formats are decoded then. Raises ``CorruptImage`` and ``TooLarge``.
        """
        if self._image is None:
            self._image = self._build()
        return self._image

    def drop_built(self) -> None:
        """Drop the image if code of vipsrv has made it, to look at its profile; it is made again when it is
        decoded. Such images may be in memory as a whole: those of all views are not, at the same time.
        """
        if self.decoder is Decoder.BUILTIN:
            self._image = None
            if self._source is not None:
                self._source.drop_built()

    def of_frame(self, image: pyvips.Image, *, is_opaque: bool) -> "ImageHeader":
        """Return the header of one of the frames, whose ``image`` is what the view shows of it; ``is_opaque``
        if its alpha was dropped.
        """
        info = replace(self.info, has_alpha=False) if is_opaque else self.info
        return ImageHeader(
            info,
            lambda: image,
            decoder=Decoder.CORRECTED,
            fail_on=self.fail_on,
            notes=self.notes,
            source=self._source,
            angle=self.angle,
        )

    def release(self) -> None:
        """Drop the image, and with it the memory of its decoder. The facts stay; the image cannot be used
        again.
        """
        self._image, self._build, self.frames, self.finish = None, _released, None, None
        if self.embedded is not None:
            self.embedded.release()
        if self._source is not None:
            self._source.release()

    @property
    def is_view(self) -> bool:
        """Whether this is a part of a page, or a page that is mirrored or turned."""
        return self._source is not None

    @property
    def source(self) -> "ImageHeader":
        """The header of the whole page as it is stored."""
        return self if self._source is None else self._source

    @property
    def seen_size(self) -> tuple[int, int]:
        """Width and height in pixels of what is resized: upright and rotated."""
        return rotated_size(self.info.upright_size, self.angle) if self.angle else self.info.upright_size

    @property
    def shape(self) -> Shape:
        """Size, bands and band format of ``image``, read once: reading them from libvips again would take
        longer than most computations with them. Raises what ``image`` raises.
        """
        if self._shape is None:
            self._shape = shape(self.image)
        return self._shape

    @property
    def sample_bytes(self) -> int:
        """Bytes of one band of a decoded pixel."""
        if self.decoder is Decoder.BUILTIN:  # looking at its image may decode it
            return 1
        return _SAMPLE_BYTES.get(self.shape.format, _LARGEST_SAMPLE)

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a decoded pixel; for built-in formats the maximum."""
        if self.decoder is Decoder.BUILTIN:
            return _RGBA_BYTES
        return self.shape.bands * self.sample_bytes

    def field(self, name: str) -> Any:
        """Return the value of one of libvips' metadata fields, ``None`` if it is missing."""
        return get_field(self.image, name) if self._fields is None else self._fields.get(name)

    @property
    def is_plain_file(self) -> bool:
        """Whether the header was read from a file of the usual form, without libvips."""
        return self._fields is not None

    @property
    def plain_fields(self) -> Mapping[str, Any] | None:
        """The fields of such a file; ``None`` for all others."""
        return self._fields

    @property
    def colours(self) -> ColourSpace | None:
        """The colours that the file states by numbers, which count even beside a profile; ``None`` for sRGB
        or the profile.
        """
        return self.notes.colours

    @property
    def has_profile(self) -> bool:
        """Whether an ICC profile is embedded."""
        return self._fields is None and bool(self.image.get_typeof(PROFILE))
