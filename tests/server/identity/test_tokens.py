"""The text of a token and its digest."""

import base64
import hashlib

import pytest

from vipsrv.server.identity.tokens import ID_PATTERN, Token, hash_secret, new_token, split_token


def test_a_token_has_a_public_id_and_a_secret_of_32_random_bytes() -> None:
    token = new_token()
    prefix, token_id, secret = token.text.split("_", 2)
    assert (prefix, token_id, secret) == ("vips", token.id, token.secret)
    assert ID_PATTERN.fullmatch(token.id)
    assert len(base64.urlsafe_b64decode(secret + "=")) == 32


def test_no_two_tokens_are_the_same() -> None:
    tokens = [new_token() for _ in range(1000)]
    assert len({token.id for token in tokens}) == len({token.secret for token in tokens}) == 1000


def test_a_token_is_split_into_its_parts_also_if_the_secret_has_the_separator() -> None:
    tokens = [new_token() for _ in range(200)]
    assert any("_" in token.secret for token in tokens)
    for token in tokens:
        assert split_token(token.text) == token


@pytest.mark.parametrize(
    "text", ["", "vips", "vips_abc", "abc_def_ghi", "Bearer vips_abc_def", "_", "vips-a-b"]
)
def test_a_text_of_another_form_is_a_token_of_nobody(text: str) -> None:
    assert split_token(text) == Token("", text)


def test_the_secret_is_not_shown() -> None:
    token = new_token()
    assert token.secret not in repr(token)


def test_the_digest_is_sha_256() -> None:
    assert hash_secret("abc") == hashlib.sha256(b"abc").digest()
    assert len({hash_secret(text) for text in ("", "ü", "\ud800", "x" * 100_000)}) == 4
