"""Where the manifest is: the keys of its files at the destination, and its folder on this machine."""

import hashlib
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vipsrv.batch.stores.object_place import identity
from vipsrv.errors import BatchError

PARTS = ".vipsrv/parts/"
"""The keys of all parts start with this."""

RUNS = ".vipsrv/runs/"
"""So do those of the records of runs."""

_PART_ENDING = ".parquet"
_RUN_ENDING = ".json"


def new_run_id() -> str:
    """Return an id for a run: its start in UTC and six random hex digits. Ids sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def shard_name(run: str, number: int) -> str:
    """Return the name of a shard, which sorts by its number within the run."""
    return f"{run}-{number:06d}"


def run_of(shard: str) -> str:
    """Return the id of the run that a shard belongs to."""
    return shard.rpartition("-")[0]


def part_key(shard: str) -> str:
    """Return the key of the part of a shard."""
    return f"{PARTS}{shard}{_PART_ENDING}"


def is_part(key: str) -> bool:
    """Whether this is the key of a part, and not of something else that somebody has put beside them."""
    return key.startswith(PARTS) and key.endswith(_PART_ENDING) and "/" not in key[len(PARTS) :]


def run_key(run: str) -> str:
    """Return the key of the record of a run."""
    return f"{RUNS}{run}{_RUN_ENDING}"


def is_run(key: str) -> bool:
    """Whether this is the key of the record of a run."""
    return key.startswith(RUNS) and key.endswith(_RUN_ENDING) and "/" not in key[len(RUNS) :]


def local_folder(url: str) -> Path | None:
    """Return the folder that a destination is, or ``None`` if it is none of this machine."""
    if "://" not in url:
        return Path(url)
    scheme, _, path, _, _ = urlsplit(url)
    return Path(unquote(path)) if scheme == "file" else None


def case_counts(url: str) -> bool:
    """Whether a destination tells names apart that differ in their case only; it has a manifest already."""
    folder = local_folder(url)
    return folder is None or not (folder / PARTS.partition("/")[0].upper()).exists()


def journal_folder(url: str) -> Path:
    """Return the folder of the journals for a destination.

    It is at the destination if that is a folder, and otherwise in the state folder of the user. Raises
    ``BatchError`` for a user who has none, as in some containers.
    """
    folder = local_folder(url)
    if folder is not None:
        return folder / ".vipsrv" / "journal"
    state = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification: a relative path in the variable counts as none.
    if os.path.isabs(state):  # noqa: PTH117 - of a text
        root = Path(state)
    else:
        try:
            root = Path.home() / ".local" / "state"
        except RuntimeError:
            raise BatchError(
                "this user has no home folder for the journals of a batch: set XDG_STATE_HOME to a folder "
                "that is still there in the next run"
            ) from None
    return root / "vipsrv" / "batch" / hashlib.sha256(identity(url).encode()).hexdigest()[:16]
