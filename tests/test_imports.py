"""Imports point one way: cli → server → workers → pipeline and cli → client → protocol ← server."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vipsrv

ROOT = Path(vipsrv.__file__).parent

# What may be imported from everywhere, and itself imports nothing of ours.
LEAVES = {"options", "errors", "version", "address", "worker_config"}

# Folder or module → what of ours it may import besides the leaves.
ALLOWED: dict[str, set[str]] = {
    "options": set(),
    "errors": set(),
    "version": set(),
    "address": set(),
    "worker_config": set(),
    "storage": {"storage"},
    "protocol": {"protocol"},
    "pipeline": {"pipeline"},
    "workers": {"workers", "storage"},
    "server": {"server", "workers", "storage", "protocol"},
    "client": {"client", "protocol"},
    "cli": {"cli", "server", "client", "protocol"},
    "__main__": {"cli"},
}

# The one module that may import more than its folder.
EXCEPTIONS: dict[str, set[str]] = {"vipsrv.workers.child.runner": {"pipeline"}}

# The one module that imports by name what it finds, which is every module of its own folder.
DISCOVERS = {"vipsrv.pipeline.formats.registry"}

# Packages of others that only these may import.
RESERVED: dict[str, set[str]] = {
    "pyvips": {"pipeline"},
    "PIL": {"cli"},
    "typer": {"cli"},
}

# What "bytes only: no sockets, no clock" means.
IO_MODULES = {
    "asyncio",
    "uvloop",
    "socket",
    "ssl",
    "select",
    "selectors",
    "threading",
    "time",
    "os",
    "subprocess",
}
WITHOUT_IO = {"protocol", "options", "errors", "version"}

MODULES = {
    ".".join(("vipsrv", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def imported_names(tree: ast.AST, package: str, modules: set[str]) -> Iterator[str]:
    """Every module that is imported, in functions, ``TYPE_CHECKING`` blocks and by name, too.

    ``package`` is what relative imports start from. A name loaded from the package ``vipsrv`` counts as an
    import of where it lives. What cannot be told is given as ``?`` with the line.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = ".".join(package.split(".")[: len(package.split(".")) - level + 1]) if level else ""
                source = ".".join(part for part in (base, module) if part)
                for alias in names:
                    if source == "importlib" and alias.asname:
                        yield f"? (line {node.lineno})"
                    inner = f"{source}.{alias.name}"
                    if source == "vipsrv":
                        yield inner if inner in modules else vipsrv._HOME.get(alias.name, inner)
                    else:
                        yield inner if inner in modules else source
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=arguments) if name in {
                "import_module",
                "__import__",
                "run_module",
                "run_path",
            }:
                match arguments:
                    case [ast.Constant(value=str() as target)] if not target.startswith("."):
                        yield target
                    case _:
                        yield f"? (line {node.lineno})"
            case _:
                pass


def broken_rules(module: str, text: str, *, is_package: bool, modules: set[str]) -> list[str]:
    """What in the source ``text`` of ``module`` breaks a rule, a sentence each."""
    unit = module.split(".")[1]
    if unit not in ALLOWED:
        return [f"{module} is in no folder that the rules know: give it a line in ALLOWED"]
    package = module if is_package else module.rpartition(".")[0]
    allowed = ALLOWED[unit] | EXCEPTIONS.get(module, set())
    if unit not in LEAVES:
        allowed |= LEAVES
    broken = []
    for target in imported_names(ast.parse(text), package, modules):
        top, *rest = target.split(".")
        if target.startswith("?") and module not in DISCOVERS:
            broken.append(f"{module} imports something that cannot be told: {target}")
        elif top != "vipsrv":
            if unit not in RESERVED.get(top, {unit}):
                broken.append(f"{module} imports {target}")
            if unit in WITHOUT_IO and top in IO_MODULES:
                broken.append(f"{module} imports {target}, which is input or output")
        elif target == "vipsrv.__version__":
            continue
        elif not rest or rest[0] not in allowed:
            broken.append(f"{module} imports {target}")
    return broken


def _broken_in(module: str, path: Path) -> list[str]:
    return broken_rules(module, path.read_text(), is_package=path.name == "__init__.py", modules=set(MODULES))


@pytest.mark.parametrize("module", [module for module in MODULES if module != "vipsrv"])
def test_imports_point_one_way(module: str) -> None:
    assert _broken_in(module, MODULES[module]) == []


def test_every_part_of_the_rules_is_there() -> None:
    present = {module.split(".")[1] for module in MODULES if module != "vipsrv"}
    assert present == set(ALLOWED)
    assert set(EXCEPTIONS) <= set(MODULES)


@pytest.mark.parametrize(
    ("module", "text", "broken"),
    [
        ("vipsrv.server.gateway", "import pyvips", "imports pyvips"),
        ("vipsrv.server.gateway", "import pyvips.enums as e", "imports pyvips.enums"),
        ("vipsrv.server.gateway", "def f():\n    from pyvips import Image", "imports pyvips"),
        ("vipsrv.client.blocking", "from PIL import Image", "imports PIL"),
        ("vipsrv.server.gateway", "from vipsrv.client import Client", "imports vipsrv.client"),
        ("vipsrv.server.gateway", "from vipsrv import client", "imports vipsrv.client"),
        ("vipsrv.server.gateway", "from vipsrv import Client", "imports vipsrv.client"),
        ("vipsrv.server.gateway", "from vipsrv import nothing", "imports vipsrv.nothing"),
        ("vipsrv.server.gateway", "from .. import cli", "imports vipsrv.cli"),
        ("vipsrv.server.gateway", "from ..pipeline.steps import x", "imports vipsrv.pipeline.steps"),
        ("vipsrv.server", "from ..cli import x", "imports vipsrv.cli"),
        ("vipsrv.server.gateway", "import vipsrv", "imports vipsrv"),
        ("vipsrv.server.gateway", "import vipsrv.pipeline", "imports vipsrv.pipeline"),
        ("vipsrv.workers.pool", "from vipsrv.pipeline import run", "imports vipsrv.pipeline"),
        ("vipsrv.workers.child", "from vipsrv.server import x", "imports vipsrv.server"),
        ("vipsrv.workers.pool", "from vipsrv.protocol import Header", "imports vipsrv.protocol"),
        ("vipsrv.pipeline.steps", "from vipsrv.workers import job", "imports vipsrv.workers"),
        ("vipsrv.client.blocking", "from vipsrv.server import x", "imports vipsrv.server"),
        ("vipsrv.client.blocking", "from vipsrv.cli import x", "imports vipsrv.cli"),
        ("vipsrv.protocol.frames", "from vipsrv.server import x", "imports vipsrv.server"),
        ("vipsrv.protocol.frames", "import socket", "imports socket, which is input or output"),
        ("vipsrv.protocol.frames", "from asyncio import Event", "imports asyncio, which is input or output"),
        ("vipsrv.options", "from vipsrv.errors import BadRequest", "imports vipsrv.errors"),
        ("vipsrv.version", "from vipsrv import options", "imports vipsrv.options"),
        (
            "vipsrv.server.gateway",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vipsrv.cli.server import main",
            "imports vipsrv.cli.server",
        ),
        ("vipsrv.server.gateway", "import importlib\nimportlib.import_module('pyvips')", "imports pyvips"),
        ("vipsrv.server.gateway", "from importlib import import_module as m", "cannot be told: ? (line 1)"),
        ("vipsrv.server.gateway", "import importlib\nimportlib.import_module('.cli', x)", "cannot be told"),
        ("vipsrv.server.gateway", "import importlib\nimportlib.import_module('.cli')", "cannot be told"),
        ("vipsrv.server.gateway", "__import__('vipsrv.cli')", "imports vipsrv.cli"),
        ("vipsrv.server.gateway", "__import__(name)", "imports something that cannot be told: ? (line 1)"),
        ("vipsrv.ops.metrics", "", "is in no folder that the rules know"),
    ],
)
def test_the_rules_can_be_broken(module: str, text: str, broken: str) -> None:
    found = broken_rules(module, text, is_package=module.count(".") == 1, modules={*MODULES, "vipsrv.cli"})
    assert [sentence for sentence in found if broken in sentence], found


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("vipsrv.workers.child.runner", "from vipsrv.pipeline import run"),
        ("vipsrv.pipeline.steps", "import pyvips\nfrom vipsrv.options import Fit"),
        (
            "vipsrv.server.gateway",
            "import asyncio\nfrom vipsrv.protocol import Header\nfrom .session import x",
        ),
        ("vipsrv.server.gateway", "from vipsrv import __version__, errors, options, ImageInfo"),
        ("vipsrv.cli.client", "from PIL import Image\nfrom vipsrv.client import Client"),
    ],
)
def test_what_is_allowed_breaks_no_rule(module: str, text: str) -> None:
    assert broken_rules(module, text, is_package=False, modules=set(MODULES)) == []


def test_the_package_itself_loads_lazily() -> None:
    tree = ast.parse(MODULES["vipsrv"].read_text())
    at_once = [
        name
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        for name in imported_names(node, "vipsrv", set(MODULES))
        if name.split(".")[0] == "vipsrv"
    ]
    # The module's __getattr__ imports by name, from a table whose values are checked below.
    assert [name for name in at_once if not name.startswith("?")] == ["vipsrv.version"]
    assert set(vipsrv._HOME.values()) <= {"vipsrv.client", "vipsrv.options", "vipsrv.errors"}
    assert sorted([*vipsrv._HOME, "__version__"]) == sorted(vipsrv.__all__)


def test_every_public_name_can_be_loaded() -> None:
    for name in vipsrv.__all__:
        assert getattr(vipsrv, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        vipsrv.nothing  # noqa: B018 - loading it is the test


def _loaded_by(module: str) -> set[str]:
    """The top-level names of all modules that a fresh process has loaded after importing ``module``."""
    code = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT.parent
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("vipsrv", {"vipsrv.options", "vipsrv.client", "vipsrv.server", "asyncio", "pyvips", "PIL"}),
        ("vipsrv.protocol", {"asyncio", "socket", "pyvips", "PIL"}),
        ("vipsrv.server", {"vipsrv.pipeline", "vipsrv.client", "pyvips", "PIL"}),
        ("vipsrv.client", {"vipsrv.pipeline", "vipsrv.server", "vipsrv.workers", "pyvips", "PIL"}),
        (
            "vipsrv.workers.child.__main__",
            {"vipsrv.protocol", "vipsrv.server", "vipsrv.client", "vipsrv.pipeline", "asyncio", "PIL"},
        ),
        (
            "vipsrv.workers.child.runner",
            {"vipsrv.protocol", "vipsrv.server", "vipsrv.client", "asyncio", "PIL"},
        ),
        ("vipsrv.pipeline", {"vipsrv.protocol", "vipsrv.server", "vipsrv.client", "asyncio", "PIL"}),
    ],
)
def test_importing_a_part_leaves_the_others_unloaded(module: str, absent: set[str]) -> None:
    loaded = _loaded_by(module)
    assert module in loaded
    assert loaded & absent == set()
