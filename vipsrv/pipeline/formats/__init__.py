"""The image formats, one file each: everything about a format is in its file.

==============  =====================================================================================
``jpeg``        with shrink-on-load, and the layout of its segments and scans
``png``
``webp``
``tiff``        a package: checks for files that libvips decodes wrongly, and a reader of directories
``gif``
``heif``        AVIF and HEIC, which libvips reads by one loader
``optional``    JPEG XL, read if this libvips has a loader; so are ``jp2``, and SVG and PDF (``drawings``)
``bmp``         a package: Windows and OS/2 bitmaps, read by vipsrv itself
``pnm``         PBM, PGM, PPM, PAM; likewise
``ico``         icons and cursors; likewise
``psd``         a package: the merged image of Photoshop documents; likewise, packed rows by libtiff
``dds``         a package: DirectDraw surfaces; likewise
``qoi``         QOI; likewise
``sgi``         SGI images; likewise
``hdr``         Radiance HDR; likewise
``pcx``         ZSoft PCX; likewise, recognised without a magic number
``dib``         bitmaps without a file header; likewise, by the reader of ``bmp``
``tga``         Truevision TGA; likewise
--------------  -------------------------------------------------------------------------------------
``base``        the classes that describe a format: read this before adding one
``registry``    finds all descriptions in this folder, switches readers on, chooses the reader of an upload
``unsupported`` names of formats that are not read, for error messages
==============  =====================================================================================

To add a format, add a module here that defines ``FORMATS``, a tuple of ``ImageFormat``. A format that can be
written also needs its name in ``vipsrv.options.Format``.
"""
