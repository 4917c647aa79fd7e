"""Parts: rows in Parquet, and back."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.batch_rows import any_row, facts_of, failed_row, ok_row, outputs
from vipsrv.batch.manifest.parts import Part, part_bytes
from vipsrv.batch.outputs import Outputs
from vipsrv.batch.rows import Row
from vipsrv.errors import BatchError

MADE = outputs(320, 640)
FACTS = facts_of("run-000001", MADE)


@settings(deadline=None)
@given(st.lists(any_row, max_size=5))
def test_rows_come_back_and_the_same_rows_give_the_same_bytes(rows: list[Row]) -> None:
    data = part_bytes(FACTS, rows)
    part = Part(data, "p")
    assert list(part.rows()) == rows
    assert part.keys() == [row.key for row in rows]
    assert part.ended() == [row.ended for row in rows]
    assert part.facts == FACTS
    assert part_bytes(FACTS, rows) == data


def test_another_program_reads_the_columns() -> None:
    rows = [ok_row("a/ü 1.jpg", MADE), failed_row("b.png", MADE)]
    file = pq.ParquetFile(io.BytesIO(part_bytes(FACTS, rows)))
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    table = file.read()
    assert table["key"].to_pylist() == ["a/ü 1.jpg", "b.png"]
    assert str(table["ended"][0].as_py()) == "2026-01-02 03:04:05+00:00"
    assert [len(one) for one in table["outputs"].to_pylist()] == [2, 0]
    assert table["outputs"][0].as_py()[1]["key"] == "a/ü 1_640x.webp"
    about = table.schema.metadata
    assert about[b"vipsrv_options"].decode() == MADE.digest
    assert Outputs.from_json(about[b"vipsrv_outputs"].decode()) == MADE
    assert about[b"vipsrv_tool"] == b"0.1.0"


def test_a_key_that_is_not_utf8_does_not_stop_the_shard() -> None:
    part = Part(part_bytes(FACTS, [failed_row("bad-\udcff-ü.jpg", MADE)]), "p")
    assert part.keys() == ["bad-\\xff-ü.jpg"]


def test_columns_that_a_later_version_has_added_are_ignored() -> None:
    rows = [ok_row("a.jpg", MADE), failed_row("b.jpg", MADE)]
    table = pq.read_table(io.BytesIO(part_bytes(FACTS, rows)))
    outputs_ = [[one | {"new": 1} for one in results] for results in table["outputs"].to_pylist()]
    index = table.schema.get_field_index("outputs")
    table = table.set_column(index, "outputs", pa.array(outputs_)).append_column("new", pa.array([1, 2]))
    sink = io.BytesIO()
    pq.write_table(table, sink)
    part = Part(sink.getvalue(), "p")
    assert list(part.rows()) == rows
    assert "new" not in part.table.column_names


def test_a_newer_part_is_refused() -> None:
    table = pq.read_table(io.BytesIO(part_bytes(FACTS, [])))
    sink = io.BytesIO()
    newer = {**table.schema.metadata, b"vipsrv_format": b"2"}
    pq.write_table(table.replace_schema_metadata(newer), sink)
    with pytest.raises(BatchError, match=r"p\.parquet: has the format 2, and this version of vipsrv knows 1"):
        Part(sink.getvalue(), "p.parquet")


def test_what_is_no_part_is_told_by_its_name() -> None:
    whole = part_bytes(FACTS, [ok_row("a.jpg", MADE)])
    foreign = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(whole)).replace_schema_metadata(None), foreign)
    table = pq.read_table(io.BytesIO(whole))
    other = [io.BytesIO(), io.BytesIO(), io.BytesIO()]
    index = table.schema.get_field_index("outputs")
    pq.write_table(table.drop_columns(["code"]), other[0])
    pq.write_table(table.set_column(index, "outputs", pa.array([[{"width": 1}]])), other[1])
    pq.write_table(table.set_column(index, "outputs", pa.array(["text"])), other[2])
    middle = whole[:100] + bytes(40) + whole[140:]
    columns = [one.getvalue() for one in other]
    for data in (b"", b"PAR1", whole[:-1], whole[:-200], foreign.getvalue(), middle, *columns):
        with pytest.raises(BatchError, match=r"p\.parquet: is "):
            Part(data, "p.parquet")
