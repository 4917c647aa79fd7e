"""The geometry of every fit."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vipsrv.options import Fit, ImageInfo, ResizeOptions
from vipsrv.pipeline.geometry import Geometry, fit

WIDE = (400, 200)
TALL = (200, 400)


@pytest.mark.parametrize(
    ("source", "asked", "scaled", "result"),
    [
        (WIDE, {"width": 100, "height": 100}, (100, 100), (100, 100)),
        (WIDE, {"fit": "inside", "width": 100, "height": 100}, (100, 50), (100, 50)),
        (TALL, {"fit": "inside", "width": 100, "height": 100}, (50, 100), (50, 100)),
        (WIDE, {"fit": "outside", "width": 100, "height": 100}, (200, 100), (200, 100)),
        (TALL, {"fit": "outside", "width": 100, "height": 100}, (100, 200), (100, 200)),
        (WIDE, {"fit": "contain", "width": 100, "height": 100}, (100, 50), (100, 100)),
        (TALL, {"fit": "contain", "width": 100, "height": 100}, (50, 100), (100, 100)),
        (WIDE, {"fit": "cover", "width": 100, "height": 100}, (200, 100), (100, 100)),
        (TALL, {"fit": "cover", "width": 100, "height": 100}, (100, 200), (100, 100)),
        # One side only: the proportions of the image.
        (WIDE, {"fit": "inside", "width": 100}, (100, 50), (100, 50)),
        (WIDE, {"fit": "outside", "height": 100}, (200, 100), (200, 100)),
        (WIDE, {"fit": "contain", "width": 100}, (100, 50), (100, 50)),
        (WIDE, {"fit": "cover", "height": 100}, (200, 100), (200, 100)),
        # Larger than the source.
        (WIDE, {"fit": "inside", "width": 800}, (800, 400), (800, 400)),
        (WIDE, {"fit": "fill", "width": 800, "height": 100, "enlarge": False}, (400, 100), (400, 100)),
        (WIDE, {"fit": "fill", "width": 800, "height": 800, "enlarge": False}, (400, 200), (400, 200)),
        (WIDE, {"fit": "inside", "width": 800, "height": 800, "enlarge": False}, (400, 200), (400, 200)),
        (WIDE, {"fit": "inside", "width": 800, "enlarge": False}, (400, 200), (400, 200)),
        (WIDE, {"fit": "inside", "width": 100, "height": 900, "enlarge": False}, (100, 50), (100, 50)),
        (WIDE, {"fit": "outside", "width": 300, "height": 300, "enlarge": False}, (400, 200), (400, 200)),
        (WIDE, {"fit": "cover", "width": 300, "height": 300, "enlarge": False}, (400, 200), (300, 200)),
        (WIDE, {"fit": "contain", "width": 800, "height": 600, "enlarge": False}, (400, 200), (800, 600)),
        # Rounded half up, and at least 1.
        ((3, 2), {"fit": "inside", "width": 2}, (2, 1), (2, 1)),
        ((2, 3), {"fit": "inside", "width": 1}, (1, 2), (1, 2)),
        ((1000, 1), {"fit": "inside", "width": 10}, (10, 1), (10, 1)),
    ],
)
def test_geometry_of_every_fit(
    source: tuple[int, int], asked: dict[str, Any], scaled: tuple[int, int], result: tuple[int, int]
) -> None:
    placed = fit(ResizeOptions(**asked), *source)
    assert placed == Geometry(scaled=scaled, fitted=result, width=result[0], height=result[1])


sides = st.integers(1, 100_000)


@given(kind=st.sampled_from(Fit), width=sides, height=sides, across=sides, down=sides, enlarge=st.booleans())
def test_properties_of_every_geometry(
    kind: Fit, width: int, height: int, across: int, down: int, *, enlarge: bool
) -> None:
    asked = ResizeOptions(width=across, height=down, fit=kind, enlarge=enlarge)
    placed = fit(asked, width, height)
    scaled_width, scaled_height = placed.scaled
    assert min(scaled_width, scaled_height, placed.width, placed.height) >= 1
    if not enlarge:
        assert scaled_width <= width
        assert scaled_height <= height
    if kind is Fit.CONTAIN or (enlarge and kind in {Fit.COVER, Fit.FILL}):
        assert (placed.width, placed.height) == (across, down)
    if kind is Fit.COVER:
        assert placed.width <= scaled_width
        assert placed.height <= scaled_height
    elif kind is Fit.CONTAIN:
        assert scaled_width <= across
        assert scaled_height <= down
    else:
        assert (placed.width, placed.height) == placed.scaled
    if enlarge and kind is Fit.INSIDE:
        assert scaled_width <= across
        assert scaled_height <= down
        assert scaled_width == across or scaled_height == down
    if enlarge and kind is Fit.OUTSIDE:
        assert scaled_width >= across
        assert scaled_height >= down


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_swaps_width_and_height_from_5_on(orientation: int) -> None:
    info = ImageInfo(
        format="jpeg", width=40, height=30, pages=1, has_alpha=False, orientation=orientation, size=1
    )
    assert info.upright_size == ((40, 30) if orientation < 5 else (30, 40))
    assert info.swap_if_rotated(*info.upright_size) == (40, 30)
