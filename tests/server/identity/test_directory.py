"""Which identity a token has, what a client is told, and what a reload changes."""

import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.server.identity.records import CREATED, add
from vipsrv.errors import Busy, SettingsError, Unauthorized
from vipsrv.server.identity import Identities, Identity, IdentityLimits
from vipsrv.server.identity import directory as module
from vipsrv.server.identity.directory import WRONG_TOKEN
from vipsrv.server.identity.token_file import revoke_tokens
from vipsrv.server.identity.tokens import PREFIX, Token, hash_secret, new_token

NOW = CREATED.timestamp()


@dataclass(frozen=True)
class Settings:
    tokens: Path | None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def reload(identities: Identities, path: Path) -> None:
    identities.prepare_reload(Settings(path))()


def test_a_token_has_the_identity_that_the_file_gives_it(path: Path) -> None:
    token = add(path, "shop", limits={"in_flight": 3})
    other = add(path, "archive")
    identities = Identities(path)
    identity = identities.identify(token.text, NOW)
    assert identity == Identity("shop", IdentityLimits(in_flight=3), token.id)
    assert identities.identify(other.text, NOW).name == "archive"
    assert len(identities) == 2


def changed(token: Token, place: int) -> str:
    letter = "A" if token.secret[place] != "A" else "B"
    secret = token.secret[:place] + letter + token.secret[place:][1:]
    return f"{PREFIX}_{token.id}_{secret}"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda token: changed(token, 0),
        lambda token: changed(token, 41),
        lambda token: token.text[:-1],
        lambda token: token.text + "A",
        lambda token: token.text + "\n",
        lambda token: token.text.upper(),
        lambda _token: new_token().text,
        lambda token: f"{PREFIX}_{token.id}_",
        lambda token: f"{PREFIX}__{token.secret}",
        lambda token: f"{PREFIX}_{token.id}_{hash_secret(token.secret).hex()}",
        lambda _token: "",
        lambda _token: "\ud800",
        lambda _token: "vips_" * 10_000,
    ],
)
def test_every_wrong_token_gets_the_same_answer(path: Path, wrong: Callable[[Token], str]) -> None:
    token = add(path)
    with pytest.raises(Unauthorized) as refused:
        Identities(path).identify(wrong(token), NOW)
    assert refused.value.message == WRONG_TOKEN
    assert token.id not in refused.value.message


def test_a_secret_belongs_to_its_id(path: Path) -> None:
    first, second = add(path), add(path)
    identities = Identities(path)
    for token_id in (first.id, new_token().id, ""):
        with pytest.raises(Unauthorized, match=WRONG_TOKEN):
            identities.identify(Token(token_id, second.secret).text, NOW)


def test_only_who_has_the_secret_is_told_that_a_token_has_expired_or_was_revoked(path: Path) -> None:
    expired = add(path, "shop", expires=CREATED + timedelta(days=1))
    revoked = add(path, "archive", revoked=CREATED)
    identities = Identities(path)
    later = NOW + 86_400
    assert identities.identify(expired.text, later - 1).name == "shop"
    with pytest.raises(Unauthorized, match=r"the token of shop expired on 2026-11-28 09:00 UTC"):
        identities.identify(expired.text, later)
    with pytest.raises(Unauthorized, match=r"the token of archive was revoked on 2026-11-27 09:00 UTC"):
        identities.identify(revoked.text, NOW)
    for token in (expired, revoked):
        with pytest.raises(Unauthorized, match=WRONG_TOKEN):
            identities.identify(changed(token, 0), later)


def test_every_token_costs_one_hash_and_one_comparison_of_digests(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, expired, revoked = add(path), add(path, expires=CREATED), add(path, revoked=CREATED)
    identities = Identities(path)
    work: list[str] = []
    compare_digest = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        work.append(f"compare {len(a)} {len(b)}")
        return compare_digest(a, b)

    def hashed(secret: str) -> bytes:
        work.append("hash")
        return hash_secret(secret)

    monkeypatch.setattr(module, "hash_secret", hashed)
    monkeypatch.setattr(hmac, "compare_digest", compare)
    for text in (
        token.text,
        changed(token, 0),
        changed(token, 41),
        new_token().text,
        expired.text,
        revoked.text,
        "nonsense",
        "",
    ):
        work.clear()
        try:
            identities.identify(text, NOW)
        except Unauthorized:
            assert text != token.text
        assert work == ["hash", "compare 32 32"], text


def test_the_next_request_of_a_revoked_token_is_refused(path: Path) -> None:
    token, kept = add(path, "shop"), add(path, "archive")
    identities = Identities(path)
    identity = identities.identify(token.text, NOW)
    other = identities.identify(kept.text, NOW)
    revoke_tokens(path, token.id, CREATED)
    assert identities.refresh(identity, NOW) is identity  # the file alone changes nothing
    reload(identities, path)
    with pytest.raises(Unauthorized, match="the token of shop was revoked"):
        identities.refresh(identity, NOW)
    assert identities.refresh(other, NOW) == other


def test_the_next_request_of_a_removed_or_expired_token_is_refused(path: Path) -> None:
    token = add(path, "shop", expires=CREATED + timedelta(hours=1))
    identities = Identities(path)
    identity = identities.identify(token.text, NOW)
    assert identities.refresh(identity, NOW + 3599) is identity
    with pytest.raises(Unauthorized, match="expired"):
        identities.refresh(identity, NOW + 3600)
    path.write_text("")
    reload(identities, path)
    with pytest.raises(Unauthorized, match="the token of shop was removed"):
        identities.refresh(identity, NOW)


def test_usage_is_shared_by_all_connections_and_tokens_of_an_identity(path: Path) -> None:
    old = add(path, "shop", limits={"in_flight": 2})
    new = add(path, "shop", limits={"in_flight": 2})
    identities = Identities(path)
    first = identities.usage(identities.identify(old.text, NOW))
    second = identities.usage(identities.identify(new.text, NOW))
    first.admit(1, 0.0)
    second.admit(1, 0.0)
    with pytest.raises(Busy, match="2 requests in flight"):
        first.admit(1, 0.0)
    assert identities.usage(identities.identify(old.text, NOW)).in_flight == 2  # as after a reconnect


def test_usage_survives_a_reload_which_changes_its_limits(path: Path) -> None:
    token = add(path, "shop", limits={"in_flight": 2, "requests_per_second": 1})
    identities = Identities(path, clock=lambda: 0.0)
    identity = identities.identify(token.text, NOW)
    usage = identities.usage(identity)
    usage.admit(1, 0.0)
    path.write_text(path.read_text().replace("in_flight = 2", "in_flight = 1"))
    reload(identities, path)
    assert identities.usage(identity) is usage
    assert identities.refresh(identity, NOW).limits.in_flight == 1
    with pytest.raises(Busy, match="1 requests in flight"):
        usage.admit(1, 5.0)
    usage.done()
    with pytest.raises(Busy, match="1 requests a second"):
        usage.admit(1, 0.5)
    usage.admit(1, 1.0)


@pytest.mark.parametrize("text", ["[", "[abc]\n", '[abcdefgh]\nname = "x"\n'])
def test_a_reload_of_an_invalid_file_keeps_the_old_tokens(path: Path, text: str) -> None:
    token = add(path)
    identities = Identities(path)
    path.write_text(text)
    with pytest.raises(SettingsError, match=str(path)):
        identities.prepare_reload(Settings(path))
    assert identities.identify(token.text, NOW).token_id == token.id


def test_a_reload_that_is_prepared_changes_nothing_before_it_is_taken_over(path: Path) -> None:
    token = add(path)
    identities = Identities(path)
    late = add(path)
    take_over = identities.prepare_reload(Settings(path))
    with pytest.raises(Unauthorized):
        identities.identify(late.text, NOW)
    take_over()
    assert identities.identify(late.text, NOW).token_id == late.id
    assert identities.identify(token.text, NOW).token_id == token.id


def test_a_reload_may_name_another_file_but_not_none(path: Path, tmp_path: Path) -> None:
    add(path)
    elsewhere = tmp_path / "elsewhere.toml"
    token = add(elsewhere)
    identities = Identities(path)
    reload(identities, elsewhere)
    assert identities.identify(token.text, NOW).token_id == token.id
    with pytest.raises(SettingsError, match="tokens: cannot be removed by a reload"):
        identities.prepare_reload(Settings(None))


def test_a_server_does_not_start_without_its_file(path: Path) -> None:
    with pytest.raises(SettingsError, match=f"{path}: there is no such token file; 'vipsrv token new NAME"):
        Identities(path)


def test_a_file_that_others_can_read_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(path)
    Identities(path)
    assert not caplog.records
    path.chmod(0o640)
    Identities(path)
    assert not caplog.records  # the group may be the server's
    path.chmod(0o644)
    Identities(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: others may read or change the token file (mode 0644); 'chmod 600 {path}' closes it"
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_the_server_may_not_read(path: Path) -> None:
    add(path)
    path.chmod(0)
    with pytest.raises(SettingsError, match=f"{path}: the token file cannot be read: Permission denied"):
        Identities(path)


def test_times_of_the_messages_are_utc(path: Path) -> None:
    expires = datetime(2027, 1, 1, 0, 30, tzinfo=UTC)
    token = add(path, expires=expires)
    with pytest.raises(Unauthorized, match="2027-01-01 00:30 UTC"):
        Identities(path).identify(token.text, expires.timestamp())
