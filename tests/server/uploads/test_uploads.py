"""What is kept of uploads, for whom, for how long, and what goes if room is needed."""

import asyncio
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from tests.server.uploads.conftest import MIB, MakeStore
from tests.support.slots import content
from vipsrv.errors import BadRequest, Busy, UploadConflict
from vipsrv.server.accounts import Account
from vipsrv.server.uploads import folder as folder_module
from vipsrv.server.uploads.folder import InUseError, UploadInfo
from vipsrv.server.uploads.idle import MOST_OF_CLIENT
from vipsrv.server.uploads.states import UploadState

A, B, C = "a" * 32, "b" * 32, "c" * 32
SMALL = bytes(range(256)) * 1000
LARGE = bytes(range(251)) * (9 * MIB // 251)
HALF = 123_457


async def test_what_was_sent_is_held_and_comes_back(make_store: MakeStore) -> None:
    store = make_store()
    for upload_id, data in ((A, SMALL), (B, LARGE)):
        await store.send(upload_id, data[:HALF], len(data))
        assert store.received(upload_id) == HALF
        slot = store.uploads.open(store.account, upload_id, len(data), HALF)
        await store.fill(slot, data[HALF:])
        while not slot.complete:
            await asyncio.sleep(0)
        assert content(slot) == data
        slot.close()
    assert store.uploads.counts.resumed == 2
    assert store.uploads.counts.saved == 2 * HALF


async def test_nothing_of_the_spool_is_lost_when_all_are_terminated(make_store: MakeStore) -> None:
    store = make_store()
    for upload_id, data in ((A, SMALL), (B, LARGE)):
        await store.send(upload_id, data[:HALF], len(data))
        assert store.uploads.terminate(store.account, upload_id)
        assert not store.uploads.terminate(store.account, upload_id)
        assert store.received(upload_id) is None
    assert (store.spool.memory_left, store.spool.disk_left) == (64 * MIB, 256 * MIB)
    assert store.account.is_unused
    assert len(store.uploads.idle) == store.uploads.idle.memory == store.uploads.idle.disk == 0


async def test_a_file_that_waits_is_not_open(make_store: MakeStore) -> None:
    store = make_store()
    await store.send(A, LARGE[:HALF], len(LARGE))
    assert store.spool.use.files == 0
    assert store.spool.use.disk == HALF


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["memory", "file"])
async def test_another_owner_sees_nothing(make_store: MakeStore, data: bytes) -> None:
    store = make_store()
    shop, other = Account("identity:shop"), Account("identity:other")
    await store.send(A, data[:HALF], len(data), account=shop)
    for stranger in (other, store.account):
        assert store.received(A, stranger) is None
        with pytest.raises(UploadConflict, match="holds 0 bytes"):
            store.uploads.open(stranger, A, len(data), HALF)
        assert not store.uploads.terminate(stranger, A)
    # Addresses are no identities: whoever has the id may go on.
    await store.send(B, data[:HALF], len(data), account=Account("192.0.2.1"))
    assert store.received(B, Account("192.0.2.2")) == HALF
    assert store.received(A, shop) == HALF


async def test_a_second_request_works_on_a_complete_upload_at_the_same_time(make_store: MakeStore) -> None:
    store = make_store()
    first = store.uploads.open(store.account, A, len(LARGE), 0)
    await store.fill(first, LARGE)
    second = store.uploads.open(store.account, A, len(LARGE), len(LARGE))
    while not (first.complete and second.complete):
        await asyncio.sleep(0)
    first.close()
    assert content(second) == LARGE
    assert store.uploads.terminate(store.account, A)  # the one that works on it keeps it
    assert content(second) == LARGE
    second.close()
    async with asyncio.timeout(30):
        while store.spool.disk_left < 256 * MIB:
            await asyncio.sleep(0)


async def test_beginning_anew_never_reuses_the_file_that_a_worker_may_have(make_store: MakeStore) -> None:
    store = make_store()
    first = store.uploads.open(store.account, A, len(LARGE), 0)
    await store.fill(first, LARGE)
    while not first.complete:
        await asyncio.sleep(0)
    second = store.uploads.open(store.account, A, len(LARGE), 0)
    await store.fill(second, LARGE[::-1])
    while not second.complete:
        await asyncio.sleep(0)
    assert (content(first), content(second)) == (LARGE, LARGE[::-1])
    first.close()
    second.close()
    await store.rested()
    assert store.received(A) == len(LARGE)


async def test_the_one_who_fills_it_is_asked_to_let_go(make_store: MakeStore) -> None:
    store = make_store()
    slot = store.uploads.open(store.account, A, len(SMALL), 0)
    await store.fill(slot, SMALL[:HALF])
    with pytest.raises(Busy):  # nobody can tell it
        store.received(A)
    slot.on_taken = slot.close
    assert store.received(A) == HALF
    assert slot.closed


async def test_it_goes_on_although_its_last_bytes_are_still_being_written(make_store: MakeStore) -> None:
    store = make_store()
    slot = store.uploads.open(store.account, A, len(LARGE), 0)
    await store.fill(slot, LARGE[:HALF])
    slot.close()
    (upload,) = store.uploads._known.values()
    assert upload.state is UploadState.SETTLING
    slot = store.uploads.open(store.account, A, len(LARGE), HALF)  # without a turn of the loop in between
    await store.fill(slot, LARGE[HALF:])
    while not slot.complete:
        await asyncio.sleep(0)
    assert content(slot) == LARGE
    slot.close()


async def test_bytes_that_may_be_taken_back_are_for_nobody_else(make_store: MakeStore) -> None:
    store = make_store()
    await store.send(A, LARGE[:HALF], len(LARGE))
    slot = store.uploads.open(store.account, A, len(LARGE), HALF)
    slot.may_be_cut = True
    slot.on_taken = lambda: None  # it is being taken back already
    await store.fill(slot, LARGE[HALF:])
    for ask in (store.uploads.status, store.uploads.terminate):
        with pytest.raises(Busy):
            ask(store.account, A)
    with pytest.raises(Busy):
        store.uploads.open(store.account, A, len(LARGE), len(LARGE))
    while not slot.cut(HALF):
        await asyncio.sleep(0)
    slot.close()
    await store.rested()
    assert store.received(A) == HALF


async def test_an_empty_upload_is_kept_only_if_it_was_created(make_store: MakeStore) -> None:
    store = make_store()
    for data in (SMALL, LARGE):
        store.uploads.open(store.account, A, len(data), 0).close()
        assert store.received(A) is None
        assert len(store.uploads.idle) == 0
    status = store.uploads.create(store.account, B, len(LARGE), b"name")
    assert (status.received, status.size, status.metadata) == (0, len(LARGE), b"name")
    await store.rested()
    assert store.uploads.status(store.account, B).metadata == b"name"
    with pytest.raises(UploadConflict, match="already"):
        store.uploads.create(store.account, B, len(LARGE))
    await store.send(B, LARGE[:HALF], len(LARGE))
    assert store.received(B) == HALF


# How long


async def test_it_expires_after_its_last_byte(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(upload_ttl=100)
    for upload_id, data in ((A, SMALL), (B, LARGE)):
        await store.send(upload_id, data[:HALF], len(data))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 99)
    store.uploads.watch(time.monotonic() + 1000)
    assert (store.received(A), store.received(B)) == (HALF, HALF)
    monkeypatch.setattr(time, "time", lambda: now + 101)
    assert (store.received(A), store.received(B)) == (None, None)
    assert store.uploads.counts.expired == 2
    await store.send(A, SMALL[:HALF], len(SMALL))
    monkeypatch.setattr(time, "time", lambda: now + 300)
    store.uploads.watch(time.monotonic() + 2000)
    assert len(store.uploads.idle) == 0


async def test_after_a_reply_it_is_kept_for_a_minute(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    slot = store.uploads.open(store.account, A, len(SMALL), 0)
    (await store.fill(slot, SMALL)).close()
    slot.replied()
    assert store.received(A) == len(SMALL)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert store.received(A) is None


# How much


async def test_over_the_budget_the_one_that_waits_longest_goes(make_store: MakeStore) -> None:
    store = make_store(upload_disk=3 * MIB, upload_memory=0)
    for upload_id in (A, B, C):
        await store.send(upload_id, LARGE[: MIB + 1], len(LARGE))
    assert [store.received(one) for one in (A, B, C)] == [None, MIB + 1, MIB + 1]
    assert store.uploads.counts.evicted == 1


async def test_those_whose_reply_was_sent_go_before_all_others(make_store: MakeStore) -> None:
    store = make_store(upload_disk=3 * MIB, upload_memory=0)
    await store.send(A, LARGE[: MIB + 1], len(LARGE))
    slot = store.uploads.open(store.account, B, MIB + 1, 0)
    (await store.fill(slot, LARGE[: MIB + 1])).close()
    slot.replied()
    await store.rested()
    await store.send(C, LARGE[: MIB + 1], len(LARGE))
    assert [store.received(one) for one in (A, B, C)] == [MIB + 1, None, MIB + 1]


async def test_memory_beyond_its_budget_goes_to_files(make_store: MakeStore) -> None:
    store = make_store(upload_memory=300 * 1024)
    for upload_id in (A, B):
        await store.send(upload_id, SMALL[:200_000], len(SMALL))
    assert (store.received(A), store.received(B)) == (200_000, 200_000)
    assert 0 < store.uploads.idle.memory <= 300 * 1024
    assert store.uploads.idle.disk == 200_000


@pytest.mark.parametrize("in_memory", [True, False])
async def test_live_requests_get_the_room_of_those_that_wait(
    make_store: MakeStore, *, in_memory: bool
) -> None:
    store = make_store(memory=3 * MIB, disk=12 * MIB, upload_memory=3 * MIB)
    data = LARGE[: 2 * MIB]
    await store.send(A, data, 3 * MIB if in_memory else 9 * MIB)
    size = 2 * MIB if in_memory else 11 * MIB
    slot = store.spool.open(size, Account("192.0.2.9").share)
    left = size
    while left:
        while slot.stalled:
            await asyncio.sleep(0)
        room = len(slot.room())
        slot.filled(room)
        left -= room
    assert (slot.descriptor is None) is in_memory
    assert store.received(A) is None
    assert store.uploads.counts.evicted == 1
    slot.close()


async def test_a_client_cannot_make_any_number_of_empty_uploads(make_store: MakeStore) -> None:
    store = make_store(upload_memory=0, shared=False)
    for number in range(MOST_OF_CLIENT + 5):
        store.uploads.create(store.account, f"{number:032x}", 9)
    await store.rested()
    assert len(store.uploads.idle) == store.account.share.uploads == MOST_OF_CLIENT
    assert store.received("0" * 32) is None


async def test_an_upload_that_cannot_be_kept_is_not_created(make_store: MakeStore) -> None:
    store = make_store(shared=True, files=0)
    with pytest.raises(Busy):
        store.uploads.create(store.account, A, len(SMALL))
    assert store.received(A) is None


async def test_a_disk_that_fails_loses_the_upload_only(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    slot = store.uploads.open(store.account, A, len(LARGE), 0)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", _fail)
        await store.fill(slot, LARGE[:HALF])
        slot.close()
        await store.rested()
    assert store.received(A) is None
    await store.send(A, LARGE[:HALF], len(LARGE))
    assert store.received(A) == HALF


def _fail(*_: object, **__: object) -> int:
    raise OSError(28, "No space left on device")


# Other processes


async def test_what_waits_in_memory_is_written_when_others_have_to_find_it(make_store: MakeStore) -> None:
    first, second = make_store(), make_store()
    await first.send(A, SMALL[:HALF], len(SMALL))
    assert second.received(A) is None
    first.uploads.share(True)
    await first.rested()
    assert second.received(A) == HALF
    await second.send(A, SMALL[HALF:], len(SMALL), HALF)
    assert second.received(A) == first.received(A) == len(SMALL)


async def test_what_is_being_received_is_found_by_others_as_well(make_store: MakeStore) -> None:
    first, second = make_store(), make_store()
    slot = first.uploads.open(first.account, A, len(SMALL), 0)
    await first.fill(slot, SMALL[:HALF])
    slot.on_taken = slot.close
    first.uploads.share(True)
    with pytest.raises(Busy):
        second.received(A)
    first.uploads.watch(time.monotonic() + 1000)
    assert await second.received_soon(A) == HALF


async def test_a_server_whose_successor_has_failed_keeps_small_uploads_in_memory_again(
    make_store: MakeStore,
) -> None:
    first, gateway = make_store(), make_store(shared=True)
    for store, memory in ((first, True), (gateway, False)):
        store.uploads.share(True)
        store.uploads.share(False)
        await store.send(A, SMALL[:HALF], len(SMALL))
        assert (store.uploads.idle.memory > 0) is memory


async def test_what_another_process_has_taken_is_not_removed(make_store: MakeStore) -> None:
    first, second = make_store(shared=True), make_store(shared=True)
    for upload_id in (A, B):
        await first.send(upload_id, LARGE[:HALF], len(LARGE))
    slot = second.uploads.open(second.account, A, len(LARGE), HALF)
    await second.send(B, LARGE[HALF : 2 * HALF], len(LARGE), HALF)
    # The first one needs the room of all that it believes to have.
    first.uploads.change_settings(first.uploads._settings.model_copy(update={"upload_disk": 0}))
    assert first.uploads.counts.evicted == 0
    assert first.spool.use.disk == 0
    await second.fill(slot, LARGE[HALF : 2 * HALF])
    slot.close()
    await second.rested()
    assert (second.received(A), second.received(B)) == (2 * HALF, 2 * HALF)


async def test_what_another_process_has_taken_does_not_expire_here(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_store(shared=True, upload_ttl=100), make_store(shared=True, upload_ttl=100)
    await first.send(A, LARGE[:HALF], len(LARGE))
    slot = second.uploads.open(second.account, A, len(LARGE), HALF)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 101)
    first.uploads.watch(time.monotonic() + 1000)
    assert (len(first.uploads.idle), first.uploads.counts.expired) == (0, 0)
    slot.close()
    await second.rested()
    assert second.received(A) == HALF


async def test_a_server_without_descriptors_does_not_say_that_nothing_is_held(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make_store(shared=True), make_store(shared=True)
    await first.send(A, LARGE[:HALF], len(LARGE))
    second.uploads._name(second.account, A)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", _fail)
        for store in (first, second):
            with pytest.raises(Busy):
                store.uploads.open(store.account, A, len(LARGE), HALF)
        with pytest.raises(Busy):
            second.received(A)
    assert (first.received(A), second.received(A)) == (HALF, HALF)


async def test_an_upload_that_was_created_is_that_to_other_processes_as_well(make_store: MakeStore) -> None:
    first, second = make_store(shared=True), make_store(shared=True)
    first.uploads.create(first.account, A, len(SMALL), b"name")
    await first.rested()
    await second.send(A, b"", len(SMALL))  # cut before a byte
    for store in (second, first):
        status = store.uploads.status(store.account, A)
        assert (status.received, status.size, status.metadata) == (0, len(SMALL), b"name")


async def test_a_file_counts_in_one_process_only(make_store: MakeStore) -> None:
    first, second = make_store(shared=True), make_store(shared=True)
    await first.send(A, LARGE[:HALF], len(LARGE))
    await second.send(A, LARGE[HALF : 2 * HALF], len(LARGE), HALF)
    first.uploads.watch(time.monotonic() + 1000)
    assert (first.spool.use.disk, second.spool.use.disk) == (0, 2 * HALF)
    await first.send(A, LARGE[2 * HALF :], len(LARGE), 2 * HALF)
    second.uploads.watch(time.monotonic() + 1000)
    assert (first.spool.use.disk, second.spool.use.disk) == (len(LARGE), 0)


async def test_another_process_is_asked_to_let_go(make_store: MakeStore) -> None:
    first, second = make_store(shared=True), make_store(shared=True)
    slot = first.uploads.open(first.account, A, len(SMALL), 0)
    await first.fill(slot, SMALL[:HALF])
    slot.on_taken = slot.close
    with pytest.raises(Busy) as raised:
        second.received(A)
    assert raised.value.retry_after_ms
    assert not slot.closed
    first.uploads.watch(time.monotonic() + 1000)
    assert slot.closed
    assert await second.received_soon(A) == HALF


async def test_files_of_a_process_that_has_ended_are_claimed_and_old_ones_removed(
    make_store: MakeStore, tmp_path: Path
) -> None:
    first = make_store(shared=True)
    for upload_id in (A, B):
        await first.send(upload_id, LARGE[:HALF], len(LARGE))
    name = first.uploads._name(first.account, B)
    _kill(first.uploads._files.folder)
    old = time.time() - 7200
    os.utime(first.uploads._files.folder.path / name, (old, old))
    second = make_store()
    assert second.spool.use.disk == HALF
    assert not (second.uploads._files.folder.path / name).exists()
    assert (second.received(A), second.received(B)) == (HALF, None)
    slot = second.uploads.open(second.account, A, len(LARGE), HALF)
    assert second.account.share.disk.size >= HALF  # no more the leftovers'
    slot.close()
    assert list(tmp_path.glob("*/keeper-*")) != []


async def test_files_of_an_earlier_boot_are_never_used(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_store(shared=True)
    await first.send(A, LARGE[:HALF], len(LARGE))
    _kill(first.uploads._files.folder)
    monkeypatch.setattr(folder_module, "boot_id", lambda: "another")
    second = make_store(shared=True)
    assert second.received(A) is None
    await second.send(A, LARGE[:9], len(LARGE))
    assert second.received(A) == 9


async def test_bytes_after_a_hole_would_not_be_counted(make_store: MakeStore) -> None:
    """The size of the file counts, so writes have to be one after another: also those that are split."""
    store = make_store()
    slot = store.uploads.open(store.account, A, len(LARGE), 0)
    offsets: list[tuple[int, int]] = []
    write = os.pwritev

    def spy(fd: int, views: list[memoryview], offset: int) -> int:
        written = write(fd, [views[0][:100_000]], offset)
        offsets.append((offset, written))
        return written

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwritev", spy)
        await store.fill(slot, LARGE)
        slot.close()
        await store.rested()
    end = 0
    for offset, written in offsets:
        assert offset == end
        end += written
    assert end == len(LARGE)


def _kill(folder: folder_module.UploadFolder) -> None:
    """End the locks of a process as if it had been killed."""
    assert folder._keeper is not None
    os.close(folder._keeper)
    folder._keeper = None


async def test_the_files_of_a_gateway_that_has_died_are_claimed_while_another_one_runs(
    make_store: MakeStore,
) -> None:
    first, second = make_store(shared=True), make_store(shared=True)
    await first.send(A, LARGE[:HALF], len(LARGE))
    assert second.received(A) == HALF
    _kill(first.uploads._files.folder)
    second.uploads.watch(time.monotonic() + 1000)
    async with asyncio.timeout(30):
        while second.spool.use.disk != HALF:
            await asyncio.sleep(0)
    await second.send(A, LARGE[HALF:], len(LARGE), HALF)
    assert second.spool.use.disk == len(LARGE)


# The folder


async def test_damaged_files_are_passed_over(make_store: MakeStore) -> None:
    first = make_store(shared=True)
    await first.send(A, LARGE[:HALF], len(LARGE))
    folder, name = first.uploads._files.folder, first.uploads._name(first.account, A)
    _kill(folder)
    for text in ("", "{", "[]", json.dumps({"size": 1})):
        (folder.path / f"{name}.info").write_text(text)
        second = make_store()
        assert second.received(A) is None
    assert (folder.path / name).exists()  # young: it may be one that is just being made
    old = time.time() - 120
    os.utime(folder.path / name, (old, old))
    make_store()
    assert not (folder.path / name).exists()


async def test_remnants_are_removed(make_store: MakeStore) -> None:
    store = make_store(shared=True)
    await store.send(A, LARGE[:HALF], len(LARGE))
    path = store.uploads._files.folder.path
    before = set(path.iterdir())
    for name in ("f" * 32 + ".info", "f" * 32 + ".wanted", "new-1", "trash-1"):
        (path / name).write_text("")
        os.utime(path / name, (1, 1))
    store.uploads.watch(time.monotonic() + 1000)
    async with asyncio.timeout(30):
        while set(path.iterdir()) != before:
            await asyncio.sleep(0)


async def test_names_need_the_key_and_differ_by_owner(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store()
    names = {store.uploads._name(Account(key), A) for key in ("identity:shop", "identity:other", "192.0.2.1")}
    assert len(names) == 3
    assert store.uploads._name(Account("192.0.2.2"), A) in names  # nobody in particular
    (key,) = tmp_path.glob("*/key")
    assert key.stat().st_mode & 0o777 == 0o600
    key.write_bytes(bytes(32))
    assert make_store().uploads._name(store.account, A) not in names


async def test_a_folder_that_was_removed_is_created_anew(make_store: MakeStore) -> None:
    store = make_store(shared=True)
    await store.send(A, LARGE[:HALF], len(LARGE))
    shutil.rmtree(store.uploads._files.folder.path)
    assert store.received(A) is None
    assert store.spool.use.disk == 0
    await store.send(A, LARGE[:HALF], len(LARGE))
    other = make_store(shared=True)
    assert store.received(A) == other.received(A) == HALF
    other.uploads.watch(time.monotonic() + 1000)
    assert other.spool.use.disk == 0  # the first one lives, and counts it


async def test_threads_that_open_the_folder_at_the_same_time_share_it(tmp_path: Path) -> None:
    for _ in range(20):
        folder = folder_module.UploadFolder(tmp_path)
        names = await asyncio.gather(*(asyncio.to_thread(folder.name_of, "", A) for _ in range(4)))
        assert len(set(names)) == 1
        folder.close()


@pytest.mark.parametrize("kind", ["mode", "link", "file"])
async def test_a_folder_of_somebody_else_is_not_used(
    make_store: MakeStore, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"vipsrv-uploads-{os.geteuid()}"
    if kind == "mode":
        path.mkdir(mode=0o750)
        path.chmod(0o750)
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_text("")
    store = make_store()
    assert not store.uploads.offered
    assert len(caplog.records) == 1
    with pytest.raises(BadRequest, match="does not offer"):
        store.received(A)


async def test_two_processes_that_begin_the_same_upload_do_not_share_a_file(make_store: MakeStore) -> None:
    first, second = make_store(shared=True), make_store(shared=True)
    slot = first.uploads.open(first.account, A, len(LARGE), 0)
    folder, name = second.uploads._files.folder, second.uploads._name(second.account, A)
    with pytest.raises(InUseError):
        folder.create(name, UploadInfo(len(LARGE)), second.account.share)
    with pytest.raises(Busy):
        second.uploads.open(second.account, A, len(LARGE), 0)
    slot.close()
    await first.rested()


async def test_a_locked_file_is_in_use(make_store: MakeStore) -> None:
    first, second = make_store(shared=True), make_store(shared=True)
    slot = first.uploads.open(first.account, A, len(LARGE), 0)
    await first.fill(slot, LARGE[:HALF])
    name = first.uploads._name(first.account, A)
    with pytest.raises(InUseError):
        second.uploads._files.folder.reopen(name, second.account.share)
    assert first.uploads._files.folder.is_wanted(name)
    slot.close()
    await first.rested()
