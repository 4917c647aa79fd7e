"""The test images, drawn from fixed seeds, so that nothing has to be downloaded.

They behave like photographs as far as a codec can tell: a spectrum of about 1/f, which is equal contrast
in every octave (D. J. Field, "Relations between the statistics of natural images and the response properties
of cortical cells", J. Opt. Soc. Am. A 4, 1987), flat and busy regions divided by sharp edges, a lens a little
softer than the sensor, and sensor noise. The contrast of each image is chosen so that its file is as large
as a real one of its kind.

The pixels do not depend on the number of threads. The bytes of an AVIF do, because its encoder is
multithreaded.

They are kept outside the repository, in `$VIPSRV_BENCH_CACHE` or the user's cache folder, and made again when
their recipe changes. `python -m bench.tools.make_images` makes all of them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyvips

CACHE_VARIABLE = "VIPSRV_BENCH_CACHE"

# Part of every fingerprint: increase it when `photo` or `canvas` draws different pixels.
GENERATION = 1

# The side of the block that a giant image is tiled from, in pixels.
BLOCK = 2000


@dataclass(frozen=True)
class Recipe:
    """How one image is made.

    `width` and `height` are in pixels. `texture` is the contrast of each octave of detail and `grain` that of
    the sensor's noise, both as standard deviations in grey levels; they determine the size of the file.
    `saver` is the name of libvips' saver and `options` its arguments. A `giant` is tiled from one block, so
    that it takes little memory and time to make.
    """

    description: str = field(repr=False)
    width: int
    height: int
    texture: float
    saver: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 1
    giant: bool = False
    grain: float = 1.5

    @property
    def fingerprint(self) -> str:
        """Identifies the recipe of a cached file: all fields but the description."""
        return f"{GENERATION} {self!r}\n"


def _jpeg(description: str, width: int, height: int, texture: float, seed: int, **options: Any) -> Recipe:
    # Cameras and phones store 4:2:0 at any quality; libvips does so only below 90.
    settings = {"Q": 85, "subsample_mode": "on", **options}
    return Recipe(description, width, height, texture, "jpegsave", settings, seed)


def _tiff(description: str, texture: float, grain: float, seed: int, **options: Any) -> Recipe:
    return Recipe(description, 20_000, 20_000, texture, "tiffsave", options, seed, giant=True, grain=grain)


IMAGES: Mapping[str, Recipe] = MappingProxyType(
    {
        "jpeg-0.3mp.jpg": _jpeg("640 x 480 JPEG of about 50 KB, an image of a web page", 640, 480, 3.4, 1),
        "jpeg-1mp.jpg": _jpeg("1152 x 864 JPEG of about 0.17 MB", 1152, 864, 4.7, 2),
        "jpeg-1.9mp.jpg": _jpeg("1600 x 1200 JPEG of about 0.3 MB", 1600, 1200, 4.4, 3),
        "jpeg-6mp.jpg": _jpeg("3000 x 2000 JPEG of about 0.8 MB, a soft one", 3000, 2000, 3.8, 4),
        "jpeg-12mp.jpg": _jpeg("4000 x 3000 JPEG of about 2.7 MB, a phone's", 4000, 3000, 8.5, 5, Q=90),
        "jpeg-50mp.jpg": _jpeg("8640 x 5760 JPEG of about 11 MB, a large sensor", 8640, 5760, 9.0, 6, Q=90),
        "progressive-12mp.jpg": _jpeg(
            "the 12 MP JPEG saved progressive: a decoder holds all its coefficients",
            4000,
            3000,
            8.5,
            5,
            Q=90,
            interlace=True,
        ),
        "jpeg-tiny.jpg": _jpeg("160 x 120 JPEG of about 6 KB, an image of a list", 160, 120, 3.4, 12),
        "progressive-100mp.jpg": Recipe(
            "12000 x 8400 progressive JPEG: 300 MB of coefficients",
            12_000,
            8_400,
            6.0,
            "jpegsave",
            {"Q": 80, "subsample_mode": "on", "interlace": True},
            13,
            giant=True,
        ),
        "png-3mp.png": Recipe("2000 x 1500 RGB PNG", 2000, 1500, 6.0, "pngsave", {"compression": 6}, 7),
        "interlaced-24mp.png": Recipe(
            "6000 x 4000 interlaced PNG: a decoder holds all of it",
            6000,
            4000,
            6.0,
            "pngsave",
            {"compression": 2, "interlace": True},
            14,
        ),
        "gif-6mp.gif": Recipe("3000 x 2000 GIF", 3000, 2000, 6.0, "gifsave", {"effort": 1}, 15),
        "webp-6mp.webp": Recipe("3000 x 2000 lossy WebP", 3000, 2000, 6.0, "webpsave", {"Q": 80}, 8),
        "avif-6mp.avif": Recipe(
            "3000 x 2000 AVIF", 3000, 2000, 6.0, "heifsave", {"Q": 60, "compression": "av1", "effort": 3}, 9
        ),
        "strip-16mp.tif": Recipe(
            "4000 x 4000 uncompressed strip TIFF, 48 MB", 4000, 4000, 8.0, "tiffsave", seed=13, giant=True
        ),
        "strip-24mp.tif": Recipe(
            "6000 x 4000 uncompressed strip TIFF, 72 MB", 6000, 4000, 6.0, "tiffsave", seed=12
        ),
        "avif-24mp.avif": Recipe(
            "6000 x 4000 AVIF: a decoder holds several copies of it",
            6000,
            4000,
            6.0,
            "heifsave",
            {"Q": 60, "compression": "av1", "effort": 0},
            16,
        ),
        "strip-400mp.tif": _tiff("20000 x 20000 uncompressed strip TIFF, 1.2 GB", 8.0, 1.5, 10),
        "tiled-deflate-400mp.tif": _tiff(
            "20000 x 20000 TIFF of about 0.5 GB in 256 x 256 deflate tiles",
            5.0,
            0.7,
            11,
            compression="deflate",
            predictor="horizontal",
            tile=True,
            tile_width=256,
            tile_height=256,
        ),
    }
)


def cache_folder() -> Path:
    """Where the images are kept: `$VIPSRV_BENCH_CACHE`, else `vipsrv-bench` in the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vipsrv-bench"


def image_file(name: str, cache: Path | None = None) -> Path:
    """The file of the image `name`; it is made now if the cache has none of its recipe.

    Raises KeyError for a name that is not in `IMAGES`, and what `drawn_file` raises.
    """
    if name not in IMAGES:
        raise KeyError(f"no image is called {name!r}; there are: {', '.join(IMAGES)}")
    return drawn_file(name, IMAGES[name], cache or cache_folder())


def drawn_file(name: str, recipe: Recipe, folder: Path) -> Path:
    """The file ``name`` in a folder, made now if what is there has another recipe.

    A file gets its name only when it is complete, so two processes may make the same one.

    Raises OSError if the folder cannot be written and pyvips.Error if libvips cannot save.
    """
    path = folder / name
    # The fingerprint is written after the image, so a matching one means that the image is complete.
    fingerprint = folder / f"{name}.recipe"
    if path.is_file() and fingerprint.is_file() and fingerprint.read_text() == recipe.fingerprint:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    fingerprint.unlink(missing_ok=True)
    part = folder / f".{name}.{os.getpid()}.part"
    try:
        getattr(draw(recipe), recipe.saver)(str(part), **recipe.options)
        part.replace(path)
        part.write_text(recipe.fingerprint)
        part.replace(fingerprint)
    finally:
        part.unlink(missing_ok=True)
    return path


def draw(recipe: Recipe) -> pyvips.Image:
    """Draw the pixels of a recipe: sRGB, 8 bits, computed while they are saved."""
    make = canvas if recipe.giant else photo
    return make(recipe.width, recipe.height, recipe.seed, recipe.texture, recipe.grain)


def fractal(width: int, height: int, seed: int, *, finest: int = 0, roughness: float = 1.0) -> pyvips.Image:
    """Draw random terrain: one float band, the sum of enlarged white noise of every octave.

    The octaves go from about four cells along the shorter side down to cells of 2**`finest` pixels. The first
    has a standard deviation of 1, each further one `roughness` times that of the one before; a roughness of 1
    is a 1/f spectrum.
    """
    coarsest = finest
    while min(width, height) >> coarsest > 4:
        coarsest += 1
    terrain: Any = None
    for octave in range(coarsest, finest - 1, -1):
        # Two more cells on every side, so that the enlarging does not see the border.
        columns, rows = (-(-side >> octave) + 4 for side in (width, height))
        deviation = roughness ** (coarsest - octave)
        noise = pyvips.Image.gaussnoise(columns, rows, mean=0, sigma=deviation, seed=seed * 100 + octave)
        if terrain is not None:
            noise += terrain.resize(2, kernel="cubic").crop(2, 2, columns, rows)
        # Kept in memory, because otherwise each octave would compute those before it many times over. The
        # last one is as large as the image and is computed while it is read.
        terrain = noise.copy_memory() if octave else noise
    if finest:
        terrain = terrain.resize(1 << finest, kernel="cubic")
    margin = 2 << finest
    return terrain.crop(margin, margin, width, height)


# The regions of a photograph, as colour and share of the texture: sky (the background of the others), leaves,
# a wall, shadow.
_REGIONS = (
    ((150, 175, 205), 0.15),
    ((95, 110, 70), 1.0),
    ((170, 120, 90), 0.7),
    ((60, 55, 65), 0.5),
)


def photo(width: int, height: int, seed: int, texture: float, grain: float) -> pyvips.Image:
    """Draw an image like a photograph, 8-bit sRGB: regions with sharp edges, texture, light, sensor noise.

    `texture` and `grain` are standard deviations in grey levels, of one octave of texture and of the noise.
    """
    first, *others = _REGIONS
    colour: Any = pyvips.Image.black(width, height, bands=3) + list(first[0])
    contrast: Any = pyvips.Image.black(width, height) + first[1]
    for index, (own_colour, own_contrast) in enumerate(others):
        # A terrain cut at a height gives islands; the steep ramp is an edge about a pixel wide.
        height_above = fractal(width, height, seed * 10 + index, finest=3, roughness=0.6) - 0.6 * (index - 1)
        ramp = height_above * (max(width, height) / 60) + 0.5
        inside = (ramp > 0).ifthenelse((ramp < 1).ifthenelse(ramp, 1), 0)
        colour = colour * (1 - inside) + inside * list(own_colour)
        contrast = contrast * (1 - inside) + inside * own_contrast
    # Octaves down to two pixels: the lens and the sensor's colour filter leave little below.
    detail = fractal(width, height, seed * 10 + 4, finest=1) * contrast * texture
    warm = fractal(width, height, seed * 10 + 5, finest=2, roughness=0.7) * 5
    green = fractal(width, height, seed * 10 + 6, finest=2, roughness=0.7) * 2
    light = 30 - pyvips.Image.xyz(width, height)[1] * (60 / height)
    noise = pyvips.Image.gaussnoise(width, height, mean=0, sigma=grain, seed=seed * 1000 + 99)
    drawn = colour + detail + warm.bandjoin([green, warm * -1]) + light + noise
    return drawn.cast("uchar").copy(interpretation="srgb")


def canvas(width: int, height: int, seed: int, texture: float, grain: float) -> pyvips.Image:
    """Draw an image of any size in bounded memory, tiled from one block of `BLOCK` pixels under uneven light.

    The block is joined with its mirror images, so that no seam shows; the light makes every tile different.
    """
    block = photo(BLOCK, BLOCK, seed, texture, grain)
    pair = block.join(block.fliphor(), "horizontal")
    tile = pair.join(pair.flipver(), "vertical").copy_memory()
    tiled = tile.replicate(-(-width // tile.width), -(-height // tile.height)).crop(0, 0, width, height)
    light = fractal(width, height, seed * 10 + 8, finest=10) * 0.05 + 1
    return (tiled * light).cast("uchar").copy(interpretation="srgb")
