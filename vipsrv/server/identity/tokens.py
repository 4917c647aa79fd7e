"""The text of a token, ``vips_<id>_<secret>``, and the digest by which the server recognises it.

The id is public: it finds the token in the token file and is shown in lists. The secret is 32 random bytes.
Such a secret cannot be guessed, however fast the hash is, so SHA-256 is enough; slow hashes are for passwords
that people choose.
"""

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass, field

PREFIX = "vips"
"""The start of every token, by which scanners for leaked secrets recognise one."""

ID_PATTERN = re.compile(r"[a-z2-7]{8,64}")
"""What an id looks like: base32 in lower case."""

_ID_BYTES = 10  # 80 bits are 16 characters without padding; ids of one file do not collide
_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Token:
    """A token in its two parts."""

    id: str
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """The token as a client sends it."""
        return f"{PREFIX}_{self.id}_{self.secret}"


def new_token() -> Token:
    """Return a token with a random id and a random secret."""
    token_id = base64.b32encode(secrets.token_bytes(_ID_BYTES)).decode("ascii").lower()
    return Token(token_id, secrets.token_urlsafe(_SECRET_BYTES))


def split_token(text: str) -> Token:
    """Split the text of a token. A text of another form becomes a token that nobody has."""
    parts = text.split("_", 2)  # the secret may contain "_"
    if len(parts) != 3 or parts[0] != PREFIX:  # noqa: PLR2004 - prefix, id and secret
        return Token("", text)
    return Token(parts[1], parts[2])


def hash_secret(secret: str) -> bytes:
    """Return the SHA-256 digest of a secret."""
    # JSON can hold a lone surrogate, which UTF-8 cannot.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
