"""The formats that the registry finds, and the order in which it lists and recognises them."""

import pytest

from tests.pipeline.run import sample
from tests.support.images import SAMPLES
from vipsrv import pipeline
from vipsrv.options import Format
from vipsrv.pipeline.formats import registry
from vipsrv.pipeline.formats.base import BuiltinReader, LibvipsReader


def test_every_format_has_its_own_name_and_order() -> None:
    formats = registry.all_formats()
    assert len({one.name for one in formats}) == len(formats)
    assert [one.order for one in formats] == sorted({one.order for one in formats})
    assert all(one.reader or one.writer for one in formats)


def test_listings_have_a_fixed_order() -> None:
    assert registry.readable_names() == (
        *("jpeg", "png", "webp", "tiff", "gif", "avif", "heic", "jxl", "jp2", "svg", "pdf"),
        *("bmp", "pnm", "ico", "psd", "dds", "qoi", "sgi", "hdr", "pcx", "dib", "tga"),
    )
    written = pipeline.written_formats()
    assert written == tuple(one for one in Format if one in written)
    assert set(Format) - set(written) <= {Format.AUTO, Format.JXL}  # the wheel has no libjxl


def test_every_format_of_a_result_has_one_writer() -> None:
    writers = [one.writer for one in registry.all_formats() if one.writer is not None]
    assert sorted(one.format for one in writers) == sorted(set(Format) - {Format.AUTO})


def test_a_format_without_a_magic_number_is_asked_last() -> None:
    weak = [
        one.name
        for one in registry.all_formats()
        if isinstance(one.reader, BuiltinReader) and not one.reader.has_magic
    ]
    assert weak == ["pcx", "dib", "tga"]


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_readable_file_is_found_by_its_signature_as_well(name: str) -> None:
    data = sample(name)
    head = data[: registry.HEAD]
    format_ = registry.find_format(pipeline.Upload.from_memory(data), head)
    found = registry.recognise(head)
    assert format_ is not None
    assert found is not None
    assert found[1] is format_
    assert found[0].is_read


def test_a_prefix_is_part_of_the_signature() -> None:
    for one in registry.all_formats():
        if isinstance(one.reader, LibvipsReader) and one.reader.prefix is not None:
            found = registry.recognise(one.reader.prefix + bytes(100))
            assert found is not None
            assert found[1] is one
