"""Uploads arrive through a network that cuts, stalls, resets and reorders; little is sent twice.

``python -m bench.tools.bad_network`` does the same with many and large images.
"""

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.bad_network import ALL_ENDINGS, BadNetwork, Ending, Fault, cut_every
from tests.support.images import coloured_cells_tiff
from tests.support.running_server import RunningServer, wait_until
from vipsrv import AsyncClient, Client, ResizeResult, Timeout
from vipsrv.client import ImageSource

SIZE = 64
"""Width and height of the results."""

TIMEOUT = Timeout(connect=10, send=10, reply=60)
KIB = 1024
MIB = 2**20


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with RunningServer("--workers", "1") as running:
        yield running


def resize(kind: str, port: int, image: ImageSource, resumable_from: int) -> ResizeResult:
    if kind == "blocking":
        with Client("127.0.0.1", port, timeout=TIMEOUT, resumable_from=resumable_from) as client:
            return client.resize(image, width=SIZE, height=SIZE, fit="fill", format="png")

    async def send() -> ResizeResult:
        async with AsyncClient("127.0.0.1", port, timeout=TIMEOUT, resumable_from=resumable_from) as client:
            return await client.resize(image, width=SIZE, height=SIZE, fit="fill", format="png")

    return asyncio.run(send())


def assert_shows(result: bytes, colours: list[list[tuple[int, int, int]]]) -> None:
    """Every cell of the image has its colour: no byte is missing, doubled or elsewhere."""
    with Image.open(io.BytesIO(result)) as opened:
        pixels = opened.convert("RGB")
    assert pixels.size == (SIZE, SIZE)
    cell = SIZE // len(colours)
    for row, expected in enumerate(colours):
        for column, colour in enumerate(expected):
            got = pixels.getpixel((column * cell + cell // 2, row * cell + cell // 2))
            assert isinstance(got, tuple)
            assert max(abs(a - b) for a, b in zip(got, colour, strict=True)) <= 3


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
@pytest.mark.parametrize(
    ("cut", "size"), [(64 * KIB, 3 * MIB), (256 * KIB, 6 * MIB), (MIB, 10 * MIB), (8 * MIB, 20 * MIB)]
)
def test_an_upload_arrives_through_a_bad_network(
    server: RunningServer, tmp_path: Path, kind: str, cut: int, size: int
) -> None:
    image, colours = coloured_cells_tiff(size, seed=cut)
    source: ImageSource = image
    if size % 2:
        source = tmp_path / "image.tif"
        source.write_bytes(image)
    faults = cut_every(cut, seed=size, endings=ALL_ENDINGS, stall_seconds=0.05)
    with BadNetwork(server.port, faults) as network:
        result = resize(kind, network.port, source, 64 * KIB)
        assert_shows(result.data, colours)
        assert result.attempts > 1
        assert network.accepted <= 1.05 * len(image) + 4096


def test_an_image_that_is_not_resumed_cannot_pass_such_a_network(server: RunningServer) -> None:
    """The test above would notice if nothing was resumed."""
    image, _ = coloured_cells_tiff(MIB)
    faults = cut_every(256 * KIB, endings=[Ending.RESET], limit=2)
    with BadNetwork(server.port, faults) as network:
        result = resize("blocking", network.port, image, 16 * MIB)
        assert result.resumed == 0 or network.accepted > 1.05 * len(image)


def test_a_command_that_was_killed_goes_on_when_it_is_started_anew(
    server: RunningServer, tmp_path: Path
) -> None:
    image, colours = coloured_cells_tiff(12 * MIB)
    path, output = tmp_path / "image.tif", tmp_path / "result.png"
    path.write_bytes(image)

    def stall_once(number: int) -> Fault | None:
        return Fault(ending=Ending.STALL, after=8 * MIB, seconds=300) if number == 0 else None

    with BadNetwork(server.port, stall_once) as network:
        command = [
            *(sys.executable, "-c", "from vipsrv.cli.client import main; main()", str(path)),
            *("--port", str(network.port), "--host", "127.0.0.1", "--output", str(output)),
            *("--width", str(SIZE), "--height", str(SIZE), "--fit", "fill"),
        ]
        environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
        first = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: network.accepted == 8 * MIB, "two thirds of the image")
        finally:
            first.kill()
            first.wait()
        before = network.accepted
        second = subprocess.run(
            [*command, "--json"], env=environment, capture_output=True, check=True, text=True
        )
        report = json.loads(second.stdout)
        assert second.stderr == ""
        assert report["resumed_bytes"] > 0.98 * 8 * MIB
        assert network.accepted - before < len(image) - report["resumed_bytes"] + 4096
        assert_shows(output.read_bytes(), colours)
        # The server still has the image, so that a third run has nothing to send.
        third = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
        assert "resumed at 100 %" in third.stdout
        assert third.stderr == ""
