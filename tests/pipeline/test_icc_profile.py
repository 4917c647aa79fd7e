"""sRGB profiles are recognised by their content, and no others are."""

import struct
import sys

import pytest
from PIL import ImageCms

from tests.pipeline.run import run
from tests.support.image_comparison import open_exact
from tests.support.images import adobe_rgb_profile, jpeg, swapped_profile
from vipsrv.options import Fit, Format, Keep, ResizeOptions
from vipsrv.pipeline.icc_profile import is_srgb

PRIMARIES = {
    b"rXYZ": (0.4361, 0.2225, 0.0139),
    b"gXYZ": (0.3851, 0.7169, 0.0971),
    b"bXYZ": (0.1431, 0.0606, 0.7141),
}
ADOBE = {
    b"rXYZ": (0.6097, 0.3111, 0.0195),
    b"gXYZ": (0.2053, 0.6257, 0.0609),
    b"bXYZ": (0.1492, 0.0632, 0.7446),
}


def s15(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def parametric(kind: int, *numbers: float) -> bytes:
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + s15(*numbers)


def sampled(*values: float) -> bytes:
    return (
        b"curv\0\0\0\0"
        + struct.pack(">I", len(values))
        + struct.pack(f">{len(values)}H", *(round(value * 65535) for value in values))
    )


def gamma(number: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(number * 256))


def light(code: float) -> float:
    return code / 12.92 if code <= 0.04045 else float(((code + 0.055) / 1.055) ** 2.4)


SRGB_CURVE = parametric(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def profile(
    primaries: dict[bytes, tuple[float, float, float]] = PRIMARIES,
    curve: bytes = SRGB_CURVE,
    space: bytes = b"RGB ",
    **extra: bytes,
) -> bytes:
    tags = {name: b"XYZ \0\0\0\0" + s15(*colour) for name, colour in primaries.items()}
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    tags |= {name.encode(): data for name, data in extra.items()}
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, offset + len(body), len(data))
        body += data
    head = bytes(12) + b"mntr" + space + b"XYZ " + bytes(12) + b"acsp" + bytes(88)
    return head + table + body


@pytest.mark.parametrize(
    "data",
    [
        profile(),
        profile(curve=sampled(*(light(code / 1023) for code in range(1024)))),
        profile(curve=parametric(4, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, 0, 0)),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ],
    ids=["parametric", "sampled", "seven parameters", "LittleCMS"],
)
def test_versions_of_the_srgb_profile_are_recognised(data: bytes) -> None:
    assert is_srgb(data)


@pytest.mark.parametrize(
    "data",
    [
        profile(ADOBE, gamma(2.2)),
        profile(curve=gamma(2.2)),
        profile(curve=gamma(1.8)),
        profile(curve=sampled()),
        profile(ADOBE),
        profile(PRIMARIES | {b"rXYZ": PRIMARIES[b"gXYZ"]}),
        profile(space=b"GRAY"),
        profile(A2B0=b"mft2" + bytes(48)),
        swapped_profile(),
    ],
    ids=[
        "Adobe RGB",
        "gamma 2.2",
        "gamma 1.8",
        "linear",
        "other primaries",
        "two primaries alike",
        "grey",
        "a table",
        "swapped",
    ],
)
def test_other_profiles_are_not_srgb(data: bytes) -> None:
    assert not is_srgb(data)


def test_a_large_profile_is_not_kept() -> None:
    large = profile() + bytes(1 << 20)
    before = sys.getrefcount(large)
    assert not is_srgb(large)
    assert sys.getrefcount(large) == before


def test_a_damaged_profile_is_not_srgb() -> None:
    whole = profile()
    assert not any(is_srgb(whole[:size]) for size in range(0, len(whole) - 4, 5))
    assert not is_srgb(whole + bytes(20_000))
    huge = whole[:128] + struct.pack(">I", 2**32 - 1) + whole[132:]
    assert not is_srgb(huge)
    for curve in [
        parametric(9, 1),
        parametric(1, 2.4, 0, 0),
        parametric(0, -1),
        parametric(0, 2.4, 1)[:14],
        b"curv\0\0\0\0" + struct.pack(">I", 2**31),
        b"",
    ]:
        assert not is_srgb(profile(curve=curve))


def _patched(at: int, data: bytes) -> bytes:
    profile = adobe_rgb_profile()
    return profile[:at] + data + profile[at + len(data) :]


@pytest.mark.parametrize("file_format", [Format.PNG, Format.JPEG, Format.WEBP])
@pytest.mark.parametrize("keep", [Keep.ICC, Keep.ALL])
@pytest.mark.parametrize(
    "profile",
    [
        _patched(0, struct.pack(">I", 10_000)),  # its length: libpng refuses it
        _patched(128, struct.pack(">I", 1 << 30)),  # the number of its tags
        _patched(36, b"none"),  # its signature
        _patched(132, b"none" * 20),  # its first tags
    ],
)
def test_an_odd_profile_never_makes_a_result_fail(file_format: Format, keep: Keep, profile: bytes) -> None:
    options = ResizeOptions(
        width=50, height=80, fit=Fit.CONTAIN, background="#204060", format=file_format, keep=keep
    )
    (output,) = run(jpeg(icc_profile=profile), options).outputs
    assert open_exact(output.data).size == (50, 80)
    # A valid profile is still kept.
    (kept,) = run(jpeg(icc_profile=adobe_rgb_profile()), options).outputs
    assert open_exact(kept.data).info["icc_profile"] == adobe_rgb_profile()
