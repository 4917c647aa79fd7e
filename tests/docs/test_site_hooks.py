"""The hooks of the documentation site, without MkDocs."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from vipsrv.server.metrics.catalogue import METRICS
from vipsrv.server.settings import ServerSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hooks() -> Any:
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_has_every_setting(hooks: Any) -> None:
    table = hooks.expand("<!-- settings -->", "operations/settings.md", None)
    for name in ServerSettings.model_fields:
        assert f"<br>`VIPSRV_{name.upper()}` |" in table
    assert "| `--port`<br>`VIPSRV_PORT` | `65432` |" in table
    assert "| `--no-pin-workers`<br>`VIPSRV_PIN_WORKERS` | yes |" in table
    assert "| `--max-upload`<br>`VIPSRV_MAX_UPLOAD` | `2.0 GiB` | reload |" in table
    assert "| `--workers`<br>`VIPSRV_WORKERS` | one per available core | restart |" in table


def test_the_table_has_every_metric(hooks: Any) -> None:
    table = hooks.expand("<!-- metrics -->", "operations/monitoring.md", None)
    assert len(table.splitlines()) == len(METRICS) + 2
    for name in METRICS:
        assert f"| `{name}`<br>" in table
    assert "| `vipsrv_queue_length`<br>gauge; `lane` | Jobs that wait for a worker." in table


def test_the_values_of_an_enumeration_are_listed(hooks: Any) -> None:
    page = hooks.expand("<!-- values: vipsrv.Keep -->", "api/options.md", None)
    assert page == "Values: `none`, `icc`, `exif`, `all`."


def test_a_file_becomes_a_page(hooks: Any) -> None:
    protocol = hooks.expand("<!-- include: vipsrv/protocol/README.md -->", "protocol.md", None)
    assert protocol.startswith("# The wire protocol of vipsrv")
    script = hooks.expand("<!-- include: examples/plain_socket.py -->", "guide/examples.md", None)
    assert script.startswith('```py\n"""')


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.stem)
def test_every_page_expands(hooks: Any, page: Path) -> None:
    here = page.relative_to(ROOT / "docs").as_posix()
    expanded = hooks.expand(page.read_text(), here, None)
    assert re.findall("<!-- (?:include|settings|metrics|values).*", expanded) == []


@pytest.mark.parametrize(
    ("link", "page"),
    [
        ("[x](vipsrv/protocol/README.md#resize)", "[x](protocol.md#resize)"),
        ("[x](README.md)", "[x](index.md)"),
        ("[x](docs/operations/settings.md)", "[x](operations/settings.md)"),
        ("[x](vipsrv/errors.py)", "[x](https://example.org/vipsrv/blob/main/vipsrv/errors.py)"),
        ("[x](https://www.libvips.org/)", "[x](https://www.libvips.org/)"),
        ("[x](#here)", "[x](#here)"),
    ],
)
def test_a_link_of_an_included_file_leads_to_its_page(
    hooks: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, link: str, page: str
) -> None:
    for path in ("README.md", "vipsrv/errors.py", "vipsrv/protocol/README.md"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "NOTES.md").write_text(link)
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    assert hooks.expand("<!-- include: NOTES.md -->", "notes.md", "https://example.org/vipsrv") == page


def test_a_broken_link_fails(hooks: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "NOTES.md").write_text("[x](missing.py)")
    monkeypatch.setattr(hooks, "ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"NOTES\.md has a link to missing\.py"):
        hooks.expand("<!-- include: NOTES.md -->", "notes.md", None)
