"""Journals: what is left of one whose writer has died, at any byte."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.batch_rows import any_row, facts_of, failed_row, ok_row, outputs
from vipsrv.batch.manifest.file_lock import lock_file
from vipsrv.batch.manifest.journal import Journal, claim_left_journal, parse_journal, read_journal
from vipsrv.batch.manifest.row_json import row_line, row_of_line
from vipsrv.batch.rows import Row
from vipsrv.errors import BatchError, StorageFailed

MADE = outputs(320, 640)
FACTS = facts_of("run-000001", MADE)


def rows(count: int) -> list[Row]:
    return [ok_row(f"image-{i}.jpg", MADE) for i in range(count)]


def begun(folder: Path, *written: Row) -> Journal:
    journal = Journal.begin(folder, FACTS)
    for row in written:
        journal.append(row)
    return journal


@given(any_row)
def test_a_row_comes_back_from_its_line(row: Row) -> None:
    line = row_line(row)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert row_of_line(line) == row


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{", "Expecting property name"),
        (b"[]", "no object"),
        (b"{}", "no list 'outputs'"),
        (b'{"outputs": []}', "'key' is missing"),
        (b'{"\xff": 1}', "decode"),
        (
            row_line(rows(1)[0]).replace(b'"status":200', b'"status":"200"'),
            "'status' is missing or",
        ),
        (
            row_line(rows(1)[0]).replace(b'"status":200', b'"status":true'),
            "'status' is missing or",
        ),
        (row_line(rows(1)[0]).replace(b'"sha256"', b'"sha1"'), "'sha256' is missing"),
        (row_line(failed_row("a", MADE)).replace(b'"outputs":[]', b'"outputs":[1]'), "a result is no object"),
    ],
)
def test_a_line_that_is_no_row_says_why(line: bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        row_of_line(line)


def test_what_was_appended_is_read_while_the_journal_is_open(tmp_path: Path) -> None:
    journal = begun(tmp_path, *rows(3))
    content = read_journal(journal.path)
    assert content.facts == FACTS
    assert content.rows == tuple(rows(3))
    assert content.faults == ()
    journal.close()


def test_cut_at_every_byte_of_the_last_line_the_rows_before_it_are_there(tmp_path: Path) -> None:
    journal = begun(tmp_path, *rows(3))
    journal.close()
    data = journal.path.read_bytes()
    start = len(data) - len(row_line(rows(3)[2]))
    for end in range(start, len(data) + 1):
        content = parse_journal(data[:end], "j")
        assert content.rows == tuple(rows(3 if end == len(data) else 2))
        assert content.faults == ()


def test_cut_in_its_first_line_it_holds_nothing(tmp_path: Path) -> None:
    journal = begun(tmp_path)
    journal.close()
    data = journal.path.read_bytes()
    for end in range(len(data)):
        assert parse_journal(data[:end], "j") == parse_journal(b"", "j")


@given(st.data())
def test_a_damaged_line_is_told_and_the_others_are_kept(data: st.DataObject) -> None:
    lines = [row_line(row) for row in rows(4)]
    number = data.draw(st.integers(0, 3))
    lines[number] = data.draw(st.sampled_from([b"\n", b"{}\n", b"\x00\xff\n", lines[number][5:]]))
    head = b'{"vipsrv_journal": 1, "shard": "s", "run": "r", "options": "o", "outputs": "{}", "tool": "t"}\n'
    content = parse_journal(head + b"".join(lines), "s.jsonl")
    assert content.rows == tuple(row for i, row in enumerate(rows(4)) if i != number)
    assert len(content.faults) == 1
    assert content.faults[0].startswith(f"s.jsonl, line {number + 2}: ")


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        (b"[" * 100_000, "recursion"),
        (b'{"vipsrv_journal": 1}', "does not describe a shard"),
        (b"[]", "does not describe a shard"),
        (b"not json", "Expecting value"),
    ],
)
def test_a_first_line_of_something_else_is_told(head: bytes, fault: str) -> None:
    content = parse_journal(head + b"\n", "s.jsonl")
    assert content.facts is None
    assert fault in content.faults[0]


def test_a_journal_of_a_newer_version_is_refused() -> None:
    with pytest.raises(BatchError, match=r"s\.jsonl has the format 2, and this version of vipsrv knows 1"):
        parse_journal(b'{"vipsrv_journal": 2}\n', "s.jsonl")


def test_a_journal_that_was_left_goes_on_without_its_torn_line(tmp_path: Path) -> None:
    left = begun(tmp_path, *rows(2))
    left.close()
    with left.path.open("ab") as file:
        file.write(row_line(rows(3)[2])[:-7])
    journal = Journal.begin(tmp_path, FACTS)
    assert journal.path == left.path
    assert journal.rows == tuple(rows(2))
    journal.append(rows(3)[2])
    assert journal.content().rows == tuple(rows(3))
    assert journal.content().faults == ()
    journal.close()


def test_a_journal_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    first = begun(tmp_path, *rows(1))
    second = begun(tmp_path)
    assert first.path != second.path
    assert second.rows == ()
    assert claim_left_journal(first.path) is None
    assert second.content().facts == FACTS
    first.close()
    second.close()


def test_a_journal_that_is_removed_between_opening_and_locking_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[Path] = []

    def lock_removed_one(descriptor: int, path: Path) -> None:
        if not locked:  # whoever has published it removes it just now
            path.unlink()
        locked.append(path)
        lock_file(descriptor, path)

    monkeypatch.setattr("vipsrv.batch.manifest.journal.lock_file", lock_removed_one)
    journal = begun(tmp_path, *rows(1))
    journal.close()
    assert len(locked) == 2
    assert read_journal(journal.path).rows == tuple(rows(1))


def test_a_journal_of_other_options_or_damaged_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run-000001.jsonl").write_bytes(b"not json\n")
    journal = begun(tmp_path)
    assert journal.path.name == "run-000001~2.jsonl"
    journal.close()
    other = Journal.begin(tmp_path, facts_of("run-000001", outputs(100)))
    assert other.path.name == "run-000001~3.jsonl"
    other.close()


def test_the_death_of_its_writer_frees_a_journal_and_loses_no_row(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from tests.batch.manifest.test_journal import begun, rows\n"
        "journal = begun(Path(sys.argv[1]), *rows(5))\nprint(journal.path, flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    ) as writer:
        assert writer.stdout is not None
        path = Path(writer.stdout.readline().decode().strip())
        assert claim_left_journal(path) is None
        writer.kill()
        writer.wait()
        descriptor = claim_left_journal(path)
    assert descriptor is not None
    os.close(descriptor)
    assert read_journal(path).rows == tuple(rows(5))


def test_a_full_disk_stops_the_journal_and_keeps_its_rows(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from tests.batch.manifest.test_journal import begun, rows\nfrom vipsrv.errors import StorageFailed\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "journal = begun(Path(sys.argv[1]), *rows(2))\n"
        "size = journal.path.stat().st_size + 100\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))\n"
        "told = []\n"
        "for row in rows(2):\n"
        "    try:\n        journal.append(row)\n"
        "    except StorageFailed as error:\n        told.append(str(error))\n"
        "print(*told, sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[3],
    )
    path = tmp_path / "run-000001.jsonl"
    told = f"{path}: No space left on device; make room there, then run the same command again"
    assert done.stdout.splitlines() == [told] * 2
    assert path.read_bytes().endswith(b"\n")
    assert read_journal(path).rows == tuple(rows(2))


def test_a_folder_that_cannot_be_written_to_is_a_failed_storage(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFailed, match="Not a directory"):
        Journal.begin(tmp_path / "file", FACTS)
