"""The parts of bench import one another in one direction, and the commands that documents mention exist."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import BENCH, ROOT

ALLOWED = {
    "arguments": {"images"},
    "images": set(),
    "image_sets": {"images"},
    "image_quality": set(),
    "jpeg_header": set(),
    "shrink_on_load": {"image_quality"},
    "wire": set(),
    "http_wire": {"wire"},
    "measuring": set(),
    "batch": {"measuring"},
    "baselines": {"images", "jpeg_header", "measuring", "wire"},
    "load": {"images", "measuring", "wire", "arguments"},
    "report": {"load", "baselines"},
    "suites": {
        "images",
        "image_sets",
        "image_quality",
        "measuring",
        "baselines",
        "batch",
        "wire",
        "http_wire",
    },
}
"""What each part may import beside itself; the tools may import all of them."""

THROUGH_BAD_NETWORK = {"tools/bad_network.py", "tools/bad_network_tus.py"}
"""Tools that use the network and the images of the tests' own support: what a tool counts for hundreds of
uploads, a test holds for a few."""

DOCUMENTS = ["README.md", "CHANGELOG.md", "bench/README.md", ".ci/run", "bench/limits.toml"]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("part", ALLOWED)
def test_a_part_imports_only_what_it_may(part: str) -> None:
    files = [BENCH / f"{part}.py"] if (BENCH / f"{part}.py").exists() else list((BENCH / part).rglob("*.py"))
    assert files
    for file in files:
        for name in imported(file):
            if name.startswith("bench.") and name not in {"bench.BENCH", "bench.ROOT"}:
                inside = name.removeprefix("bench.")
                known = {part, *ALLOWED[part]}
                assert any(f"{inside}.".startswith(f"{one}.") for one in known), f"{file} imports {name}"


def test_bench_imports_no_tests_and_the_tests_of_other_parts_import_no_bench() -> None:
    for file in BENCH.rglob("*.py"):
        of_tests = {name for name in imported(file) if name.split(".")[0] == "tests"}
        may = file.relative_to(BENCH).as_posix() in THROUGH_BAD_NETWORK
        assert all(may and name.startswith("tests.support.") for name in of_tests), file
    for file in (ROOT / "tests").rglob("*.py"):
        if ROOT / "tests" / "bench" not in file.parents:
            assert not any(name.split(".")[0] == "bench" for name in imported(file)), file


@pytest.mark.parametrize("document", [*DOCUMENTS, "docs/decisions"])
def test_every_command_in_a_document_exists(document: str) -> None:
    path = ROOT / document
    texts = [one.read_text() for one in (path.glob("*.md") if path.is_dir() else [path])]
    modules = {name for text in texts for name in re.findall(r"python -m (bench[\w.]*\w)", text)}
    modules.discard("bench.tools.NAME")
    assert modules, "the pattern finds nothing"
    for name in modules:
        found = importlib.util.find_spec(name)
        assert found is not None, f"{document} mentions {name}"
        if found.submodule_search_locations:
            assert importlib.util.find_spec(f"{name}.__main__") is not None, f"{name} cannot be run"


def test_every_tool_is_in_the_readme() -> None:
    mentioned = set(re.findall(r"python -m bench\.tools\.(\w+)", (BENCH / "README.md").read_text()))
    shared = {
        *("__init__", "batch_results", "batch_tables", "budget", "comparison", "comparison_cases"),
        *("comparison_targets", "threads"),
    }
    assert {tool.stem for tool in (BENCH / "tools").glob("*.py")} - shared == mentioned - {"NAME"}
