"""The defaults of budgets and workers under a limit of memory."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ByteSize, TypeAdapter

from vipsrv.server.cgroups import Cgroups
from vipsrv.server.configuration import SettingsSources
from vipsrv.server.memory_limit import memory_needed, settings_within, shares_of
from vipsrv.server.settings import ServerSettings

MEMORY_PAGE = Path(__file__).parents[2] / "docs" / "operations" / "memory.md"

MIB = 1 << 20
GIB = 1 << 30


def settings(**given: Any) -> ServerSettings:
    return ServerSettings(**{"workers": 2, "gateways": 1, **given})


def within(limit: int | None, *, spool_limit: int | None = None, **given: Any) -> dict[str, Any]:
    return settings_within(settings(**given), limit, spool_limit=spool_limit)


def test_without_a_limit_the_defaults_stay() -> None:
    assert within(None) == {}
    assert within(None, spool_limit=64 * MIB) == {}


def test_a_limit_that_holds_the_defaults_changes_none() -> None:
    needed = memory_needed(settings())
    assert within(needed) == {}
    assert within(needed - 1) != {}


@pytest.mark.parametrize("mib", [512, 768, 1024, 1500])
@pytest.mark.parametrize("workers", [1, 2])
def test_with_a_spool_on_a_disk_the_bounds_fit_into_the_limit(mib: int, workers: int) -> None:
    given = settings(workers=workers)
    fitted = given.model_copy(update=within(mib * MIB, workers=workers))
    assert memory_needed(fitted) <= mib * MIB
    assert fitted.spool_memory >= 16 * MIB
    assert (fitted.spool_disk, fitted.max_upload) == (given.spool_disk, given.max_upload)


@pytest.mark.parametrize("gateways", [2, 4])
@pytest.mark.parametrize("mib", [2048, 4096])
def test_the_bounds_of_several_gateways_fit_into_the_limit(mib: int, gateways: int) -> None:
    given = settings(workers=4, gateways=gateways)
    on_disk = given.model_copy(update=settings_within(given, mib * MIB))
    assert memory_needed(on_disk) <= mib * MIB
    in_memory = given.model_copy(update=settings_within(given, mib * MIB, spool_limit=64 * GIB))
    shares = shares_of(in_memory)
    # Three quarters at most: the rest is for processes and jobs.
    assert sum(share.spool_disk for share in shares) <= mib * MIB * 3 // 4
    assert all(share.spool_disk >= in_memory.max_upload for share in shares)


def test_512_mib_with_a_spool_in_memory_hold_an_image_of_324_mb() -> None:
    changes = within(512 * MIB, spool_limit=12 * GIB, workers=1)
    assert changes == {
        "spool_memory": 26 * MIB,
        "spool_disk": 312 * MIB,
        "upload_memory": 26 * MIB // 4,
        "upload_disk": 312 * MIB,
        "decode_memory": 156 * MIB,
        "job_memory": 156 * MIB,
        "max_upload": 312 * MIB,
    }
    assert changes["max_upload"] > 324_000_000


_ROW = re.compile(
    r"^\| (?P<limit>[\d.]+ \w+) \| (?P<spool>disk|tmpfs) "
    r"\| (?P<memory>[^|]+) \| (?P<disk>[^|]+) \| (?P<upload>[^|]+) \| (?P<jobs>[^|]+) \|$",
    flags=re.MULTILINE,
)


def test_the_table_of_the_documentation() -> None:
    rows = list(_ROW.finditer(MEMORY_PAGE.read_text()))
    assert len(rows) == 4
    for row in rows:
        given = settings(workers=1)
        spool_limit = None if row["spool"] == "disk" else 64 * GIB
        limit = TypeAdapter(ByteSize).validate_python(row["limit"])
        fitted = given.model_copy(update=settings_within(given, limit, spool_limit=spool_limit))
        sizes = (fitted.spool_memory, fitted.spool_disk, fitted.max_upload, fitted.decode_memory)
        shown = (row[name].replace(" ", "") for name in ("memory", "disk", "upload", "jobs"))
        assert sizes == tuple(map(TypeAdapter(ByteSize).validate_python, shown))
        assert fitted.worker_config().job_memory == fitted.decode_memory


def test_a_file_system_in_memory_may_hold_less_than_its_share() -> None:
    changes = within(512 * MIB, spool_limit=100 * MIB, workers=1)
    assert (changes["spool_disk"], changes["max_upload"]) == (100 * MIB, 100 * MIB)


def test_a_very_low_limit_leaves_a_server_that_works() -> None:
    changes = within(128 * MIB, spool_limit=GIB, workers=1)
    assert (changes["spool_memory"], changes["job_memory"]) == (16 * MIB, 64 * MIB)


def test_what_was_given_stays() -> None:
    changes = within(512 * MIB, spool_limit=GIB, workers=1, spool_memory=200 * MIB, job_memory=GIB)
    assert set(changes) == {"spool_disk", "upload_memory", "upload_disk", "decode_memory", "max_upload"}


def test_no_upload_is_larger_than_a_spool_that_was_given() -> None:
    changes = within(512 * MIB, spool_limit=GIB, workers=1, spool_disk=100 * MIB)
    assert (changes["max_upload"], changes["upload_disk"]) == (100 * MIB, 100 * MIB)


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine on which eight workers are the default."""
    with monkeypatch.context() as patched:
        patched.setattr(ServerSettings.model_fields["workers"], "default_factory", lambda: 8)
        ServerSettings.model_rebuild(force=True)
        yield
    ServerSettings.model_rebuild(force=True)


@pytest.mark.usefixtures("eight_cores")
def test_workers_by_default_are_as_many_as_half_of_the_limit_holds() -> None:
    few = ServerSettings(gateways=1)
    assert few.workers == 8
    workers = [settings_within(few, mib * MIB).get("workers") for mib in (256, 1024, 2048, 8192)]
    assert workers == [1, 2, 5, None]


@pytest.mark.usefixtures("eight_cores")
def test_a_limit_leaves_each_gateway_a_worker() -> None:
    assert settings_within(ServerSettings(gateways=4), 512 * MIB)["workers"] == 4


def cgroups(folder: Path, limit: str) -> Cgroups:
    (folder / "memory.max").write_text(limit)
    own = folder / "own"
    own.write_text("0::/\n")
    return Cgroups(folder, own)


def test_the_settings_of_a_server_follow_its_cgroup(tmp_path: Path) -> None:
    sources = SettingsSources(
        {"workers": 1}, read_file=False, environment={}, cgroups=cgroups(tmp_path, f"{512 * MIB}\n")
    )
    configuration = sources.read()
    assert configuration.settings.decode_memory < GIB
    assert configuration.origins["decode_memory"].place == "memory limit of 512 MiB"
    assert configuration.origins["workers"].place == "--workers"
    # A reload finds the same.
    assert sources.read().settings == configuration.settings


def test_what_the_environment_and_the_file_give_stays(tmp_path: Path) -> None:
    file = tmp_path / "vipsrv.toml"
    file.write_text('decode_memory = "2GiB"\nworkers = 1\n')
    file.chmod(0o600)
    configuration = SettingsSources(
        config=file,
        environment={"VIPSRV_JOB_MEMORY": "1GiB"},
        cgroups=cgroups(tmp_path, f"{512 * MIB}\n"),
    ).read()
    assert configuration.settings.decode_memory == 2 * GIB
    assert configuration.settings.worker_config().job_memory == GIB
    assert configuration.settings.spool_memory < 128 * MIB


def test_the_settings_of_a_server_without_a_limit(tmp_path: Path) -> None:
    configuration = SettingsSources(
        read_file=False, environment={}, cgroups=cgroups(tmp_path, "max\n")
    ).read()
    assert configuration.settings == ServerSettings()
