"""Each setting that can be reloaded, in the parts of a gateway that use it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.settings_values import another_value
from vipsrv.address import Address
from vipsrv.errors import Busy, SettingsError, TooLarge
from vipsrv.server import descriptors, gateway
from vipsrv.server.connections.binary import BinaryConnection
from vipsrv.server.connections.proxy_header import ProxiedConnection
from vipsrv.server.gateway import Gateway
from vipsrv.server.settings import ServerSettings
from vipsrv.worker_config import IN_MEMORY_SIZE, declarations

IN_USE: dict[str, Callable[[Gateway], Any]] = {
    "jobs_per_worker": lambda one: one._pool._policy.max_jobs,
    "decode_memory": lambda one: one._admission._memory_left,
    "connections": lambda one: one._context.connections.limit,
    "connections_per_client": lambda one: one._context.connections.per_client,
    "trusted_proxies": lambda one: type(one._make_connection(Address())),
    "queue": lambda one: one._admission._limit,
    "queue_per_client": lambda one: one._admission._per_client,
    "deadline": lambda one: (one._context.settings.deadline, one._describe()["limits"]["deadline_ms"]),
    "idle_timeout": lambda one: one._context.settings.idle_timeout,
    "receive_timeout": lambda one: one._context.settings.receive_timeout,
    "spool_memory": lambda one: one._spool.memory_left,
    "spool_disk": lambda one: one._spool.disk_left,
    "drain": lambda one: one._settings.drain,
}
"""What a setting does, where that is more than its value."""


def in_use(one: Gateway, name: str) -> Any:
    """The value of a setting where the gateway uses it."""
    if name in IN_USE:
        return IN_USE[name](one)
    if name in {field.name for field, _ in declarations()}:
        return getattr(one._pool._config, name)
    return getattr(one._settings, name)


def value_in_use(name: str, value: Any) -> Any:
    """What ``in_use`` returns for a value of a setting."""
    if name == "trusted_proxies":
        return ProxiedConnection if value else BinaryConnection
    if name == "deadline":
        return value, int(value * 1000)
    return value


def base(folder: Path) -> dict[str, Any]:
    tokens = folder / "tokens.toml"
    tokens.touch(0o600)
    return {"workers": 1, "port": 0, "ops_listen": "off", "spool_dir": folder, "tokens": tokens}


@pytest.fixture
async def started(tmp_path: Path) -> Any:
    one = Gateway(ServerSettings(**base(tmp_path)))
    await one.start()
    yield one
    await one.stop()


async def test_every_setting_that_can_be_reloaded_is_in_use_afterwards(
    started: Gateway, tmp_path: Path
) -> None:
    before_it = base(tmp_path)
    other_tokens = tmp_path / "others.toml"
    other_tokens.touch(0o600)
    for name in sorted(ServerSettings.reloadable()):
        value = other_tokens if name == "tokens" else another_value(name)
        changed = ServerSettings(**{**before_it, name: value})
        before, wanted = in_use(started, name), value_in_use(name, getattr(changed, name))
        assert before != wanted, name
        take_over = started.prepare_reload(changed)
        assert in_use(started, name) == before, f"{name} was taken over too early"
        take_over()
        assert in_use(started, name) == wanted, name
        started.prepare_reload(ServerSettings(**before_it))()
        assert in_use(started, name) == before, name


async def test_a_limit_that_follows_from_another_follows_in_a_reload(started: Gateway) -> None:
    started.prepare_reload(started._settings.model_copy(update={"connections": 10, "queue": 100}))()
    assert (in_use(started, "connections_per_client"), in_use(started, "queue_per_client")) == (5, 50)
    with pytest.raises(TooLarge):
        started._context.check_upload(started._settings.max_upload + 1)


async def test_no_more_files_of_the_spool_than_descriptors_allow(
    started: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = started._settings.model_copy(update={"connections": 2})
    monkeypatch.setattr(gateway, "raise_limit", lambda: descriptors.needed(wanted))
    started.prepare_reload(wanted)()
    slots = [started._spool.open(IN_MEMORY_SIZE + 1) for _ in range(2)]
    with pytest.raises(Busy, match="room for 0 more files"):
        started._spool.open(IN_MEMORY_SIZE + 1)
    for slot in slots:
        slot.close()


async def test_no_more_connections_than_descriptors_allow(
    started: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = started._settings.model_copy(update={"connections": 1000})
    few = descriptors.needed(wanted) - 500 * descriptors.EACH_CONNECTION
    monkeypatch.setattr(gateway, "raise_limit", lambda: few)
    started.prepare_reload(wanted)()
    assert in_use(started, "connections") == 500
    monkeypatch.setattr(gateway, "raise_limit", lambda: 10)
    with pytest.raises(SettingsError, match="the limit of 10 open files is too low"):
        started.prepare_reload(wanted)


@pytest.mark.parametrize(
    ("queue", "per_client", "stated"), [(100, 0, 50), (100, 7, 7), (8, 0, 8), (8, 20, 8)]
)
async def test_what_a_client_may_have_waiting_is_stated(
    started: Gateway, queue: int, per_client: int, stated: int
) -> None:
    changed = {"queue": queue, "queue_per_client": per_client}
    started.prepare_reload(started._settings.model_copy(update=changed))()
    limits = started._describe()["limits"]
    assert (limits["workers"], limits["queue_per_client"]) == (started._pool.size, stated)
