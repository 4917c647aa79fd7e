"""Imports between the parts of vipsrv point one way and have no circle.

``cli → server → workers → pipeline``, ``cli → batch → client → protocol``, ``server → protocol``,
``server → storage`` and ``workers → storage``. Imports in functions, in ``TYPE_CHECKING`` blocks and by name
count like all others.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import vipsrv

ROOT = Path(vipsrv.__file__).parent

# Every part may import these; they import nothing of ours.
LEAVES = {"options", "errors", "version", "address", "worker_config", "printable"}

# Folder or module → the parts of vipsrv that it may import besides the leaves.
ALLOWED: dict[str, set[str]] = {
    "options": {"options"},
    "errors": set(),
    "version": set(),
    "address": set(),
    "worker_config": set(),
    "printable": set(),
    "storage": {"storage"},
    "protocol": {"protocol"},
    "pipeline": {"pipeline"},
    "workers": {"workers", "storage"},
    "server": {"server", "workers", "storage", "protocol"},
    "client": {"client", "protocol"},
    "batch": {"batch", "client"},
    "cli": {"cli", "server", "batch", "client", "protocol"},
    "__main__": {"cli"},
}

# Module or package → the parts that it may import in addition to those of its folder.
EXCEPTIONS: dict[str, set[str]] = {"vipsrv.workers.child.runner": {"pipeline"}}

# Module or package → what its folder may import and it may not.
FORBIDDEN: dict[str, set[str]] = {
    # The life of a request knows no wire, so that every kind of connection can use it.
    "vipsrv.server.exchange": {"vipsrv.protocol", "vipsrv.server.connections"},
    # It knows requests and replies, but no sockets: any listener for HTTP may serve it.
    "vipsrv.server.api": {
        *("vipsrv.protocol", "vipsrv.server.connections", "vipsrv.server.gateway"),
        "vipsrv.server.http.connection",
    },
    "vipsrv.server.context": {"vipsrv.protocol", "vipsrv.server.connections", "vipsrv.server.gateway"},
}

# Package → all of vipsrv that its modules may import besides the leaves and their EXCEPTIONS.
ONLY: dict[str, set[str]] = {
    # A worker has nothing of the gateway's side.
    "vipsrv.workers.child": {
        "vipsrv.workers.child",
        "vipsrv.workers.channel",
        "vipsrv.workers.process_control",
        "vipsrv.workers.shared_memory",
    },
}

# Packages that are started as processes, and that nothing outside of them imports.
PROCESSES = {"vipsrv.workers.child", "vipsrv.server.gateways.child"}

# Module → the package whose modules it finds and imports by name.
DISCOVERS = {
    "vipsrv.pipeline.formats.registry": "vipsrv.pipeline.formats",
    "vipsrv.batch": "vipsrv.batch",  # what it exports, when it is used
    "vipsrv.client": "vipsrv.client",  # likewise
}

# Third-party packages that only these parts may import.
RESERVED: dict[str, set[str]] = {
    "pyvips": {"pipeline"},
    "PIL": {"cli"},
    "typer": {"cli"},
    "rich": {"cli"},
    "pyarrow": {"batch"},
    "obstore": {"batch"},
    "fsspec": {"batch"},
    "ray": {"batch"},
    "pydantic": {"server", "cli"},
    "uvloop": {"server"},
    "cryptography": {"cli"},
    "structlog": {"server"},
    "httptools": {"server"},
    "prometheus_client": {"server", "batch"},
    "opentelemetry": {"server"},
}

# Modules of input and output, which the protocol must not import: it has no sockets and no clock.
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
    """Every module that the source imports, in functions, in ``TYPE_CHECKING`` blocks and by name, too.

    Relative imports start from ``package``. A name that is imported from the package ``vipsrv`` counts as an
    import of the module that defines it. An import that cannot be resolved is given as ``?`` with its line.
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


def is_within(module: str, package: str) -> bool:
    """Whether ``module`` is ``package`` or a module in it."""
    return module == package or module.startswith(f"{package}.")


def named_for(module: str, table: Mapping[str, set[str]]) -> set[str]:
    """The values of all keys of ``table`` that ``module`` is within."""
    return {value for key, values in table.items() if is_within(module, key) for value in values}


def may_import(module: str, target: str) -> bool:
    """Whether the rules let ``module`` import ``target``; both are modules of vipsrv."""
    unit = module.split(".")[1]
    part = target.removeprefix("vipsrv").removeprefix(".").partition(".")[0]  # empty: the package itself
    everywhere = named_for(module, EXCEPTIONS) | (set() if unit in LEAVES else LEAVES)
    forbidden = named_for(module, FORBIDDEN) | {one for one in PROCESSES if not is_within(module, one)}
    if part not in ALLOWED[unit] | everywhere or any(is_within(target, one) for one in forbidden):
        return False
    only = named_for(module, ONLY)
    return not only or part in everywhere or any(is_within(target, one) for one in only)


def broken_rules(module: str, text: str, *, is_package: bool, modules: set[str]) -> list[str]:
    """A sentence for each import in the source ``text`` of ``module`` that breaks a rule."""
    unit = module.split(".")[1]
    if unit not in ALLOWED:
        return [f"{module} is in no folder that the rules know: give it a line in ALLOWED"]
    package = module if is_package else module.rpartition(".")[0]
    broken = []
    for target in imported_names(ast.parse(text), package, modules):
        top = target.partition(".")[0]
        if target.startswith("?"):
            if module not in DISCOVERS:
                broken.append(f"{module} imports something that cannot be resolved: {target}")
        elif top != "vipsrv":
            if unit not in RESERVED.get(top, {unit}):
                broken.append(f"{module} imports {target}")
            if unit in WITHOUT_IO and top in IO_MODULES:
                broken.append(f"{module} imports {target}, which is input or output")
        elif target != "vipsrv.__version__" and not may_import(module, target):
            broken.append(f"{module} imports {target}")
    return broken


def _broken_in(module: str, path: Path) -> list[str]:
    return broken_rules(module, path.read_text(), is_package=path.name == "__init__.py", modules=set(MODULES))


def import_graph(sources: Mapping[str, tuple[str, bool]]) -> dict[str, set[str]]:
    """Module → the modules that it imports, of ``sources``: module → its text and whether it is a package.

    An import from a package's ``__init__`` is an edge to that ``__init__``, also from inside the package. The
    import of a module in a package is an edge to that module only: that Python runs the ``__init__`` of all
    its parents first is not counted, as else each package that re-exports a name would be a circle.
    """
    graph: dict[str, set[str]] = {}
    for module, (text, is_package) in sources.items():
        package = module if is_package else module.rpartition(".")[0]
        graph[module] = set()
        for target in imported_names(ast.parse(text), package, set(sources)):
            name = target
            while name and name not in sources:
                name = name.rpartition(".")[0]
            if name:
                graph[module].add(name)
        if module in DISCOVERS:
            graph[module] |= {one for one in sources if is_within(one, DISCOVERS[module])} - {module}
    return graph


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of one circle, the first of them again at the end; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found[::-1]  # graphlib lists what is imported before what imports it
    return []


@pytest.mark.parametrize("module", [module for module in MODULES if module != "vipsrv"])
def test_imports_point_one_way(module: str) -> None:
    assert _broken_in(module, MODULES[module]) == []


def test_every_part_of_the_rules_is_there() -> None:
    present = {module.split(".")[1] for module in MODULES if module != "vipsrv"}
    assert present == set(ALLOWED)
    assert set(EXCEPTIONS) <= set(MODULES)
    assert set(MODULES) >= PROCESSES | {*DISCOVERS, *DISCOVERS.values()}
    for table in (FORBIDDEN, ONLY):
        assert {*table, *(name for names in table.values() for name in names)} <= set(MODULES)


def test_imports_have_no_circle() -> None:
    sources = {module: (path.read_text(), path.name == "__init__.py") for module, path in MODULES.items()}
    graph = import_graph(sources)
    assert graph["vipsrv.client"]  # or nothing was found at all
    assert circle(graph) == []


FOR_TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ({"p.a": "from p.b import x", "p.b": "from p.a import y"}, {"p.a", "p.b"}),
        ({"p.a": "import p.b", "p.b": "from . import c", "p.c": "from .a import x"}, {"p.a", "p.b", "p.c"}),
        ({"p.a": "from p.b import x", "p.b": f"{FOR_TYPES}from p.a import y"}, {"p.a", "p.b"}),
        ({"p.a": "from p.b import x", "p.b": "def f():\n    from p.a import y"}, {"p.a", "p.b"}),
        (
            {"p.a": "from p.b import x", "p.b": "import importlib\nimportlib.import_module('p.a')"},
            {"p.a", "p.b"},
        ),
        # A package whose own module imports from its __init__.
        ({"p": "from p.a import x", "p.a": "from p import x"}, {"p", "p.a"}),
        ({"p.a": "from p.a import x"}, {"p.a"}),
        (
            {"p": "from p.a import x", "p.a": "from p.b import x", "p.b": "from p.c import x", "p.c": ""},
            set(),
        ),
        ({"p.a": "from p.b import x\nimport json", "p.b": "import p.c", "p.c": "import os"}, set()),
    ],
)
def test_a_circle_is_found(sources: dict[str, str], found: set[str]) -> None:
    packages = {"p"}
    graph = import_graph({module: (text, module in packages) for module, text in sources.items()})
    assert set(circle(graph)) == found


def test_a_module_that_finds_others_imports_them() -> None:
    registry, package = next(iter(DISCOVERS.items()))
    found = {
        package: ("", True),
        registry: ("", False),
        f"{package}.png": (f"from {registry} import x", False),
    }
    assert set(circle(import_graph(found))) == {registry, f"{package}.png"}


def test_a_circle_is_told_in_the_order_of_its_imports() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) in (
        ["a", "b", "c", "a"],
        ["b", "c", "a", "b"],
        ["c", "a", "b", "c"],
    )


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
        ("vipsrv.client.blocking", "from vipsrv.batch import x", "imports vipsrv.batch"),
        ("vipsrv.batch.run", "from vipsrv.server import x", "imports vipsrv.server"),
        ("vipsrv.batch.run", "from vipsrv.cli import x", "imports vipsrv.cli"),
        ("vipsrv.cli.batch", "import ray", "imports ray"),
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
        (
            "vipsrv.server.gateway",
            "from importlib import import_module as m",
            "cannot be resolved: ? (line 1)",
        ),
        (
            "vipsrv.server.gateway",
            "import importlib\nimportlib.import_module('.cli', x)",
            "cannot be resolved",
        ),
        ("vipsrv.server.gateway", "import importlib\nimportlib.import_module('.cli')", "cannot be resolved"),
        ("vipsrv.server.gateway", "__import__('vipsrv.cli')", "imports vipsrv.cli"),
        (
            "vipsrv.server.gateway",
            "__import__(name)",
            "imports something that cannot be resolved: ? (line 1)",
        ),
        ("vipsrv.ops.metrics", "", "is in no folder that the rules know"),
        ("vipsrv.storage.spool", "from vipsrv.workers import job", "imports vipsrv.workers"),
        ("vipsrv.storage.spool", "from vipsrv.protocol import Header", "imports vipsrv.protocol"),
        ("vipsrv.storage.spool", "from vipsrv.server.settings import x", "imports vipsrv.server.settings"),
        ("vipsrv.protocol.reader", "from vipsrv.storage import spool", "imports vipsrv.storage"),
        ("vipsrv.client.blocking", "from vipsrv.storage import spool", "imports vipsrv.storage"),
        ("vipsrv.client.blocking", "from vipsrv.workers import channel", "imports vipsrv.workers"),
        ("vipsrv.client.blocking", "import pydantic", "imports pydantic"),
        ("vipsrv.client.blocking", "import uvloop", "imports uvloop"),
        ("vipsrv.cli.client", "from vipsrv.pipeline import run", "imports vipsrv.pipeline"),
        ("vipsrv.cli.client", "from vipsrv.workers import pool", "imports vipsrv.workers"),
        ("vipsrv.worker_config", "from vipsrv import options", "imports vipsrv.options"),
        ("vipsrv.address", "from vipsrv.errors import VipsrvError", "imports vipsrv.errors"),
        ("vipsrv.errors", "from vipsrv.version import __version__", "imports vipsrv.version"),
        ("vipsrv.pipeline.resize", "from vipsrv.storage import spool", "imports vipsrv.storage"),
        ("vipsrv.workers.child.loop", "from vipsrv.pipeline import run", "imports vipsrv.pipeline"),
        ("vipsrv.workers.child.runners", "from vipsrv.pipeline import run", "imports vipsrv.pipeline"),
        (
            "vipsrv.workers.child.loop",
            "from vipsrv.storage.spool import Spool",
            "imports vipsrv.storage.spool",
        ),
        ("vipsrv.workers.child.loop", "from vipsrv.workers import pool", "imports vipsrv.workers.pool"),
        (
            "vipsrv.workers.child.loop",
            "from vipsrv.workers.process import x",
            "imports vipsrv.workers.process",
        ),
        ("vipsrv.workers.pool", "from vipsrv.workers import child", "imports vipsrv.workers.child"),
        ("vipsrv.server.gateway", "from vipsrv.workers.child.watch import x", "imports vipsrv.workers.child"),
        ("vipsrv.server.exchange", "from vipsrv.protocol import Kind", "imports vipsrv.protocol"),
        ("vipsrv.server.exchange", "from .connections.binary import x", "imports vipsrv.server.connections"),
        ("vipsrv.server.context", "from .gateway import Gateway", "imports vipsrv.server.gateway"),
        (
            "vipsrv.server.api.image_routes",
            "from vipsrv.server.http.connection import HttpConnection",
            "imports vipsrv.server.http.connection",
        ),
    ],
)
def test_the_rules_can_be_broken(module: str, text: str, broken: str) -> None:
    found = broken_rules(module, text, is_package=module.count(".") == 1, modules={*MODULES, "vipsrv.cli"})
    assert [sentence for sentence in found if broken in sentence], found


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("vipsrv.workers.child.runner", "from vipsrv.pipeline import run"),
        ("vipsrv.workers.child.loop", "from .watch import x\nfrom vipsrv.workers import channel"),
        ("vipsrv.workers.pool", "from vipsrv.storage.spool import Spool"),
        (
            "vipsrv.server.exchange",
            "from vipsrv.storage.spool import Slot\nfrom vipsrv.workers.job import Job",
        ),
        ("vipsrv.pipeline.steps", "import pyvips\nfrom vipsrv.options import Fit"),
        (
            "vipsrv.server.gateway",
            "import asyncio\nfrom vipsrv.protocol import Header\nfrom .session import x",
        ),
        ("vipsrv.server.gateway", "from vipsrv import __version__, errors, options, ImageInfo"),
        ("vipsrv.cli.client", "from PIL import Image\nfrom vipsrv.client import Client"),
    ],
)
def test_an_allowed_import_breaks_no_rule(module: str, text: str) -> None:
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
    # The module's __getattr__ imports by name; the values of its table are checked below.
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
        (
            "vipsrv.server.gateway",
            {
                "vipsrv.server.http",
                "vipsrv.server.ops.operator",
                "httptools",
                "prometheus_client",
                "opentelemetry",
            },
        ),
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
