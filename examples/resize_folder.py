"""Resize all images of a folder with asyncio: ``python resize_folder.py photos thumbnails``.

All requests share one connection and do not wait for each other's replies. A semaphore bounds how many are in
flight, so that a large folder does not fill the server's queue.
"""

import asyncio
import sys
from pathlib import Path

from vipsrv import AsyncClient, RequestError

IN_FLIGHT = 8


async def resize_all(paths: list[Path], folder: Path) -> None:
    """Write a thumbnail of every file to ``folder``."""
    places = asyncio.Semaphore(IN_FLIGHT)

    async with AsyncClient() as client:

        async def resize(path: Path) -> None:
            async with places:
                try:
                    result = await client.resize(path, width=200, height=200, fit="cover")
                except RequestError as error:
                    # One file that is not an image must not stop the others.
                    print(f"{path}: {error.code}: {error.message}", file=sys.stderr)
                    return
            result.save(folder / f"{path.stem}.jpg")

        async with asyncio.TaskGroup() as group:
            for path in paths:
                group.create_task(resize(path))


def main(source: str, target: str) -> None:
    """Write a thumbnail of every file in the folder ``source`` to the folder ``target``."""
    folder = Path(target)
    folder.mkdir(exist_ok=True)
    asyncio.run(resize_all([path for path in Path(source).iterdir() if path.is_file()], folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
