"""How the token file is changed: nothing is lost, by two commands at once either, and it stays private."""

import fcntl
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.identity.records import CREATED, add, as_text, record_of
from vipsrv.errors import SettingsError
from vipsrv.server.identity.token_file import add_token, read_token_file, revoke_tokens
from vipsrv.server.identity.token_records import TokenRecord
from vipsrv.server.identity.tokens import Token, new_token


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def names(path: Path) -> list[str]:
    return [record.name for record in read_token_file(path).records]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@given(
    st.lists(st.tuples(st.sampled_from(["add", "revoke id", "revoke name"]), st.integers(0, 7)), max_size=12)
)
def test_any_order_of_commands_leaves_what_they_have_done(commands: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.toml"
        expected: dict[str, TokenRecord] = {}
        for command, number in commands:
            if command == "add":
                token = add(path, f"name{number % 3}")
                expected[token.id] = record_of(token, f"name{number % 3}")
            elif expected:
                one = list(expected.values())[number % len(expected)]
                which = one.id if command == "revoke id" else one.name
                done = revoke_tokens(path, which, CREATED)
                chosen = [each for each in expected.values() if which in (each.id, each.name)]
                assert [each.id for each in done] == [each.id for each in chosen if each.revoked is None]
                expected |= {each.id: replace(each, revoked=CREATED) for each in chosen}
            if expected:
                assert read_token_file(path).records == tuple(expected.values())


def test_a_new_file_is_readable_by_its_owner_only_and_has_no_secret(path: Path) -> None:
    before = os.umask(0)
    try:
        token = add(path)
    finally:
        os.umask(before)
    assert mode(path) == 0o600
    assert read_token_file(path).records == (record_of(token),)
    assert token.secret not in path.read_text()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_change_keeps_what_is_in_the_file(path: Path) -> None:
    text = "# ours\n\n" + as_text([record_of(Token("abcdefgh", "a"), "old")]).replace(
        "created", "# asked for by Ann\ncreated"
    )
    path.write_text(text)
    new = add(path, "new")
    revoke_tokens(path, "old", CREATED)
    changed = path.read_text()
    assert changed.startswith(text.replace("[abcdefgh]", "[abcdefgh]\nrevoked = 2026-11-27T09:00:00Z"))
    old, added = read_token_file(path).records
    assert (old.name, old.revoked, added) == ("old", CREATED, record_of(new, "new"))


def test_a_change_keeps_the_permissions_and_the_owner(path: Path) -> None:
    path.write_text("")
    path.chmod(0o640)
    group = next((one for one in os.getgroups() if one != path.stat().st_gid), path.stat().st_gid)
    if os.geteuid() == 0:
        group = 12345
    os.chown(path, -1, group)
    add(path)
    revoke_tokens(path, "shop", CREATED)
    assert mode(path) == 0o640
    assert path.stat().st_gid == group


def test_a_file_behind_a_link_is_changed_and_the_link_stays(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    add(link)
    add(link)
    assert link.is_symlink()
    assert len(names(path)) == 2


def test_a_name_revokes_all_its_tokens_and_an_id_one(path: Path) -> None:
    first, second, other = add(path, "shop"), add(path, "shop"), add(path, "archive")
    assert [one.id for one in revoke_tokens(path, first.id, CREATED)] == [first.id]
    assert [one.id for one in revoke_tokens(path, "shop", CREATED)] == [second.id]
    assert revoke_tokens(path, "shop", CREATED) == []
    states = {one.id: one.revoked for one in read_token_file(path).records}
    assert states == {first.id: CREATED, second.id: CREATED, other.id: None}


def test_a_token_that_does_not_exist_is_not_revoked(path: Path) -> None:
    add(path)
    before = path.read_bytes()
    with pytest.raises(SettingsError, match=r"no token has the id or the name 'shoq\\\\x1b'"):
        revoke_tokens(path, "shoq\x1b", CREATED)
    assert path.read_bytes() == before


def test_a_table_that_is_written_in_another_way_is_not_damaged(path: Path) -> None:
    record = as_text([record_of(Token("abcdefgh", "a"))])
    inline = "abcdefgh = { " + ", ".join(record.splitlines()[1:]) + " }\n"
    path.write_text(inline)
    with pytest.raises(SettingsError, match="add 'revoked = 2026-11-27T09:00:00Z' to it by hand"):
        revoke_tokens(path, "abcdefgh", CREATED)
    assert path.read_text() == inline


def test_a_line_that_only_looks_like_the_table_is_not_changed(path: Path) -> None:
    text = 'limits = """\n[abcdefgh]\n"""\n'
    record = as_text([record_of(Token("abcdefgh", "a"))])
    path.write_text(f"[bcdefghi]\n{text}{record}")
    with pytest.raises(SettingsError):
        revoke_tokens(path, "abcdefgh", CREATED)
    assert path.read_text() == f"[bcdefghi]\n{text}{record}"


def test_an_invalid_file_is_not_changed(path: Path) -> None:
    path.write_text("[")
    with pytest.raises(SettingsError, match="not valid TOML"):
        add(path)
    assert path.read_text() == "["


@pytest.mark.parametrize("missing", ["no/folder/tokens.toml", "."])
def test_a_file_that_cannot_be_made(tmp_path: Path, missing: str) -> None:
    with pytest.raises(
        SettingsError, match=r"the token file cannot be changed: (No such file|Is a directory)"
    ):
        add(tmp_path / missing)
    with pytest.raises(SettingsError, match=r"there is no such token file|Is a directory"):
        read_token_file(tmp_path / missing)


def test_nothing_is_revoked_in_a_file_that_does_not_exist(path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        revoke_tokens(path, "shop", CREATED)
    assert not path.exists()


def test_a_failed_change_leaves_no_file_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(path)
    before = path.read_bytes()

    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(SettingsError, match="the token file cannot be changed: No space left on device"):
        add(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_changes_at_the_same_time_lose_nothing(path: Path) -> None:
    count = 24
    start = threading.Barrier(8)

    def run(number: int) -> None:
        if number < 8:
            start.wait()
        add(path, f"name{number}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(run, range(count)))
    assert sorted(names(path)) == sorted(f"name{number}" for number in range(count))


def test_a_change_waits_for_the_lock_and_sees_the_file_that_replaced_its_own(path: Path) -> None:
    first = add(path, "first")
    entered = threading.Event()
    with path.open("rb") as held, ThreadPoolExecutor(1) as thread:
        fcntl.flock(held, fcntl.LOCK_EX)

        def change() -> Token:
            entered.set()
            return add(path, "second")

        waiting = thread.submit(change)
        entered.wait()
        # What another command does while it holds the lock.
        third = record_of(new_token(), "third")
        replacement = path.with_suffix(".new")
        replacement.write_text(path.read_text() + "\n" + as_text([third]))
        replacement.replace(path)
        fcntl.flock(held, fcntl.LOCK_UN)
        second = waiting.result()
    assert [record.id for record in read_token_file(path).records] == [first.id, third.id, second.id]


def test_a_reader_never_sees_half_of_a_change(path: Path) -> None:
    add(path)
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(lambda: [add(path) for _ in range(20)])
        seen = [len(names(path))]
        while not writing.done():
            seen.append(len(names(path)))
    assert seen == sorted(seen)
    assert len(names(path)) == 21


def test_the_record_is_made_from_the_present_ones_under_the_lock(path: Path) -> None:
    add(path, "first")
    seen: list[int] = []
    token = new_token()

    def make(present: tuple[TokenRecord, ...]) -> TokenRecord:
        seen.append(len(present))
        with path.open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return record_of(token)

    add_token(path, make)
    assert seen == [1]
