"""Small files for the trial of formats that libvips may be able to read but not to write.

The first three are a gradient, written by heif-enc 1.19 (libheif, x265), cjxl 0.11 (libjxl) and opj_compress
2.5 (OpenJPEG) of Debian 13.
"""

import base64

HEIC = base64.b64decode(
    """
    AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA
    ACJpbG9jAAAAAERAAAEAAQAAAAABoAABAAAAAAAAADkAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRt
    AAAAAAABAAAA/GlwcnAAAADcaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMA
    AAMAHroCQGEAAQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPAiQAAABNjb2xybmNs
    eAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFwAAAACAAAAAEAAAAIAAAAAf///8gAAAAC////yAAAAAIAAAAQcGl4
    aQAAAAADCAgIAAAAGGlwbWEAAAAAAAAAAQABBYECAwWEAAAAQW1kYXQAAAA1KAGvE4Do5QaqtsLzTvuUYktMFKgflu5W5XjZAx22
    ROMB2nP91zzxBF3RMBz30jP+xBIgAb8=
    """
)

JXL = base64.b64decode(
    """
    /wpBBgATiAIA5AAjbhEAgAqVUcYNXs71fPmhw2LaxnWGttq2sISx2V4YJCQcNRTp5jCbaDCpJJGSMa4ZBgBcz4ABEAA=
    """
)

JP2 = base64.b64decode(
    """
    AAAADGpQICANCocKAAAAFGZ0eXBqcDIgAAAAAGpwMiAAAAAtanAyaAAAABZpaGRyAAAAQAAAAEAAAwcHAAAAAAAPY29scgEAAAAA
    ABAAAAD8anAyY/9P/1EALwAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAAAwcBAQcBAQcBAf9SAAwAAAABAQUEBAAB
    /1wAE0BASEhQSEhQSEhQSEhQSEhQ/2QAJQABQ3JlYXRlZCBieSBPcGVuSlBFRyB2ZXJzaW9uIDIuNS4z/5AACgAAAAAAdQAB/5PP
    sBQJFS91j8BwQAzXwCIIf8fSDA0CBcA4IA31wBCACMPmCgAiGghdj8ARgBfR28ARABfXwfMHADahma5jo1+AgMD4xABfp8eIoA2w
    f8ASgCxaXkh/wBIALFxBf8B8AoCLYgGrqICA/9k=
    """
)

# With a text, because the libraries for fonts, too, are loaded at their first use.
SVG = b"""<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><text y="8">a</text></svg>"""

PDF = b"""%PDF-1.4
1 0 obj <</Type /Catalog /Pages 2 0 R>> endobj
2 0 obj <</Type /Pages /Kids [3 0 R] /Count 1>> endobj
3 0 obj
<</Type /Page /Parent 2 0 R /MediaBox [0 0 8 8] /Contents 4 0 R /Resources <</Font <</F 5 0 R>>>>>>
endobj
4 0 obj <</Length 26>> stream
BT /F 8 Tf 0 0 Td (a) Tj ET
endstream endobj
5 0 obj <</Type /Font /Subtype /Type1 /BaseFont /Helvetica>> endobj
trailer <</Root 1 0 R>>
%%EOF
"""
