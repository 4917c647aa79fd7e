"""Lines and faults of a TOML file of settings."""

import os
import tomllib
from pathlib import Path

import pytest

from vipsrv.errors import SettingsError
from vipsrv.server.configuration import toml_file
from vipsrv.server.configuration.toml_file import MOST_BYTES, default_file, lines_of, read_toml


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a = 1\nb = 2", {"a": 1, "b": 2}),
        ("# a = 1\n\n  a = 1", {"a": 3}),
        ("b = '''\na = 1\n'''\na = 2", {"b": 1, "a": 4}),
        ('b = [\n  "x", # ]\n  "a = 1",\n]\na = 2', {"b": 1, "a": 5}),
        ("\"a\" = 1\n'b' = 2", {"a": 1, "b": 2}),
        ("ab = 1\na=1", {"ab": 1, "a": 2}),
        ("a.b = 1\n[c]\nd = 1\n[[e]]\n[f.g]", {"a": 1, "c": 2, "e": 4, "f": 5}),
        ("[c]\na = 1\n[a]", {"c": 1, "a": 2}),
        ('x = 1\n"\\u0061" = 1', {"x": 1, "a": 1}),
        ("a = 1\r\nb = 2\r\n", {"a": 1, "b": 2}),
        ("# \u2028 \x85 \n[[a]]\n", {"a": 2}),
    ],
)
def test_the_line_of_a_key(text: str, lines: dict[str, int]) -> None:
    assert lines_of(text, tomllib.loads(text)) == lines


def read(tmp_path: Path, content: bytes) -> list[str]:
    """The faults of a file with this content."""
    path = tmp_path / "vipsrv.toml"
    path.write_bytes(content)
    try:
        return [fault.removeprefix(f"{path}:") for fault in read_toml(path)[1]]
    except SettingsError as error:
        return [fault.removeprefix(f"{path}:") for fault in error.faults]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"port = 1\nport = 2", "2: this is not valid TOML: Cannot overwrite a value"),
        (b"port = 1\nlisten = [", "2: this is not valid TOML: Invalid value"),
        (b"\n\nport: 1", "3: this is not valid TOML: Expected '=' after a key in a key/value pair"),
        (b"port = 1\n# \xff", "2: this is not text in UTF-8"),
        (b"#" * (MOST_BYTES + 1), f" the file cannot be read: it is larger than {MOST_BYTES} bytes"),
        (b"[port]\n", "1: port: must be a whole number, not a table"),
        (b"workers = true", "1: workers: must be a whole number, not true"),
        (b"workers = 2.0", "1: workers: must be a whole number, not 2.0"),
        (b"pin_workers = 1", "1: pin_workers: must be true or false, not 1"),
        (b"drain = '1'", "1: drain: must be a number, not '1'"),
        (b"host = 1", "1: host: must be a text, not 1"),
        (b"listen = ['unix:/a', 1]", "1: listen: must be a list of texts, not ['unix:/a', 1]"),
        (b"max_upload = 1.5", '1: max_upload: must be bytes, or a text like "200MB", not 1.5'),
        (b"max-upload = 1", "1: max-upload: there is no such setting; did you mean max_upload?"),
        (b"xyz = 1", "1: xyz: there is no such setting"),
        (b"'' = 1", "1: : a key without a name"),
        (b"[[port]]\nx = 1", "1: port: must be a whole number, not a table"),
        (b"port = 1979-05-27", "1: port: must be a whole number, not 1979-05-27"),
        (b'host = "a\\u0000"', "1: host: must have no character with the number 0"),
        (b"port = " + b"[" * 5000, " this is not a file of settings: maximum recursion depth exceeded"),
    ],
)
def test_a_fault_has_its_line(tmp_path: Path, content: bytes, fault: str) -> None:
    assert read(tmp_path, content) == [fault]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(SettingsError, match=f"{path}: the file cannot be read: {reason}"):
            read_toml(path)


def test_numbers_of_thousands_of_digits(tmp_path: Path) -> None:
    (fault,) = read(tmp_path, b"port = " + b"9" * 5000)
    assert fault.startswith(" this is not a file of settings: Exceeds the limit")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbfport = 1") == []


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(SettingsError, match=f"{pipe}: the file cannot be read: it is a pipe"):
        read_toml(pipe)


def test_many_lines_that_look_like_definitions_take_no_long_time() -> None:
    """The number of tries is bounded, whatever the file is."""
    text = "host = '''\n" + "port = 1\n" * 20_000 + "'''\n"
    assert lines_of(text, ["host"]) == {"host": 1}
    assert lines_of(text + "port = 1\n", ["port"]) == {"port": 2}  # not found, for want of tries


# The file that is read without being named


def test_the_file_of_this_user_in_the_current_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    system = tmp_path / "etc.toml"
    monkeypatch.setattr(toml_file, "SYSTEM_FILE", system)
    assert default_file() is None
    system.touch()
    assert default_file() == system
    Path("vipsrv.toml").touch(0o644)
    assert default_file() == Path("vipsrv.toml")


def test_a_file_that_others_may_change_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path("vipsrv.toml")
    file.touch()
    file.chmod(0o666)
    with pytest.raises(SettingsError, match=r"every user of this machine may change the file; .*--config"):
        default_file()
    file.chmod(0o600)
    owner = file.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner:  # a file of root is trusted
        with pytest.raises(SettingsError, match=rf"belongs to another user \(number {owner}\)"):
            default_file()
    else:
        assert default_file() == file


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_root_does_not_read_the_file_of_someone_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("vipsrv.toml").touch()
    os.chown("vipsrv.toml", 4321, 4321)
    with pytest.raises(
        SettingsError, match=r"belongs to another user \(number 4321\); name it with --config"
    ):
        default_file()


def test_every_type_that_a_setting_may_have(tmp_path: Path) -> None:
    content = b"""
port = 1
drain = 1
deadline = 1.5
pin_workers = false
host = "::1"
max_upload = "2GiB"
job_memory = 2_000_000
listen = ["unix:/a"]
trusted_proxies = "unix"
"""
    assert read(tmp_path, content) == []
