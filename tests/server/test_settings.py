from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vipsrv.address import Address
from vipsrv.server.settings import ServerSettings


def test_the_defaults_are_those_of_the_protocol() -> None:
    settings = ServerSettings()
    assert (settings.host, settings.port, settings.quality) == ("127.0.0.1", 65432, 85)
    assert settings.workers >= 1


def test_an_upload_of_the_largest_size_fits_the_spool() -> None:
    settings = ServerSettings()
    assert settings.spool_disk >= settings.max_upload


def test_sizes_may_be_written_with_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIPSRV_MAX_UPLOAD", "200MB")
    assert ServerSettings().max_upload == 200_000_000
    monkeypatch.setenv("VIPSRV_MAX_UPLOAD", "2GiB")
    assert ServerSettings().max_upload == 2 * 1024**3


def test_an_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIPSRV_PORT", "1111")
    assert ServerSettings().port == 1111
    assert ServerSettings(port=2222).port == 2222


def test_several_addresses_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIPSRV_LISTEN", "127.0.0.1:1,unix:/a")
    assert ServerSettings().listen == ("127.0.0.1:1", "unix:/a")


def test_what_is_empty_in_the_environment_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ServerSettings()
    for name in ServerSettings.model_fields:
        monkeypatch.setenv(f"VIPSRV_{name.upper()}", "")
    assert ServerSettings() == plain


def test_an_empty_host_is_none() -> None:
    with pytest.raises(ValidationError, match="host"):
        ServerSettings(host="")  # which would be every address there is


@pytest.mark.parametrize("given", ["jpeg, png ,webp", ["jpeg, png", "webp"], ("jpeg", "png", "webp")])
def test_words_have_commas_and_maybe_spaces_between_them(given: Any) -> None:
    assert ServerSettings(formats=given).formats == ("jpeg", "png", "webp")
    assert ServerSettings(listen=given).listen == ("jpeg", "png", "webp")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("QUALITY", "0"),
        ("WORKERS", "0"),
        ("DEADLINE", "0"),
        ("DEADLINE", "inf"),
        ("DEADLINE", "5000000"),  # more milliseconds than a worker can be told
        ("MAX_UPLOAD", "much"),
    ],
)
def test_values_that_cannot_be(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"VIPSRV_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        ServerSettings()


def test_the_spool_folder_is_there() -> None:
    assert Path(ServerSettings().spool_dir).is_dir()


@pytest.mark.parametrize("text", ["127.0.0.1:80", "[::1]:80", "localhost:0", "unix:/run/a b"])
def test_addresses(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize("text", ["", "80", ":80", "host:", "host:http", "host:65536", "unix:"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|no path"):
        Address.parse(text)
