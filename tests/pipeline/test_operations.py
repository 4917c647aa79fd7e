"""A prepared operation gives the same as a plain call, repeatedly, and fails in the same way."""

import gc
import weakref

import pytest
import pyvips

from tests.pipeline.run import sample
from tests.support.images import SAMPLES
from vipsrv.pipeline.formats.base import BuiltinReader
from vipsrv.pipeline.formats.registry import format_named
from vipsrv.pipeline.vips.operations import PreparedOperation, Shape, shape


def test_a_prepared_operation_gives_the_same_as_a_plain_call() -> None:
    load = PreparedOperation("jpegload_source", "source", "shrink", access="sequential")
    reduce = PreparedOperation("reducev", "in", "vshrink", kernel="cubic")
    save = PreparedOperation("jpegsave_buffer", "in", "Q", output="buffer", keep="none")
    for shrink, factor, quality in [(1, 1.5, 80), (2, 3.25, 90), (1, 1.0, 30)]:
        made = load(pyvips.Source.new_from_memory(sample("jpeg")), shrink)
        plain = pyvips.Image.jpegload_buffer(sample("jpeg"), shrink=shrink)
        expected = plain.reducev(factor, kernel="cubic").jpegsave_buffer(Q=quality, keep="none")
        assert save(reduce(made, factor), quality) == expected


def test_a_failing_operation_raises_and_the_next_one_works() -> None:
    load = PreparedOperation("pngload_source", "source")
    with pytest.raises(pyvips.Error, match="pngload"):
        load(pyvips.Source.new_from_memory(b"this is no PNG"))
    assert load(pyvips.Source.new_from_memory(sample("png"))).width > 0


def test_an_unknown_operation_is_named() -> None:
    with pytest.raises(pyvips.Error, match="nothing_of_the_kind"):
        PreparedOperation("nothing_of_the_kind", "in")(pyvips.Image.black(1, 1))


def test_the_memory_of_an_image_lives_as_long_as_the_image() -> None:
    class Memory(bytearray):
        """Memory that a weak reference can watch."""

    memory = Memory(range(100))
    watched = weakref.ref(memory)
    image = pyvips.Image.new_from_memory(memory, 10, 10, 1, "uchar")
    turned = PreparedOperation("rot", "in", angle="d90")(image)
    del memory, image
    gc.collect()
    assert watched() is not None
    assert turned.max() == 99
    del turned
    gc.collect()
    assert watched() is None


def test_the_shape_is_what_pyvips_says() -> None:
    for name in sorted(SAMPLES):
        if isinstance(format_named(name.split("-")[0]).reader, BuiltinReader):
            continue
        image = pyvips.Image.new_from_buffer(sample(name), "")
        assert shape(image) == Shape(
            image.width, image.height, image.bands, image.format, image.interpretation
        )
