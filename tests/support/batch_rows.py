"""Rows of images that nobody has resized, for tests of the manifest."""

import hashlib

from hypothesis import strategies as st

from vipsrv.batch.manifest.journal import ShardFacts
from vipsrv.batch.manifest.layout import part_key, run_of
from vipsrv.batch.manifest.parts import part_bytes
from vipsrv.batch.outputs import Outputs
from vipsrv.batch.rows import OK, OutputRow, Row
from vipsrv.batch.stores.interface import Destination
from vipsrv.options import Fit, Format, ResizeOptions

RUN = "20260102T030405Z-abcdef"
LATER_RUN = "20260103T030405Z-abcdef"
ENDED = 1_767_323_045_000
"""Milliseconds since the epoch."""


def outputs(*widths: int, name: str | None = None, quality: int = 80) -> Outputs:
    options = tuple(
        ResizeOptions(width=width, fit=Fit.INSIDE, format=Format.WEBP, quality=quality)
        for width in widths or (320,)
    )
    return Outputs(options) if name is None else Outputs(options, name)


def facts_of(shard: str, made: Outputs) -> ShardFacts:
    return ShardFacts(
        shard=shard, run=run_of(shard), options=made.digest, outputs=made.to_json(), tool="0.1.0"
    )


def ok_row(
    key: str, made: Outputs, *, version: str = "7-1", ended: int = ENDED, run: str = RUN, size: int = 10_000
) -> Row:
    results = tuple(
        OutputRow(
            key=name,
            width=one.width or 1,
            height=240,
            format="webp",
            bytes=1000,
            sha256=hashlib.sha256(name.encode()).hexdigest(),
        )
        for name, one in zip(made.planned(key), made.options, strict=True)
    )
    return Row(
        key=key,
        version=version,
        options=made.digest,
        bytes=size,
        outputs=results,
        status=200,
        code=OK,
        attempts=1,
        ms=12.5,
        ended=ended,
        run=run,
    )


def failed_row(
    key: str,
    made: Outputs,
    *,
    version: str = "7-1",
    status: int = 422,
    code: str = "corrupt_image",
    message: str = "the file ends too early",
    ended: int = ENDED,
    run: str = RUN,
) -> Row:
    return Row(
        key=key,
        version=version,
        options=made.digest,
        bytes=10_000,
        status=status,
        code=code,
        message=message,
        attempts=1,
        ms=3.25,
        ended=ended,
        run=run,
    )


async def write_part(destination: Destination, shard: str, made: Outputs, *rows: Row) -> None:
    await destination.write(part_key(shard), part_bytes(facts_of(shard, made), rows))


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_size = st.integers(0, 2**63 - 1)
_output_rows = st.builds(
    OutputRow, key=_text, width=_size, height=_size, format=_text, bytes=_size, sha256=_text
)
any_row = st.builds(
    Row,
    key=_text,
    version=_text,
    options=_text,
    bytes=_size,
    outputs=st.lists(_output_rows, max_size=3).map(tuple),
    status=st.integers(0, 999),
    code=_text,
    message=_text,
    attempts=st.integers(0, 2**31 - 1),
    ms=st.floats(0, allow_infinity=False, allow_nan=False),
    ended=st.integers(0, 2**53),
    run=_text,
)
"""Rows with any content that the columns hold."""
