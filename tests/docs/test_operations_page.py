"""The page about operations has an image for each of its lines, and a section for each operation."""

import importlib.util
import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vipsrv import pipeline
from vipsrv.cli.operation_flags import OPERATION_FLAGS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "guide" / "operations.md").read_text()


@pytest.fixture(scope="module")
def hook() -> Any:
    spec = importlib.util.spec_from_file_location("operation_images", DOCS / "operation_images.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pipeline.start()
    return module


def test_every_line_has_an_image_of_its_width(hook: Any) -> None:
    shown = hook.requests(PAGE)
    assert shown
    for image, query in shown:
        with Image.open(io.BytesIO(hook.render(image, query))) as result:
            assert result.format == "WEBP"
            width = int(re.findall(r"width=(\d+)", query)[0])
            assert width <= result.width <= width + 100


def test_lines_become_a_table_of_images(hook: Any) -> None:
    text = "a\n\n<!-- operation: width=20&flip=both -->\n<!-- operation(framed): width=20 -->\n\nb"
    first, second = hook.expand(text, "guide/operations.md").split("\n")[2].strip("| ").split(" | ")
    assert re.fullmatch(r"!\[width=20&flip=both\]\(\.\./assets/operations/[0-9a-f]{12}\.webp\)", first)
    assert second.startswith("![width=20](../assets/operations/")
    assert "<!-- operation" not in hook.expand(PAGE, "guide/operations.md")


def test_the_page_has_a_section_with_images_for_each_operation_in_their_order() -> None:
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
    operations = [name for name in OPERATION_FLAGS if not name.startswith("watermark_")]
    assert [name for name in sections if name in operations] == operations
    for name in operations:
        assert f"{name}=" in "".join(re.findall(r"<!-- operation.*-->", sections[name]))
