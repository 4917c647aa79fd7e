"""Files that an operator names: read at once, or refused."""

import os
from pathlib import Path

import pytest

from vipsrv.errors import SettingsError
from vipsrv.server.identity.token_file import read_token_file
from vipsrv.server.settings import ServerSettings
from vipsrv.server.small_file import read_small_file
from vipsrv.server.tls import ServerCertificates


def test_a_file_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    path.chmod(0o640)
    data, mode = read_small_file(path, 5)
    assert (data, mode & 0o777) == (b"12345", 0o640)
    with pytest.raises(OSError, match="it is larger than 4 bytes"):
        read_small_file(path, 4)
    with pytest.raises(OSError, match="it is larger than 100 bytes"):
        read_small_file(Path("/dev/zero"), 100)


def test_no_part_of_the_server_waits_for_a_pipe(tmp_path: Path) -> None:
    """The event loop would stand still until somebody writes."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(SettingsError, match=r"pipe: the token file cannot be read: it is a pipe"):
        read_token_file(pipe)
    with pytest.raises(SettingsError, match=r"--tls-cert: .*pipe: it is a pipe"):
        ServerCertificates(ServerSettings(tls_cert=pipe))
