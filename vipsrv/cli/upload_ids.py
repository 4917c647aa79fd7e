"""The id under which ``vipsrv-client`` uploads an image, so that the command resumes when it is started anew.

It is made from the content of the image and a secret of this user on this machine: the same command has the
same id again, and nobody who knows the image can guess it. Whoever knows the id of an anonymous upload could
go on with it.
"""

import hashlib
import hmac
import os
import secrets
import stat
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from vipsrv.cli.upload import UploadImage
from vipsrv.client import SeekableReader
from vipsrv.client.resume import new_upload_id

SECRET_SIZE = 32
"""Bytes, as many as the digest has."""

ID_DIGITS = 32
"""Hex digits of an id: 128 bits."""

PIECE_SIZE = 2**20


def content_id(image: UploadImage) -> str:
    """Return the id of an image by its content; a random one if the secret of this user cannot be kept.

    It reads the whole image. Raises ``OSError`` if the image cannot be read.
    """
    secret = user_secret()
    if secret is None:
        return new_upload_id()
    digest = hmac.new(secret, image.size.to_bytes(8, "big"), hashlib.sha256)
    with ExitStack() as stack:
        content = image.content
        file: SeekableReader
        if isinstance(content, Path):
            file = stack.enter_context(content.open("rb", buffering=0))
        else:
            file = content
            stack.callback(file.seek, file.tell(), os.SEEK_SET)
        while piece := file.read(PIECE_SIZE):
            digest.update(piece)
    return digest.hexdigest()[:ID_DIGITS]


def user_secret() -> bytes | None:
    """Return the secret of this user on this machine; made at first use. ``None`` if it cannot be kept."""
    try:
        path = state_folder() / "upload-secret"
        return _read(path) if path.exists() else _make(path)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home folder
        return None


def state_folder() -> Path:
    """Return the folder in which a program keeps what it needs again, by the custom of the system.

    Raises ``RuntimeError`` if the user has no home folder.
    """
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "vipsrv"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "vipsrv"
    # The XDG specification: a relative path in the variable counts as none.
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    return (state if state.is_absolute() else Path.home() / ".local" / "state") / "vipsrv"


def _make(path: Path) -> bytes | None:
    """Make the secret, unless another process has done so meanwhile. Raises ``OSError``."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # It has its name only when it is complete; the file is the user's alone from the beginning.
    descriptor, name = tempfile.mkstemp(prefix=".upload-secret-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SECRET_SIZE))
        try:
            os.link(name, path)
        except FileExistsError:
            return _read(path)
        except OSError:  # a file system without hard links
            Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
    return _read(path)


def _read(path: Path) -> bytes | None:
    """Read the secret; ``None`` if it is not one, or if others could have read it or made it."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if hasattr(os, "geteuid") and (
            status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & (stat.S_IRWXG | stat.S_IRWXO)
        ):
            return None
        secret = file.read(SECRET_SIZE + 1)
    return secret if len(secret) == SECRET_SIZE else None
