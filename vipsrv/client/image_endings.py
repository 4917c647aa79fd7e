"""Which names look like those of images: the one list for everything that looks for images by itself."""

IMAGE_ENDINGS = frozenset(
    {
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "tif", "tiff", "gif", "avif", "bmp", "dib"),
        *("pnm", "pbm", "pgm", "ppm", "pam", "ico", "tga", "heic", "heif", "jxl", "jp2"),
        *("psd", "psb", "dds", "pcx", "sgi", "rgb", "rgba", "bw", "qoi", "hdr"),
    }
)
"""Endings in lower case, without the dot. The server decides by the content what it reads."""
