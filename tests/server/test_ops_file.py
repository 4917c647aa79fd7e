"""The file with the address of the ops listener."""

import logging
from pathlib import Path

import pytest

from vipsrv.address import Address, Wire
from vipsrv.server.ops_file import write_ops_file

CLIENTS = Address(host="0.0.0.0", port=65432)  # noqa: S104 - nothing listens there


def ops(**where: object) -> Address:
    return Address(**where, wire=Wire.OPS)  # type: ignore[arg-type]


def test_the_address_is_one_that_this_machine_reaches(tmp_path: Path) -> None:
    file = tmp_path / "ops"
    for address, text in (
        (ops(host="0.0.0.0", port=9464), "ops://127.0.0.1:9464"),  # noqa: S104 - nothing listens there
        (ops(host="::", port=1), "ops://[::1]:1"),
        (ops(path="/run/ops"), "ops+unix:/run/ops"),
    ):
        write_ops_file(file, [CLIENTS, address])
        assert file.read_text() == f"{text}\n"
    write_ops_file(file, [CLIENTS])
    assert file.read_text() == "off\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_mentioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        write_ops_file(tmp_path / "none" / "ops", [CLIENTS])
    assert "--ops-file" in caplog.text
