"""The tables of a comparison say all that was measured, in Markdown."""

import pytest

from bench.tools.comparison import tables
from tests.bench.tools.comparisons import document, row


def cells(text: str, first: str) -> list[str]:
    """The cells of the last line whose first cell this is."""
    (*_, line) = [line for line in text.splitlines() if line.startswith(f"| {first} ")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_of_a_case_has_a_line_for_each_server() -> None:
    text = tables(
        document(
            row("vipsrv"),
            row(
                "thumbor",
                source="file",
                ratio_to_vipsrv=0.83,
                client_cpu_ms_per_request=0.5,
                huffman="optimised",
                shrink_factor=2,
            ),
        )
    )
    assert "## 12 MP to jpeg of 800 × 600" in text
    head = dict(zip(cells(text, "server"), cells(text, "thumbor"), strict=True))
    assert head == {
        "server": "thumbor",
        "image by": "file",
        "requests/s": "100.0",
        "of vipsrv": "0.83",
        "CPU ms": "10.00",
        "of bare loop": "1.00",
        "client ms": "0.50",
        "p50 ms": "40.0",
        "p99 ms": "90.0",
        "bytes": "1000",
        "SSIM": "0.9500",
        "colour": "0.60",
        "Huffman": "optimised",
        "shrink": "1/2",
        "wrong": "",
    }


def test_a_floor_has_empty_cells() -> None:
    floor = row("codec-floor", ssim=None, colour_difference=None, huffman=None, shrink_factor=None)
    assert cells(tables(document(floor)), "codec-floor")[-5:] == ["", "", "", "", ""]


def test_all_lines_of_a_table_are_equally_long() -> None:
    text = tables(document(row("vipsrv"), row("nginx", output_bytes=123456789)))
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({len(line) for line in block.splitlines()}) == 1


def test_the_summary_compares_the_peers_with_vipsrv() -> None:
    text = tables(
        document(
            row("vipsrv"),
            row("bare-loop", ratio_to_vipsrv=1.1),
            row("sharp", ratio_to_vipsrv=0.92),
            row("thumbor", ratio_to_vipsrv=0.5, wrong=3, problem="the size is 1 × 1, not 800 × 600"),
            row("vipsrv", "6 MP"),
            row("sharp", "6 MP", ratio_to_vipsrv=0.99),
        )
    )
    assert cells(text, "case") == ["case", "sharp", "thumbor"]
    assert cells(text, "12 MP") == ["12 MP", "0.92", "0.50 (wrong)"]
    assert cells(text, "6 MP") == ["6 MP", "0.99", "–"]


def test_there_is_no_summary_without_vipsrv() -> None:
    text = tables(document(row("sharp", ratio_to_vipsrv=None)))
    assert "vipsrv = 1" not in text
    assert cells(text, "sharp")[3] == ""


def test_wrong_results_are_counted_and_told() -> None:
    text = tables(document(row("sharp", wrong=3, problem="the quality is 80, not 85")))
    assert cells(text, "sharp")[-1] == "3"
    assert "- sharp, 12 MP: 3 wrong results: the quality is 80, not 85" in text


@pytest.mark.parametrize(("others", "told_of"), [(0.01, False), (0.4, True)])
def test_the_notes_name_what_is_missing_and_disturbance(others: float, told_of: bool) -> None:  # noqa: FBT001
    text = tables(document(row("vipsrv", others_share=others)))
    assert "- imgproxy is missing: no imgproxy on the path" in text
    assert "- photo is left out: no photo.jpg" in text
    assert "8 connections, kept, with one request at a time each" in text
    assert "a fast one" in text
    assert ("Others used up to 40%" in text) == told_of
