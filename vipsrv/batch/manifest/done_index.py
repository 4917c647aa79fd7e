"""What is done with a set of options, by key: an index on disk that is made from the parts at the start."""

import asyncio
import unicodedata
from collections.abc import Sequence
from enum import Enum, auto
from itertools import product

from vipsrv.batch.manifest.journal import ShardFacts
from vipsrv.batch.manifest.manifest import Manifest
from vipsrv.batch.manifest.parts import Part
from vipsrv.batch.manifest.temporary_database import full_disk_told, key_digest, temporary_database
from vipsrv.batch.outputs import Outputs
from vipsrv.batch.problems import ImageFailed
from vipsrv.batch.rows import OK

_COLUMNS = ("key", "version", "code", "ended")

_OTHER_OPTIONS = ""
"""The code of an image whose results were since replaced by those of other options."""

_SAMPLE_FOLDERS = ("", "folder/")
_SAMPLE_ENDINGS = ("jpg", "jpeg", "png", "webp", "avif", "tif", "tiff", "gif", "jxl")


class Relation(Enum):
    """How the results of other options relate to those of a run."""

    SAME = auto()
    """The options are the same."""
    REPLACES = auto()
    """Some of the results have the same names: each replaces the other."""
    NONE = auto()
    """No result has the name of another."""


class DoneIndex:
    """The latest row of each image that counts for a set of options, and whose the names of results are.

    Not for use by two threads at a time.
    """

    def __init__(self, outputs: Outputs, *, case_counts: bool = True) -> None:
        """``case_counts`` is whether the destination tells names apart that differ in their case only."""
        self._outputs = outputs
        self._case_counts = case_counts
        self._database = temporary_database()
        self._relations: dict[str, Relation] = {outputs.digest: Relation.SAME}
        for table in (
            "image (key BLOB PRIMARY KEY, version BLOB, code TEXT, ended INTEGER)",
            "name (name BLOB PRIMARY KEY, key BLOB)",
            "listed (key BLOB PRIMARY KEY)",
        ):
            self._database.execute(f"CREATE TABLE {table} WITHOUT ROWID")

    async def read(self, manifest: Manifest) -> None:
        """Read all parts of a manifest; as many bytes of memory as a few parts take."""
        async for part in manifest.parts(await manifest.part_keys(), _COLUMNS):
            await asyncio.to_thread(self.add, part)

    def add(self, part: Part) -> None:
        """Take over the rows of a part. Of two rows of an image, the one that ended later counts."""
        relation = self._relation(part.facts)
        if relation is Relation.NONE:
            return
        keys = part.keys()
        codes = part.table["code"].to_pylist()
        if relation is Relation.REPLACES:
            codes = [_OTHER_OPTIONS] * len(keys)
        digests = [key_digest(key) for key in keys]
        versions = [key_digest(one) if one else b"" for one in part.table["version"].to_pylist()]
        with full_disk_told():
            self._database.executemany(
                "INSERT INTO image VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "version = excluded.version, code = excluded.code, ended = excluded.ended "
                "WHERE excluded.ended >= ended",
                zip(digests, versions, codes, part.ended(), strict=True),
            )
            for key, digest, code in zip(keys, digests, codes, strict=True):
                if code == OK:
                    self._claim(key, digest)

    def is_new_in_listing(self, digest: bytes) -> bool:
        """Whether an image is listed for the first time in this run; from now on it is not."""
        with full_disk_told():
            added = self._database.execute("INSERT OR IGNORE INTO listed VALUES (?)", (digest,))
        return added.rowcount > 0

    def code(self, digest: bytes, version: str) -> str | None:
        """Return the code that the latest row of this version of an image has; ``None`` if there is none.

        A version that is not known, now or then, counts as the same.
        """
        found = self._database.execute("SELECT version, code FROM image WHERE key = ?", (digest,)).fetchone()
        if found is None or found[1] == _OTHER_OPTIONS:
            return None
        if version and found[0] and found[0] != key_digest(version):
            return None
        return str(found[1])

    def claim_names(self, key: str, digest: bytes) -> str | None:
        """Take the names of an image's results; return one that is another image's, or ``None``."""
        with full_disk_told():
            return self._claim(key, digest)

    def _claim(self, key: str, digest: bytes) -> str | None:
        try:
            claims = self._outputs.claims(key)
        except ImageFailed:  # no result can have such a name; whoever does the image says so
            return None
        names = [key_digest(one if self._case_counts else _folded(one)) for one in claims]
        for claim, name in zip(claims, names, strict=True):
            found = self._database.execute("SELECT key FROM name WHERE name = ?", (name,)).fetchone()
            if found is not None and found[0] != digest:
                return claim
        self._database.executemany(
            "INSERT OR IGNORE INTO name VALUES (?, ?)", ((name, digest) for name in names)
        )
        return None

    def _relation(self, facts: ShardFacts) -> Relation:
        known = self._relations.get(facts.options)
        if known is None:
            known = self._relations[facts.options] = relation_of(self._outputs, facts.outputs)
        return known

    def close(self) -> None:
        """Remove the index."""
        self._database.close()


def relation_of(outputs: Outputs, other: str) -> Relation:
    """Return how other outputs, as the manifest has them, relate to these."""
    try:
        others = Outputs.from_json(other)
    except (ValueError, RecursionError):  # options that this version does not know
        return Relation.REPLACES
    for folder, ending in product(_SAMPLE_FOLDERS, _SAMPLE_ENDINGS):
        key = f"{folder}image.{ending}"
        if any(_may_be_same(one, two) for one, two in product(outputs.planned(key), others.planned(key))):
            return Relation.REPLACES
    return Relation.NONE


def _folded(name: str) -> str:
    """Return what names have in common that a file system takes for one, as far as Unicode says so."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _may_be_same(one: str, other: str) -> bool:
    """Whether two planned names may be the same, where what is in braces stands for any text."""
    return _ends_agree(_fixed_ends(one), _fixed_ends(other))


def _fixed_ends(name: str) -> tuple[str, str] | str:
    """Return what is before the first field and after the last one, or the name if it has none."""
    if "{" not in name:
        return name
    return name[: name.index("{")], name[name.rindex("}") + 1 :]


def _ends_agree(one: tuple[str, str] | str, other: tuple[str, str] | str) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one == other
    starts: Sequence[str] = [ends if isinstance(ends, str) else ends[0] for ends in (one, other)]
    stops: Sequence[str] = [ends if isinstance(ends, str) else ends[1] for ends in (one, other)]
    short, long = sorted(starts, key=len)
    short_stop, long_stop = sorted(stops, key=len)
    return long.startswith(short) and long_stop.endswith(short_stop)
