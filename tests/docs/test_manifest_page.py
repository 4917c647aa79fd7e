"""The page about the manifest has each column with its type, and its examples run."""

import asyncio
import re
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.batch_rows import RUN, failed_row, ok_row, outputs, write_part
from vipsrv.batch.manifest.layout import shard_name
from vipsrv.batch.manifest.parts import schema
from vipsrv.batch.stores.folder_destination import FolderDestination

PAGE = (Path(__file__).parents[2] / "docs" / "guide" / "many-images-manifest.md").read_text()


def columns_on_page() -> dict[str, str]:
    section = PAGE.partition("## The columns\n")[2].partition("\n## ")[0]
    cells = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return {name: row[1] for row in cells for name in re.findall(r"`([\w.]+)`", row[0])}


def type_on_page(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return "list of structs"
    return "timestamp (ms, UTC)" if pa.types.is_timestamp(kind) else str(kind)


def test_each_column_is_there_with_its_type() -> None:
    expected = {}
    for column in schema():
        expected[column.name] = type_on_page(column.type)
        if pa.types.is_list(column.type):
            expected |= {
                f"{column.name}.{one.name}": type_on_page(one.type) for one in column.type.value_type
            }
    assert columns_on_page() == expected


@pytest.mark.parametrize("module", ["vipsrv", "pyarrow"])
def test_the_examples_run(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = outputs(320)

    async def write() -> None:
        destination = FolderDestination(tmp_path / "thumbs")
        await write_part(
            destination, shard_name(RUN, 1), made, ok_row("a.jpg", made), failed_row("b.jpg", made)
        )
        await destination.close()

    asyncio.run(write())
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (example,) = (one for one in examples if re.match(rf"(from|import) {module}\b", one))
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "example", "exec"), {})  # noqa: S102 - the text of our page
    printed = capsys.readouterr().out
    assert "corrupt_image" in printed
    assert "a.jpg" not in printed
