"""Hooks of MkDocs: files of the repository become pages, and the tables of settings and metrics are made from
their declarations.

A page may hold these lines::

    <!-- include: vipsrv/protocol/README.md -->    the file, as Markdown or, if it is source, as a code block
    <!-- settings -->                              the table of all settings of the server
    <!-- metrics -->                               the table of all metrics of the server
    <!-- values: vipsrv.Fit -->                    the values of an enumeration

A relative link of an included file leads to the page that includes its target or, if no page does, to the
file in the public repository.
"""

import posixpath
import re
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ByteSize
from pydantic.fields import FieldInfo

from vipsrv.server.metrics.catalogue import METRICS
from vipsrv.server.settings import ServerSettings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
DECISIONS = DOCS / "decisions"

_INCLUDE = re.compile(r"^<!-- include: (\S+) -->$", re.MULTILINE)
_VALUES = re.compile(r"^<!-- values: (\S+)\.(\w+) -->$", re.MULTILINE)
_SETTINGS = "<!-- settings -->"
_METRICS = "<!-- metrics -->"
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=\))")
_LISTS = {"README.md", "index.md"}
_COMPUTED = {"workers": "one per available core", "spool_dir": "`/var/tmp`"}
"""What to show for a default that depends on the machine."""


def on_config(config: Any) -> Any:
    """Take the repository's address from the package's metadata, and list the decisions."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {})
    config.repo_url = urls.get("Repository") or urls.get("Source") or urls.get("Homepage")
    # The page that lists them comes first, then the decisions by their numbers.
    decisions = sorted(DECISIONS.glob("*.md"), key=lambda path: (path.name not in _LISTS, path.name))
    if decisions:
        pages = [path.relative_to(DOCS).as_posix() for path in decisions]
        config.nav.insert(-1, {"Decisions": pages})
    return config


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Expand the special lines of a page."""
    return expand(markdown, page.file.src_uri, config.repo_url)


def on_page_content(html: str, **_: Any) -> str:
    """Remove the ``::`` that announces a literal block in a docstring; Markdown has no such mark."""
    return html.replace("<p>::</p>\n", "")


def expand(markdown: str, here: str, repo_url: str | None) -> str:
    """``markdown`` of the page ``here`` with the files and tables that it names."""
    markdown = _INCLUDE.sub(lambda match: _included(match[1], here, repo_url), markdown)
    if here.startswith("decisions/"):
        markdown = _relinked(markdown, f"docs/{here}", here, repo_url)
    markdown = _VALUES.sub(lambda match: _values(match[1], match[2]), markdown)
    markdown = markdown.replace(_METRICS, "\n".join(_metrics_table()))
    return markdown.replace(_SETTINGS, "\n".join(_settings_table()))


def _included(path: str, here: str, repo_url: str | None) -> str:
    text = (ROOT / path).read_text()
    if path.endswith(".md"):
        return _relinked(text, path, here, repo_url)
    return f"```{Path(path).suffix.removeprefix('.')}\n{text}```"


def _relinked(text: str, path: str, here: str, repo_url: str | None) -> str:
    """``text`` of the file ``path``, its links made for the page ``here``."""
    pages = _pages()

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))
        anchor = match[2] or ""
        if target.startswith("docs/"):
            to = target.removeprefix("docs/")
        elif target in pages:
            to = pages[target]
        elif not (ROOT / target).exists():
            raise FileNotFoundError(f"{path} has a link to {match[1]}, which does not exist")
        elif repo_url:
            return f"{repo_url.rstrip('/')}/blob/main/{target}{anchor}"
        else:
            # Without a public address there is nowhere to lead to.
            return f"{posixpath.relpath('index.md', posixpath.dirname(here) or '.')}"
        return posixpath.relpath(to, posixpath.dirname(here) or ".") + anchor

    return _LINK.sub(link, text)


def _values(module: str, name: str) -> str:
    members = getattr(import_module(module), name)
    return "Values: " + ", ".join(f"`{member.value}`" for member in members) + "."


def _pages() -> dict[str, str]:
    """A file of the repository → the first page that includes it. The README is the home page."""
    pages = {"README.md": "index.md"}
    for page in sorted(DOCS.rglob("*.md")):
        for path in _INCLUDE.findall(page.read_text()):
            pages.setdefault(path, page.relative_to(DOCS).as_posix())
    return pages


def _settings_table() -> Iterator[str]:
    yield "| flag, environment variable | default | change | meaning |"
    yield "| --- | --- | --- | --- |"
    reloadable = ServerSettings.reloadable()
    for name, field in ServerSettings.model_fields.items():
        word = name.replace("_", "-")
        flag = f"--no-{word}" if field.default is True else f"--{word}"
        meaning = (field.description or "").replace("|", "\\|")
        # One below the other, so that the table is not wider than the page.
        change = "reload" if name in reloadable else "restart"
        yield f"| `{flag}`<br>`VIPSRV_{name.upper()}` | {_default(name, field)} | {change} | {meaning} |"


def _metrics_table() -> Iterator[str]:
    yield "| metric, type, labels | meaning | alert on |"
    yield "| --- | --- | --- |"
    for metric in METRICS.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        what = f"`{metric.name}`<br>{metric.type}" + (f"; {labels}" if labels else "")
        meaning = metric.help + (f" It moves {metric.moves}." if metric.moves else "")
        yield f"| {what} | {meaning} | {metric.alert or '–'} |"


def _default(name: str, field: FieldInfo) -> str:
    if field.default_factory is not None:
        return _COMPUTED[name]
    value = field.default
    if value is None or value == ():
        return "–"
    if isinstance(value, ByteSize):
        return f"`{value.human_readable(separator=' ')}`"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value}`"
