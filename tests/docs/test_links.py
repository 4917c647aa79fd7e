"""Relative links of the documents lead to files that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("bench", "docker", "docs", "examples", "fuzz", "vipsrv")
DOCUMENTS = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]

_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)")
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def links(text: str) -> list[str]:
    return _LINK.findall(_CODE.sub("", text))


def test_links_are_found() -> None:
    text = "[a](b.md#c) ![d](e.svg) [f](https://example.org/) [g](#h)\n```sh\n[i](j.md)\n```\n[k](l/m.md)"
    assert links(text) == ["b.md", "e.svg", "l/m.md"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(path: Path) -> None:
    assert [link for link in links(path.read_text()) if not (path.parent / link).exists()] == []
