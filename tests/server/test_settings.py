"""The settings of a server, and what of them its workers are told."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vipsrv.options import DEFAULT_QUALITY
from vipsrv.server.settings import ServerSettings
from vipsrv.worker_config import WorkerConfig, declarations


def test_the_defaults_are_those_of_the_protocol() -> None:
    settings = ServerSettings()
    assert (settings.host, settings.port) == ("127.0.0.1", 65432)
    assert settings.worker_config().quality == DEFAULT_QUALITY == 85
    assert settings.workers >= 1


def test_a_worker_is_told_the_defaults_unless_settings_say_otherwise() -> None:
    assert ServerSettings().worker_config() == WorkerConfig()
    changed: dict[str, Any] = {
        "max_upload": 6,
        "quality": 1,
        "formats": ("png",),
        "tolerate_truncated": True,
        "max_pixels": 2,
        "max_output_pixels": 3,
        "max_frames": 7,
        "max_effort": 8,
        "max_expansion": 4,
        "job_memory": 1 << 20,
        "sandbox": "off",
        "worker_uid": 5,
    }
    assert ServerSettings(**changed).worker_config() == WorkerConfig(**changed)
    assert set(changed) == {field.name for field, _ in declarations()}


@pytest.mark.parametrize(
    ("name", "bound", "outwards"),
    [
        (field.name, bound, outwards)
        for field, declared in declarations()
        for bound, outwards in ((declared.least, -1), (declared.most, 1))
        if bound is not None
    ],
)
def test_the_bounds_of_a_worker_s_limit_are_those_of_its_declaration(
    name: str, bound: int, outwards: int
) -> None:
    within: dict[str, Any] = {name: bound}
    beyond: dict[str, Any] = {name: bound + outwards}
    assert getattr(ServerSettings(**within).worker_config(), name) == bound
    with pytest.raises(ValidationError, match=name):
        ServerSettings(**beyond)


def settings_of(**given: Any) -> ServerSettings:
    """Settings from values that a source may give, which the fields' own types do not say."""
    return ServerSettings(**given)


def test_a_worker_s_limit_is_described_and_read_from_text() -> None:
    for field, declared in declarations():
        described = ServerSettings.model_fields[field.name]
        assert described.description == declared.help
        assert (field.name in ServerSettings.reloadable()) is declared.reloadable
    config = settings_of(job_memory="2GiB", formats="png, jpeg").worker_config()
    assert (config.job_memory, config.formats) == (2 << 30, ("png", "jpeg"))


def test_an_upload_of_the_largest_size_fits_the_spool() -> None:
    settings = ServerSettings()
    assert settings.spool_disk >= settings.max_upload


def test_sizes_may_be_written_with_units() -> None:
    assert settings_of(max_upload="200MB").max_upload == 200_000_000
    assert settings_of(max_upload="2GiB").max_upload == 2 * 1024**3


def test_no_setting_has_a_variable_that_kubernetes_sets() -> None:
    assert not [name for name in ServerSettings.model_fields if name.startswith(("service_", "port_"))]


def test_no_setting_has_the_variable_of_another_one_s_file() -> None:
    names = ServerSettings.model_fields
    assert not [name for name in names if name.removesuffix("_file") != name and name[:-5] in names]


def test_an_empty_host_is_refused() -> None:
    with pytest.raises(ValidationError, match="host"):
        ServerSettings(host="")  # which would mean every address of the machine


@pytest.mark.parametrize("given", ["jpeg, png ,webp", ["jpeg, png", "webp"], ("jpeg", "png", "webp")])
def test_words_are_split_at_commas_and_spaces_around_them_dropped(given: Any) -> None:
    assert ServerSettings(formats=given).worker_config().formats == ("jpeg", "png", "webp")


def test_listeners_are_checked() -> None:
    assert settings_of(listen="127.0.0.1:1, unix:/a").listen == ("127.0.0.1:1", "unix:/a")
    with pytest.raises(ValidationError, match="'nowhere' is not HOST:PORT"):
        settings_of(listen=["127.0.0.1:1", "nowhere"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "65536"),
        ("quality", "0"),
        ("workers", "0"),
        ("deadline", "0"),
        ("deadline", "inf"),
        ("deadline", "5000000"),  # more milliseconds than fit a job's head
        ("max_upload", "much"),
    ],
)
def test_values_out_of_bounds_are_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=name):
        settings_of(**{name: value})


def test_the_default_spool_folder_exists() -> None:
    assert Path(ServerSettings().spool_dir).is_dir()


def test_a_client_may_fill_half_of_the_queue_but_always_has_room_for_one_connection() -> None:
    assert ServerSettings(queue=1000).client_queue == 500
    assert ServerSettings(queue=10).client_queue == 32
    assert ServerSettings(queue=1000, queue_per_client=7).client_queue == 7


@pytest.mark.parametrize(("connections", "of_one"), [(1, 1), (2, 1), (64, 32), (200, 64), (4096, 1024)])
def test_one_address_has_at_most_half_of_few_connections(connections: int, of_one: int) -> None:
    assert ServerSettings(connections=connections).client_connections == of_one


@pytest.mark.parametrize(
    ("cores", "given", "gateways"),
    [
        (1, {}, 1),
        (8, {}, 1),
        (15, {}, 1),
        (16, {}, 2),
        (64, {}, 8),
        (64, {"workers": 3}, 3),
        (2, {"gateways": 2}, 2),
        (64, {"gateways": 1}, 1),
    ],
)
def test_one_gateway_for_each_eight_cores(
    cores: int, given: dict[str, int], gateways: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vipsrv.server.settings.available_cpus", lambda: cores)
    monkeypatch.setattr("vipsrv.server.settings.sys.platform", "linux")
    assert settings_of(**{"workers": cores, **given}).gateway_count == gateways
