"""Who may use the server: logins, penalties, the limits of a session, and what a reload changes."""

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from tests.server.identity.records import CREATED, add
from vipsrv.address import Address
from vipsrv.errors import Busy, SettingsError, StartFailed, Unauthorized, UnsupportedFormat
from vipsrv.server.access import Access, Session, identity_key, is_exposed
from vipsrv.server.accounts import Accounts
from vipsrv.server.identity import Identities
from vipsrv.server.identity.token_file import revoke_tokens
from vipsrv.server.request_options import parse_resize
from vipsrv.server.settings import ServerSettings
from vipsrv.workers.channel import JobLimits

WRONG = "vips_abcdefgh_" + "x" * 43
ADDRESS, OTHER = "192.0.2.1", "192.0.2.2"


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Server:
    """The access rules of a server with a token file, and its clocks."""

    def __init__(self, path: Path, **rules: Any) -> None:
        self.path = path
        self.clock, self.wall_clock = Clock(1000.0), Clock(CREATED.timestamp())
        self.access = Access(Identities(path), clock=self.clock, wall_clock=self.wall_clock, **rules)
        self.account = Accounts().open_flow(identity_key("shop")).account

    def session(self, token: str) -> Session:
        identity = self.access.login(token, ADDRESS)
        return self.access.session(identity, self.account)

    def reload(self, **settings: Any) -> None:
        self.access.prepare_reload(ServerSettings(tokens=self.path, **settings))()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def refused(call: Callable[[], object]) -> Busy:
    with pytest.raises(Busy) as raised:
        call()
    return raised.value


# Logins


def test_a_token_logs_in_and_a_wrong_one_does_not(path: Path) -> None:
    token = add(path, "shop")
    access = Server(path).access
    assert access.login(token.text, ADDRESS).name == "shop"
    for wrong in (WRONG, "", token.text[:-1], token.text + "x", token.text.upper(), "\ud800", "vips__"):
        with pytest.raises(Unauthorized, match="unknown or wrong"):
            Server(path).access.login(wrong, ADDRESS)


def test_an_address_that_guesses_is_refused_at_once_and_no_other(path: Path) -> None:
    token = add(path)
    server = Server(path)
    for _ in range(10_000):
        with pytest.raises((Unauthorized, Busy)):
            server.access.login(WRONG, ADDRESS)
    looked_up = server.access.attempts
    assert looked_up < 10
    error = refused(lambda: server.access.login(token.text, ADDRESS))
    assert error.retry_after_ms is not None
    assert server.access.attempts == looked_up
    assert server.access.login(token.text, OTHER).name == "shop"
    server.clock.now += error.retry_after_ms / 1000
    assert server.access.login(token.text, ADDRESS).name == "shop"


def test_the_attempts_of_a_patient_guesser_are_bounded(path: Path) -> None:
    add(path)
    server = Server(path)
    hour = server.clock.now + 3600
    while server.clock.now < hour:
        try:
            server.access.login(WRONG, ADDRESS)
        except Unauthorized:
            continue
        except Busy as busy:
            server.clock.now += (busy.retry_after_ms or 0) / 1000
    assert server.access.attempts <= 4 * 3600 / 15


def test_a_client_whose_token_has_expired_or_was_revoked_is_no_guesser(path: Path) -> None:
    expired = add(path, "old", expires=CREATED + timedelta(days=1))
    revoked = add(path, "gone")
    revoke_tokens(path, revoked.id, CREATED)
    server = Server(path)
    server.wall_clock.now += 2 * 86_400
    for _ in range(100):
        with pytest.raises(Unauthorized, match="expired on"):
            server.access.login(expired.text, ADDRESS)
        with pytest.raises(Unauthorized, match="was revoked on"):
            server.access.login(revoked.text, ADDRESS)


def test_a_token_file_with_faults_stops_the_start(path: Path) -> None:
    with pytest.raises(StartFailed, match=r"tokens\.toml"):
        Access.of(ServerSettings(tokens=path))
    assert not Access.of(ServerSettings()).requires_login
    add(path)
    assert Access.of(ServerSettings(tokens=path)).requires_login


# Who needs no token


def test_version_1_from_named_addresses(path: Path) -> None:
    add(path)
    server = Server(path, allow_v1=["192.0.2.0/28", "2001:db8::1", "unix"])
    for peer, allowed in [
        (("192.0.2.15", 9), True),
        (("192.0.2.16", 9), False),
        (("::ffff:192.0.2.15", 9, 0, 0), True),
        (("2001:db8::1", 9, 0, 0), True),
        (("2001:db8::2", 9, 0, 0), False),
        ("", True),
        (None, False),
    ]:
        assert server.access.allows_v1(peer) is allowed
    server.reload(allow_v1=["192.0.2.16"])
    assert not server.access.allows_v1(("192.0.2.15", 9))
    assert server.access.allows_v1(("192.0.2.16", 9))


def test_a_client_certificate_is_an_identity() -> None:
    transport = Mock(asyncio.Transport)
    assert Access().certified(transport) is None
    assert Access(certificate_identity=lambda _: "printer").certified(transport) == "printer"


@pytest.mark.parametrize(
    ("listener", "exposed"),
    [
        (Address("127.0.0.1", 9), False),
        (Address("127.9.9.9", 9), False),
        (Address("::1", 9), False),
        (Address(path="/run/socket"), False),
        (Address("0.0.0.0", 9), True),  # noqa: S104 - nothing listens on it here
        (Address("::", 9), True),
        (Address("192.0.2.1", 9), True),
        (Address("fe80::1%eth0", 9), True),
    ],
)
def test_a_listener_beyond_loopback_is_exposed(listener: Address, *, exposed: bool) -> None:
    assert is_exposed(listener) is exposed


# What a session may do


def test_the_formats_of_a_session(path: Path) -> None:
    token = add(path, limits={"formats": ["jpeg", "webp"], "max_pixels": 1000})
    session = Server(path).session(token.text)
    for format_ in ("jpeg", "webp", "auto"):
        session.check_formats(parse_resize({"width": 1, "height": 1, "format": format_})[0])
    options, _ = parse_resize(
        {"outputs": [{"width": 1, "height": 1}, {"width": 1, "height": 1, "format": "png"}]}
    )
    with pytest.raises(UnsupportedFormat, match=r"format: png is not among .* jpeg, webp"):
        session.check_formats(options)
    limits = JobLimits.take_from(json.loads(session.limit_job(b'{"width":1}')))
    assert limits == JobLimits(max_pixels=1000, formats=frozenset({"jpeg", "webp"}))


def test_a_session_without_limits_adds_nothing(path: Path) -> None:
    token = add(path)
    session = Server(path).session(token.text)
    session.check_formats(parse_resize({"width": 1, "height": 1, "format": "gif"})[0])
    assert session.limit_job(b'{"width":1}') == b'{"width":1}'


def test_the_weight_of_an_account_is_the_priority_of_its_identity(path: Path) -> None:
    token = add(path, limits={"priority": 2.5})
    server = Server(path)
    server.session(token.text)
    assert server.account.weight == 2.5


def test_a_reload_applies_to_sessions(path: Path) -> None:
    token = add(path, limits={"in_flight": 1, "priority": 2.0})
    server = Server(path)
    session = server.session(token.text)
    session.admit(0)
    assert "in flight" in refused(lambda: session.admit(0)).message
    text = path.read_text()
    path.write_text(text.replace("in_flight = 1", "in_flight = 2").replace("2.0", "3.0"))
    server.reload()
    session.refresh()
    assert server.account.weight == 3.0
    session.admit(0)
    refused(lambda: session.admit(0))
    revoke_tokens(path, token.id, CREATED)
    session.refresh()  # nothing was reloaded yet
    server.reload()
    with pytest.raises(Unauthorized, match="revoked"):
        session.refresh()


def test_a_reload_that_fails_changes_nothing(path: Path) -> None:
    token = add(path)
    server = Server(path, allow_v1=["192.0.2.1"])
    path.write_text("[[")
    with pytest.raises(SettingsError, match=r"tokens\.toml"):
        server.access.prepare_reload(ServerSettings(tokens=path))
    assert server.access.login(token.text, ADDRESS).name == "shop"
    assert server.access.allows_v1(("192.0.2.1", 9))


def test_tokens_are_neither_added_nor_removed_by_a_reload(path: Path) -> None:
    add(path)
    with pytest.raises(SettingsError, match="cannot be added"):
        Access().prepare_reload(ServerSettings(tokens=path))
    with pytest.raises(SettingsError, match="cannot be removed"):
        Server(path).access.prepare_reload(ServerSettings())


def test_the_hello_of_a_session_states_what_holds_for_it(path: Path) -> None:
    token = add(path, limits={"max_pixels": 1000, "formats": ["jpeg", "tga"], "requests_per_second": 5})
    server = {
        "server": "vipsrv",
        "limits": {"max_pixels": 5000, "max_output_pixels": 500, "max_upload": 9},
        "formats": {"in": ["jpeg", "png", "tga"], "out": ["jpeg", "png"]},
    }
    described = Server(path).session(token.text).describe(server)
    assert described == {
        "server": "vipsrv",
        "identity": "shop",
        "identity_limits": {"requests_per_second": 5, "max_pixels": 1000, "formats": ["jpeg", "tga"]},
        "limits": {"max_pixels": 1000, "max_output_pixels": 500, "max_upload": 9},
        "formats": {"in": ["jpeg", "tga"], "out": ["jpeg"]},
    }
    assert server["limits"] == {"max_pixels": 5000, "max_output_pixels": 500, "max_upload": 9}


@pytest.mark.parametrize(
    ("in_flight", "workers", "waiting"), [(1, 1, 0), (4, 4, 0), (7, 4, 3), (14, 4, 10), (15, 4, 10)]
)
def test_the_hello_of_a_session_states_how_many_of_its_requests_run_and_wait(
    path: Path, in_flight: int, workers: int, waiting: int
) -> None:
    token = add(path, limits={"in_flight": in_flight})
    server = {"limits": {"workers": 4, "queue_per_client": 10}}
    described = Server(path).session(token.text).describe(server)
    assert described["limits"] == {"workers": workers, "queue_per_client": waiting}
