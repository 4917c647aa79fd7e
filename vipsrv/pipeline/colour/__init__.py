"""Colours that a file states by numbers instead of an ICC profile, and their conversion to sRGB.

``primaries`` has the chromaticities of ITU-T H.273 and makes matrices of them, ``transfer`` the curves from
codes to light, ``space`` puts both together, and ``conversion`` applies them to images of libvips.
"""
