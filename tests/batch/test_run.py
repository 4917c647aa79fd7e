"""A whole batch, from folder to folder, with real servers."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from tests.server.identity.records import add
from tests.support.batch_images import check_destination, fill, manifest_rows
from tests.support.certificates import Lab
from tests.support.images import jpeg
from tests.support.running_server import RunningServer
from vipsrv.batch import Outputs, run
from vipsrv.batch.images import ListedImage
from vipsrv.batch.rows import Row
from vipsrv.batch.stores.folder_destination import FolderDestination
from vipsrv.batch.stores.folder_source import FolderSource
from vipsrv.batch.stores.interface import READ_WHOLE
from vipsrv.errors import (
    BatchError,
    ConnectFailed,
    StorageFailed,
    TlsFailed,
    TooManyFailures,
    Unauthorized,
)
from vipsrv.options import Fit, Format, ResizeOptions

SMALL = ResizeOptions(width=32, fit=Fit.INSIDE)
TINY = ResizeOptions(width=16, fit=Fit.INSIDE, format=Format.PNG)
COUNT = 120


@pytest.fixture(scope="module")
def address(server: RunningServer) -> str:
    """The address of a server that runs already."""
    return f"{server.host}:{server.port}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    return tmp_path / "destination"


def keys(rows: Iterator[Row]) -> list[str]:
    return [row.key for row in rows]


def test_every_image_has_its_row_and_every_result_its_file(source: Path, destination: Path) -> None:
    """With a server of its own."""
    expected = fill(source, COUNT)
    with run(source, destination, [SMALL, TINY], shard_size=50) as rows:
        given = {row.key: row for row in rows}
    assert {key: row.code for key, row in given.items()} == expected
    by_key = check_destination(destination, expected)
    ok = next(row for row in given.values() if row.ok)
    assert [one.key for one in ok.outputs] == [
        ok.key.replace(".jpg", "_32x.jpg"),
        ok.key.replace(".jpg", "_16x.png"),
    ]
    assert [(one.width, one.height, one.format) for one in ok.outputs] == [(32, 24, "jpeg"), (16, 12, "png")]
    assert by_key[ok.key]["ms"] == ok.ms > 0
    assert (ok.status, ok.attempts, ok.bytes) == (200, 1, (source / ok.key).stat().st_size)
    assert len(list((destination / ".vipsrv" / "parts").iterdir())) == 3
    progress = rows.progress
    assert (progress.listed, progress.listing_done, progress.skipped) == (COUNT, True, 0)
    assert (progress.done, progress.failures, progress.in_flight) == (COUNT - 6, 6, 0)
    assert progress.bytes_in == sum(row.bytes for row in given.values() if row.ok)
    assert progress.bytes_out == sum(one.bytes for row in given.values() for one in row.outputs)


def test_a_second_run_does_what_is_new_or_changed(source: Path, destination: Path, address: str) -> None:
    fill(source, 20)
    assert len(keys(run(source, destination, SMALL, server=address))) == 20
    (source / "new.jpg").write_bytes(jpeg(40, 30))
    (source / "a" / "image00003.jpg").write_bytes(jpeg(40, 30))
    again = run(source, destination, SMALL, server=address)
    assert sorted(keys(again)) == ["a/image00003.jpg", "new.jpg"]
    assert again.progress.skipped == 19
    assert sorted(keys(run(source, destination, SMALL, server=address, retry_failed=True))) == [
        "b/image00001.jpg"
    ]
    assert keys(run(source, destination, SMALL, server=address, retry_failed=["corrupt_image"])) == []
    assert keys(run(source, destination, SMALL, server=address, retry_failed=["empty"])) == [
        "b/image00001.jpg"
    ]
    assert len(keys(run(source, destination, TINY, server=address))) == 21


def test_a_run_with_nothing_to_do_starts_no_server(
    source: Path, destination: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source, 3)
    keys(run(source, destination, SMALL, server=address))
    monkeypatch.setenv("VIPSRV_QUALITY", "101")  # a server of its own would not start
    assert keys(run(source, destination, SMALL)) == []


def test_a_limit(source: Path, destination: Path, address: str) -> None:
    fill(source, 20)
    assert len(keys(run(source, destination, SMALL, server=address, limit=7, shard_size=3))) == 7
    assert len(keys(run(source, destination, SMALL, server=address))) == 13


def test_it_stops_if_too_many_images_fail(source: Path, destination: Path, address: str) -> None:
    expected = fill(source, 400)
    rows = run(source, destination, SMALL, server=address, max_error_rate=0.01)
    given: list[Row] = []
    with pytest.raises(TooManyFailures, match="images failed"):
        given.extend(rows)
    assert 100 <= len(given) < 400
    assert not set(manifest_keys(destination)) ^ {row.key for row in given}
    given.extend(run(source, destination, SMALL, server=address))
    assert {row.key: row.code for row in given} == expected
    check_destination(destination, expected)


def manifest_keys(destination: Path) -> list[str]:
    return [str(row["key"]) for row in manifest_rows(destination)]


def test_stop_in_the_middle(source: Path, destination: Path, address: str) -> None:
    expected = fill(source, 300)
    with run(source, destination, SMALL, server=address, shard_size=100) as rows:
        first = [next(rows) for _ in range(5)]
        rows.stop()
        given = [*first, *rows]
    assert len(given) < 300
    assert sorted(manifest_keys(destination)) == sorted(row.key for row in given)
    rest = list(run(source, destination, SMALL, server=address))
    assert {row.key for row in rest}.isdisjoint(row.key for row in given)
    check_destination(destination, expected)


def test_a_loop_that_is_left_lets_the_images_in_flight_end(
    source: Path, destination: Path, address: str
) -> None:
    expected = fill(source, 300)
    first = ""
    for row in run(source, destination, SMALL, server=address):
        first = row.key
        break
    done = manifest_keys(destination)  # the run has ended with the loop: its part is there
    assert first in done
    assert len(done) < 300
    rest = keys(run(source, destination, SMALL, server=address))
    assert set(rest).isdisjoint(done)
    check_destination(destination, expected)


def test_an_error_in_the_block_ends_the_run(source: Path, destination: Path, address: str) -> None:
    fill(source, 300)
    rows = run(source, destination, SMALL, server=address)

    def fail_in_the_block() -> None:
        with rows:
            next(rows)
            raise KeyError

    with pytest.raises(KeyError):
        fail_in_the_block()
    assert list(rows) == []
    assert keys(run(source, destination, SMALL, server=address))  # nobody holds the lock any more


def test_what_cannot_be_is_refused_before_anything_starts(source: Path, destination: Path) -> None:
    fill(source, 1)
    with pytest.raises(ValueError, match="source and the destination"):
        run(source, source, SMALL)
    with pytest.raises(ValueError, match=r"\{frame\} is none"):
        run(source, destination, Outputs((SMALL,), "{stem}{frame}"))
    with pytest.raises(ValueError, match="attempts"):
        run(source, destination, SMALL, attempts=0)
    with pytest.raises(ValueError, match="engine"):
        run(source, destination, SMALL, engine="cloud")
    with pytest.raises(ValueError, match="for HTTP"):
        run(source, destination, SMALL, server="http://127.0.0.1:80")
    with pytest.raises(ValueError, match="limit"):
        run(source, destination, SMALL, limit=0)
    with pytest.raises(ValueError, match="a list of codes"):
        run(source, destination, SMALL, retry_failed="empty")
    with pytest.raises(StorageFailed):
        run(source / "none", destination, SMALL)
    assert not destination.exists()


def test_a_destination_in_the_source_is_not_listed(source: Path, address: str) -> None:
    fill(source, 10)
    inside = source / "a" / "small"
    assert len(keys(run(source, inside, SMALL, server=address))) == 10
    assert keys(run(source, inside, SMALL, server=address)) == []


def test_two_images_of_one_name(source: Path, destination: Path, address: str) -> None:
    source.mkdir()
    for name in ("one.jpg", "one.jpeg", "two.jpg"):
        (source / name).write_bytes(jpeg(40, 30))
    codes = sorted(row.code for row in run(source, destination, SMALL, server=address))
    assert codes == ["name_conflict", "ok", "ok"]


# Servers


def test_a_server_that_is_not_there(source: Path, destination: Path) -> None:
    fill(source, 3)
    with pytest.raises(ConnectFailed):
        list(run(source, destination, SMALL, server="127.0.0.1:1"))


def test_a_server_with_tokens_over_tls(source: Path, destination: Path, tmp_path: Path) -> None:
    expected = fill(source, 25)
    lab = Lab(tmp_path / "lab")
    certificate, key = lab.server()
    token = add(tmp_path / "tokens.toml")
    with RunningServer(
        *("--workers", "1", "--tokens", str(tmp_path / "tokens.toml"), "--listen", "tls://127.0.0.1:0"),
        *("--tls-cert", str(certificate), "--tls-key", str(key)),
    ) as server:
        address = server.listeners[0]
        with pytest.raises(TlsFailed):
            list(run(source, destination, SMALL, server=address, token=token.text))
        with pytest.raises(Unauthorized):
            list(run(source, destination, SMALL, server=address, ca=lab.ca, token="vst_wrong"))  # noqa: S106 - none
        rows = list(run(source, destination, SMALL, server=address, ca=lab.ca, token=token.text))
    assert len(rows) == 25
    check_destination(destination, expected)


def test_a_busy_server_slows_it_down(source: Path, destination: Path) -> None:
    """The queue holds fewer requests than the window has places."""
    expected = fill(source, 60)
    with RunningServer("--workers", "1", "--queue", "1") as server:
        rows = list(run(source, destination, SMALL, server=f"{server.host}:{server.port}"))
    assert {row.key: row.code for row in rows} == expected
    assert {row.attempts for row in rows if row.ok} == {1}
    check_destination(destination, expected)


def server_of(parent: psutil.Process) -> psutil.Process:
    """The server that this process has started for a batch, and not one of the tests."""
    return next(one for one in parent.children() if "--until-stdin-closes" in one.cmdline())


def test_a_server_of_its_own_that_is_killed_is_started_again(source: Path, destination: Path) -> None:
    expected = fill(source, 400)
    killed = 0
    given = {}
    with run(source, destination, SMALL) as rows:
        for number, row in enumerate(rows):
            given[row.key] = row
            if number in {20, 200}:
                server_of(psutil.Process()).send_signal(signal.SIGKILL)
                killed += 1
    assert killed == 2
    assert {key: row.code for key, row in given.items()} == expected
    check_destination(destination, expected)


def test_a_worker_that_is_killed_costs_an_attempt_at_most(source: Path, destination: Path) -> None:
    expected = fill(source, 200)
    given = {}
    with RunningServer("--workers", "1") as server:
        for number, row in enumerate(run(source, destination, SMALL, server=f"{server.host}:{server.port}")):
            given[row.key] = row
            if number in {20, 100}:
                for worker in psutil.Process(server.pid).children():
                    worker.send_signal(signal.SIGKILL)
    assert {key: row.code for key, row in given.items()} == expected
    check_destination(destination, expected)


# Storage


def test_a_source_that_disappears(source: Path, destination: Path, address: str) -> None:
    expected = fill(source, 300)
    moved = source.with_name("moved")
    given: list[Row] = []
    with run(source, destination, SMALL, server=address, shard_size=50) as rows:
        given.append(next(rows))
        source.rename(moved)
        with pytest.raises(StorageFailed, match="source"):
            given.extend(rows)
    assert all(row.ok or expected[row.key] == row.code for row in given)
    moved.rename(source)
    given.extend(run(source, destination, SMALL, server=address))
    assert {row.key: row.code for row in given} == expected
    check_destination(destination, expected)


def test_a_destination_that_is_full(
    source: Path, destination: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fill(source, 200)
    write = FolderDestination._write
    written = 0

    def full(self: FolderDestination, key: str, data: bytes) -> None:
        nonlocal written
        written += not key.startswith(".vipsrv/")  # results, not the record of the run
        if written > 50:
            raise StorageFailed(str(destination), os.strerror(errno.ENOSPC))
        write(self, key, data)

    monkeypatch.setattr(FolderDestination, "_write", full)
    given: list[Row] = []
    with pytest.raises(StorageFailed, match="No space"):
        given.extend(run(source, destination, SMALL, server=address))
    assert len([row for row in given if row.ok]) == 50
    monkeypatch.setattr(FolderDestination, "_write", write)
    given.extend(run(source, destination, SMALL, server=address))
    assert {row.key: row.code for row in given} == expected
    assert len(given) == 200  # none was done twice
    check_destination(destination, expected)


class NeverEnding(FolderSource):
    """A folder whose listing does not end until it is cancelled."""

    async def images(self) -> AsyncIterator[ListedImage]:
        async for image in super().images():
            yield image
        await asyncio.Event().wait()


def test_two_runs_at_one_destination(source: Path, destination: Path, address: str) -> None:
    fill(source, 1)
    with run(NeverEnding(source), destination, SMALL, server=address, shard_size=1) as rows:
        next(rows)  # it has the lock until the block ends
        with pytest.raises(BatchError, match="at work on this destination"):
            list(run(source, destination, SMALL, server=address))


def test_a_list_that_is_wrong_about_its_files(source: Path, destination: Path, address: str) -> None:
    fill(source, 1)
    os.mkfifo(source / "pipe.jpg")
    large = jpeg(64, 48) + bytes(READ_WHOLE)
    (source / "large.jpg").write_bytes(large)
    listed = [{"key": "pipe.jpg", "size": 9}, {"key": "large.jpg", "size": 9}, {"key": "a/image00000.jpg"}]
    (source / "list.jsonl").write_text("\n".join(map(json.dumps, listed)))
    given = {row.key: row for row in run(source / "list.jsonl", destination, SMALL, server=address)}
    codes = {key: row.code for key, row in given.items()}
    assert codes == {"pipe.jpg": "source_unreadable", "large.jpg": "ok", "a/image00000.jpg": "ok"}
    assert given["large.jpg"].bytes == len(large)


def test_no_result_replaces_an_image(tmp_path: Path, address: str) -> None:
    """The source may be inside the destination, and a list may have the destination as its base."""
    source = tmp_path / "photos"
    (source / "photos").mkdir(parents=True)
    for name in ("a.jpg", "photos/a.jpg"):
        (source / name).write_bytes(jpeg(64, 48))
    same_name = Outputs((SMALL,), name="{folder}{stem}.{ext}")
    codes = {row.key: row.code for row in run(source, tmp_path, same_name, server=address)}
    assert codes == {"a.jpg": "ok", "photos/a.jpg": "name_conflict"}
    (source / "list.txt").write_text("a.jpg")
    (row,) = run(source / "list.txt", source, same_name, server=address)
    assert (row.code, (source / "a.jpg").read_bytes()) == ("name_conflict", jpeg(64, 48))
    (row,) = run(source / "list.txt", source, SMALL, server=address)
    assert row.outputs[0].key == "a_32x.jpg"
    elsewhere = source / "elsewhere.txt"
    elsewhere.write_text(str(tmp_path / "a.jpg"))
    assert [one.code for one in run(elsewhere, source, same_name, server=address)] == ["ok"]


# Loading


@pytest.mark.parametrize("module", ["vipsrv.batch", "vipsrv.batch.batch_run"])
def test_it_loads_no_package_of_an_extra(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "print(*loaded & {'pyarrow', 'obstore', 'fsspec', 'ray', 'rich'})"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""
