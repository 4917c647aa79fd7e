"""The images of a source are counted beside a run."""

from collections.abc import AsyncIterator
from pathlib import Path

from vipsrv.batch.images import ListedImage
from vipsrv.batch.stores.folder_source import FolderSource
from vipsrv.batch.stores.interface import Source
from vipsrv.batch.stores.open_store import open_source
from vipsrv.batch.total_count import TotalCount


def test_it_counts_all_images(tmp_path: Path) -> None:
    for index in range(30):
        folder = tmp_path / str(index % 3)
        folder.mkdir(exist_ok=True)
        (folder / f"{index}.jpg").write_bytes(b"x")
    with TotalCount(lambda: open_source(tmp_path)) as count:
        count.wait()
        assert count.value == 30


def test_a_source_that_cannot_be_opened_has_no_count(tmp_path: Path) -> None:
    with TotalCount(lambda: open_source(tmp_path / "none")) as count:
        count.wait()
        assert count.value is None


class Endless(FolderSource):
    """A folder that lists images until nobody wants them."""

    closed = False

    async def images(self) -> AsyncIterator[ListedImage]:
        while True:
            yield ListedImage(key="x")

    async def close(self) -> None:
        await super().close()
        self.closed = True


def test_it_ends_with_the_block(tmp_path: Path) -> None:
    source = Endless(str(tmp_path))

    def opened() -> Source:
        return source

    with TotalCount(opened) as count:
        pass
    count.wait()
    assert count.value is None
    assert source.closed
