"""How settings, cores and sockets are divided among gateways."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.settings_values import another_value
from vipsrv.server.gateways.messages import pack_settings, unpack_settings
from vipsrv.server.gateways.shares import cores_of, items_of, settings_of
from vipsrv.server.settings import ServerSettings

MIB = 1024**2
GIB = 1024**3

DIVIDED = ("workers", "connections", "queue", "spool_memory", "spool_disk", "decode_memory")


def of_all(settings: ServerSettings, gateways: int) -> list[ServerSettings]:
    return [settings_of(settings, gateways, number) for number in range(gateways)]


def settings(**given: Any) -> ServerSettings:
    return ServerSettings(**given)


@pytest.mark.parametrize("gateways", [2, 3, 7])
def test_budgets_are_divided_without_a_rest(gateways: int) -> None:
    whole = settings(workers=10, connections=1001, queue=100, decode_memory=50 * MIB + 1)
    shares = of_all(whole, gateways)
    for name in DIVIDED:
        values = [getattr(share, name) for share in shares]
        assert sum(values) == getattr(whole, name), name
        assert max(values) - min(values) <= 1


def test_no_share_is_too_small_for_what_the_server_accepts() -> None:
    whole = settings(workers=4, spool_disk=3 * GIB, max_upload=2 * GIB, spool_memory=2 * MIB, connections=2)
    for share in of_all(whole, 4):
        assert share.spool_disk == 2 * GIB
        assert share.spool_memory == MIB
        assert share.connections == 1
    # What fits nowhere before fits nowhere now.
    assert settings_of(settings(workers=4, spool_disk=0), 4, 0).spool_disk == 0


@pytest.mark.parametrize(
    ("bound", "gateways", "each"),
    # n / gateways, and three standard deviations of where n connections come by chance
    [(0, 2, 0), (1, 2, 1), (4, 2, 4), (64, 2, 44), (1024, 2, 560), (64, 8, 16)],
)
def test_the_bound_of_a_client_at_each_gateway(bound: int, gateways: int, each: int) -> None:
    assert settings_of(settings(connections_per_client=bound), gateways, 0).connections_per_client == each


@pytest.mark.parametrize(("bound", "each"), [(0, 0), (8, 8), (32, 32), (64, 44), (40, 32)])
def test_a_connection_may_queue_as_many_requests_as_it_may_have_in_flight(bound: int, each: int) -> None:
    assert settings_of(settings(queue_per_client=bound), 2, 0).queue_per_client == each


def test_only_the_first_gateway_warns_that_the_server_is_open() -> None:
    assert [share.insecure for share in of_all(settings(workers=3), 3)] == [False, True, True]


@given(st.sets(st.integers(0, 300), max_size=64), st.integers(1, 16))
def test_cores_are_disjoint_and_all_used(cores: set[int], gateways: int) -> None:
    shares = [cores_of(cores, gateways, number) for number in range(gateways)]
    if len(cores) < gateways:
        assert not any(shares)
        return
    assert sorted(core for share in shares for core in share) == sorted(cores)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(1, 12), st.integers(1, 12))
def test_each_socket_has_a_gateway_and_each_gateway_a_socket(sockets: int, gateways: int) -> None:
    shares = [items_of(range(sockets), gateways, number) for number in range(gateways)]
    assert all(shares)
    used = [item for share in shares for item in share]
    assert set(used) == set(range(sockets))
    if sockets >= gateways:
        assert len(used) == sockets


@pytest.mark.parametrize("name", list(ServerSettings.model_fields))
def test_a_gateway_gets_each_setting_as_it_is(name: str) -> None:
    given: dict[str, Any] = {name: another_value(name)}
    whole = settings(**given)
    got = unpack_settings(json.loads(json.dumps(pack_settings(whole))))
    if name in {"host", "port", "listen", "control", "takeover", "pid_file", "ops_file", "gateways"}:
        assert getattr(got, name) == getattr(ServerSettings(), name)
        assert not got.model_fields_set & {"host", "port", "listen"}
    else:
        assert getattr(got, name) == getattr(whole, name)


def test_an_infinite_time_stays_infinite() -> None:
    whole = settings(idle_timeout=float("inf"))
    assert unpack_settings(json.loads(json.dumps(pack_settings(whole)))) == whole
