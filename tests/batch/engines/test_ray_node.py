"""What an actor checks and sends, and where actors are placed: without Ray."""

import asyncio
from pathlib import Path

import pytest

from vipsrv.batch.engines.interface import Work
from vipsrv.batch.engines.ray_actors import Placement
from vipsrv.batch.engines.ray_connection import ClusterNode, RayConnection
from vipsrv.batch.engines.ray_node import MOST_ROWS, Node, NodeWork, RowBatches, has_image
from vipsrv.batch.images import ListedImage
from vipsrv.batch.outputs import Outputs
from vipsrv.batch.rows import OK, Row
from vipsrv.batch.stores.open_store import open_destination, open_source
from vipsrv.errors import BatchError, StorageFailed
from vipsrv.options import Fit, ResizeOptions

PROOF = ".vipsrv/ray"


def row(number: int) -> Row:
    return Row(
        key=str(number),
        version="",
        options="",
        bytes=0,
        status=200,
        code=OK,
        attempts=1,
        ms=0.0,
        ended=0,
        run="r",
    )


@pytest.mark.parametrize("proof", [None, b"an earlier run"])
async def test_an_actor_refuses_a_destination_that_is_not_the_drivers(
    tmp_path: Path, proof: bytes | None
) -> None:
    (tmp_path / "in").mkdir()
    destination = open_destination(tmp_path / "out")
    if proof is not None:
        await destination.write(PROOF, proof)
    work = Work(
        source=open_source(tmp_path / "in"),
        destination=destination,
        outputs=Outputs((ResizeOptions(width=16, fit=Fit.INSIDE),)),
        run="this run",
    )
    node = Node()
    with pytest.raises(StorageFailed, match="must reach the same destination"):
        await node.start(NodeWork.of(work, proof=PROOF), 1)
    await node.close()
    await work.source.close()
    await destination.close()


async def test_an_image_that_is_there_is_seen(tmp_path: Path) -> None:
    (tmp_path / "here.jpg").write_bytes(b"1")
    source = open_source(tmp_path)
    assert await has_image(source, ListedImage(key="here.jpg"))
    assert not await has_image(source, ListedImage(key="elsewhere.jpg"))
    await source.close()


async def test_rows_are_sent_in_batches_and_the_end_is_none() -> None:
    batches = RowBatches()
    for number in range(MOST_ROWS + 3):
        batches.add(row(number))
    assert len(await batches.next()) == MOST_ROWS
    waiting = asyncio.create_task(batches.next())  # for more, but not for long
    assert [one.key for one in await waiting] == ["100", "101", "102"]
    batches.add(row(7))
    batches.end()
    assert [one.key for one in await batches.next()] == ["7"]
    assert await batches.next() == []


@pytest.mark.parametrize(
    ("placement", "own", "cpus"),
    [
        (Placement(actors=2, cpus=3), False, 3),
        (Placement(actors=2), True, 4),  # this machine is divided
        (Placement(actors=20), True, 1),
        (Placement(actors=20), False, 8),  # a whole node each, so that a cluster grows
    ],
)
def test_the_cores_of_an_actor(placement: Placement, own: bool, cpus: int) -> None:  # noqa: FBT001 - a value
    nodes = [ClusterNode("1", "a", 8), ClusterNode("2", "b", 16)]
    assert placement.cpus_of_each(nodes, own=own) == cpus


@pytest.mark.parametrize(("name", "value"), [("actors", 0), ("actor_cpus", -1)])
def test_impossible_numbers_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{name}: must be from 1, not {value}"):
        Placement(**{{"actors": "actors", "actor_cpus": "cpus"}[name]: value})


async def test_an_address_of_the_ray_client_is_refused() -> None:
    with pytest.raises(BatchError, match="cannot use the Ray Client"):
        await RayConnection.open("ray://127.0.0.1:10001")
